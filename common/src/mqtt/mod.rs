//! MQTT 3.1.1 packets over any byte stream, for both ends. The codec is that of
//! `mqtt-protocol-core`.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use device_stream_websocket::WebSocketBytes;
use mqtt_protocol_core::mqtt::common::Cursor;
use mqtt_protocol_core::mqtt::connection::{PacketBuildResult, PacketBuilder, RawPacket};
pub use mqtt_protocol_core::mqtt::packet::v3_1_1 as packet;
pub use mqtt_protocol_core::mqtt::packet::{Qos, SubEntry, SubOpts};
pub use mqtt_protocol_core::mqtt::result_code::{ConnectReturnCode, MqttError, SubackReturnCode};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf};

use crate::limits;
use crate::tls::stream::{End, TlsStream};

mod rules;

/// A packet that was received from the peer.
#[derive(Debug)]
pub enum Packet {
    /// First packet of a device.
    Connect(packet::Connect),
    /// The hub's answer to it.
    Connack(packet::Connack),
    /// A message, either way.
    Publish(packet::Publish),
    /// Acknowledgement of a QoS 1 message.
    Puback(packet::Puback),
    /// Filters that a device subscribes.
    Subscribe(packet::Subscribe),
    /// The hub's answer to it.
    Suback(packet::Suback),
    /// Filters that a device unsubscribes.
    Unsubscribe(packet::Unsubscribe),
    /// The hub's answer to it.
    Unsuback(packet::Unsuback),
    /// A ping.
    Pingreq,
    /// The answer to a ping.
    Pingresp,
    /// A device ends the connection in order.
    Disconnect,
}

/// A SUBSCRIBE for these filters, all at QoS 0.
///
/// # Errors
/// [`MqttError`] when one of them is not a topic filter.
pub fn subscribe(packet_id: u16, filters: &[&str]) -> Result<Vec<u8>, MqttError> {
    let options = SubOpts::new().set_qos(Qos::AtMostOnce);
    let entries: Result<Vec<_>, _> = filters
        .iter()
        .map(|filter| SubEntry::new(*filter, options))
        .collect();
    let subscribe = packet::Subscribe::builder()
        .packet_id(packet_id)
        .entries(entries?)
        .build()?;
    Ok(subscribe.to_continuous_buffer())
}

/// Why no packet could be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The connection ended, or was lost.
    #[error("the MQTT connection was lost")]
    Lost(#[source] io::Error),
    /// The packet is larger than allowed.
    #[error("the peer sent an MQTT packet larger than {limit} bytes")]
    TooLarge {
        /// The largest that is accepted.
        limit: usize,
    },
    /// A CONNECT of another version of MQTT.
    #[error("the peer speaks another version of MQTT than 3.1.1")]
    Version,
    /// The bytes are not MQTT 3.1.1.
    #[error("the peer sent bytes that are not MQTT 3.1.1")]
    Malformed,
}

/// The transport of MQTT at a hub.
pub trait Transport: AsyncRead + AsyncWrite + Unpin {
    /// The peer violated MQTT: the connection is closed with a protocol error, if possible.
    fn break_off(&mut self) {}

    /// Buffers no more than packets of `packet` bytes need.
    fn set_limit(&mut self, _packet: usize) {}
}

impl<S: AsyncRead + AsyncWrite + Unpin, E: End> Transport for TlsStream<S, E> {}

impl Transport for DuplexStream {}

impl<S: Transport> Transport for Box<S> {
    fn break_off(&mut self) {
        S::break_off(self);
    }

    fn set_limit(&mut self, packet: usize) {
        S::set_limit(self, packet);
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Transport for WebSocketBytes<S> {
    fn break_off(&mut self) {
        Self::break_off(self);
    }

    fn set_limit(&mut self, packet: usize) {
        Self::set_limit(self, packet);
    }
}

/// Packets over a byte stream.
pub struct PacketIo<S> {
    stream: S,
    unread: BytesMut,
    builder: PacketBuilder,
    limit: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> PacketIo<S> {
    /// Starts with room for packets of at most `limit` bytes.
    pub fn new(stream: S, limit: usize) -> Self {
        Self {
            stream,
            unread: BytesMut::new(),
            builder: PacketBuilder::with_maximum_packet_size(size(limit)),
            limit,
        }
    }

    /// Limits packets to `limit` bytes from now on, and the buffers of the transport too.
    pub fn set_limit(&mut self, limit: usize)
    where
        S: Transport,
    {
        self.limit = limit;
        self.stream.set_limit(limit);
        self.builder.set_maximum_packet_size(size(limit));
    }

    /// The next packet; `None` when the peer has ended the connection between two packets. The
    /// future may be dropped: bytes read so far are kept.
    ///
    /// # Errors
    /// [`ReadError`]; the connection cannot be used after it.
    pub async fn read(&mut self) -> Result<Option<Packet>, ReadError> {
        loop {
            if let Some(packet) = self.buffered()? {
                return Ok(Some(packet));
            }
            let count = poll_fn(|cx| self.poll_read(cx))
                .await
                .map_err(|error| ReadError::Lost(device_stream_websocket::text::plain(error)))?;
            if count == 0 {
                return Ok(None);
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // On the stack, so that an idle session has no buffer.
        let mut scratch = [MaybeUninit::uninit(); limits::MQTT_READ];
        let mut buffer = ReadBuf::uninit(&mut scratch);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
        self.unread.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(buffer.filled().len()))
    }

    fn buffered(&mut self) -> Result<Option<Packet>, ReadError> {
        if self.unread.is_empty() {
            return Ok(None);
        }
        let mut cursor = Cursor::new(self.unread.as_ref());
        let mut result = PacketBuildResult::Incomplete;
        while (cursor.position() as usize) < self.unread.len() {
            result = self.builder.feed(&mut cursor);
            if !matches!(result, PacketBuildResult::Incomplete) {
                break;
            }
        }
        let consumed = (cursor.position() as usize).min(self.unread.len());
        if consumed == self.unread.len() {
            self.unread = BytesMut::new();
        } else {
            bytes::Buf::advance(&mut self.unread, consumed);
        }
        match result {
            PacketBuildResult::Incomplete => Ok(None),
            PacketBuildResult::Complete(raw) => match decode(&raw) {
                Some(packet) => Ok(Some(packet)),
                None if is_other_version(&raw) => Err(ReadError::Version),
                None => Err(ReadError::Malformed),
            },
            PacketBuildResult::Error(MqttError::PacketTooLarge) => {
                Err(ReadError::TooLarge { limit: self.limit })
            }
            PacketBuildResult::Error(_) => Err(ReadError::Malformed),
        }
    }

    /// Writes encoded packets and flushes. If the future is dropped, a packet may be truncated, and
    /// the connection cannot be used any more.
    ///
    /// # Errors
    /// The error of the connection.
    pub async fn write(&mut self, packets: &[u8]) -> io::Result<()> {
        self.stream.write_all(packets).await?;
        self.stream.flush().await
    }

    /// Ends the connection in order. The future may be dropped: the connection is then closed with
    /// its stream.
    pub async fn shutdown(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// Ends the connection of a peer that violated MQTT. The future may be dropped: the connection
    /// is then closed with its stream.
    pub async fn break_off(&mut self)
    where
        S: Transport,
    {
        self.stream.break_off();
        self.shutdown().await;
    }
}

fn size(limit: usize) -> u32 {
    u32::try_from(limit).unwrap_or(u32::MAX)
}

/// Whether this is a CONNECT of another version. It begins with the protocol's name and level,
/// which are `MQTT` and 4 for MQTT 3.1.1.
fn is_other_version(raw: &RawPacket) -> bool {
    let data = raw.data_as_slice();
    let level = data
        .strip_prefix(b"\0\x04MQTT")
        .and_then(|rest| rest.first());
    raw.packet_type() == 1
        && (level.is_some_and(|level| *level != 4) || data.starts_with(b"\0\x06MQIsdp"))
}

fn decode(raw: &RawPacket) -> Option<Packet> {
    // Reserved flag bits must have the specified values, or the packet is malformed.
    let flags = match raw.packet_type() {
        3 => raw.flags(),
        8 | 10 => 2,
        _ => 0,
    };
    if raw.flags() != flags {
        return None;
    }
    if !rules::are_kept(raw.packet_type(), raw.data_as_slice()) {
        return None;
    }
    let empty = |packet: Packet| raw.data_as_slice().is_empty().then_some(packet);
    match raw.packet_type() {
        1 => raw
            .parse_exact(packet::Connect::parse)
            .ok()
            .map(Packet::Connect),
        2 => raw
            .parse_exact(packet::Connack::parse)
            .ok()
            .map(Packet::Connack),
        3 => packet::Publish::parse(raw.flags(), raw.data_as_slice().into())
            .ok()
            .map(|(publish, _)| Packet::Publish(publish)),
        4 => raw
            .parse_exact(packet::Puback::parse)
            .ok()
            .map(Packet::Puback),
        8 => raw
            .parse_exact(packet::Subscribe::parse)
            .ok()
            .map(Packet::Subscribe),
        9 => raw
            .parse_exact(packet::Suback::parse)
            .ok()
            .map(Packet::Suback),
        10 => raw
            .parse_exact(packet::Unsubscribe::parse)
            .ok()
            .map(Packet::Unsubscribe),
        11 => raw
            .parse_exact(packet::Unsuback::parse)
            .ok()
            .map(Packet::Unsuback),
        12 => empty(Packet::Pingreq),
        13 => empty(Packet::Pingresp),
        14 => empty(Packet::Disconnect),
        _ => None,
    }
}

/// An encoded QoS 0 PUBLISH with an empty payload, as in the stream handshake.
///
/// # Errors
/// [`MqttError`] when the topic cannot be sent.
pub fn publish(topic: &str) -> Result<Vec<u8>, MqttError> {
    publish_with(topic, &[])
}

/// An encoded QoS 1 PUBLISH with this payload and packet id, which is not 0; `is_repeated` when it
/// was sent before.
///
/// # Errors
/// [`MqttError`] when the topic cannot be sent, or the payload is too large for MQTT.
pub fn publish_at_least_once(
    topic: &str,
    payload: &[u8],
    packet_id: u16,
    is_repeated: bool,
) -> Result<Vec<u8>, MqttError> {
    Ok(packet::Publish::builder()
        .topic_name(topic)?
        .qos(Qos::AtLeastOnce)
        .packet_id(packet_id)
        .dup(is_repeated)
        .payload(payload)
        .build()?
        .to_continuous_buffer())
}

/// An encoded QoS 0 PUBLISH with this payload.
///
/// # Errors
/// [`MqttError`] when the topic cannot be sent, or the payload is too large for MQTT.
pub fn publish_with(topic: &str, payload: &[u8]) -> Result<Vec<u8>, MqttError> {
    Ok(packet::Publish::builder()
        .topic_name(topic)?
        .qos(Qos::AtMostOnce)
        .payload(payload)
        .build()?
        .to_continuous_buffer())
}
