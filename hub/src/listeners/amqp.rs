//! Clients of AMQP 1.0, which this hub does not speak yet. Their SDKs try a port that is closed,
//! or an upgrade that fails, for four minutes and then report no more than that. They give up at
//! once, and their log says why, when a connection is opened and then closed with
//! `amqp:not-implemented`: so far the protocol is spoken here (OASIS AMQP 1.0, part 2, 2.2 and
//! 2.4; part 5, 5.3).

use std::io;
use std::net::SocketAddr;

use common::permits::Permit;
use fe2o3_amqp_types::definitions::{AmqpError, Error, ErrorCondition};
use fe2o3_amqp_types::performatives::{Close, Open};
use fe2o3_amqp_types::primitives::{Array, Symbol};
use fe2o3_amqp_types::sasl::{SaslCode, SaslMechanisms, SaslOutcome};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::tls::ServerTls;
use crate::admission::{Beyond, Place};
use crate::events::{Connection, Event, Events};
use crate::limits;

/// The WebSocket subprotocol of AMQP, compared without case.
pub const AMQP_SUBPROTOCOL: &str = "AMQPWSB10";

/// What the Close says.
const TEXT: &str = "This hub does not speak AMQP yet: use MQTT or MQTT over WebSockets for devices, and HTTPS for services.";
const SASL: [u8; 8] = *b"AMQP\x03\x01\x00\x00";
const AMQP: [u8; 8] = *b"AMQP\x00\x01\x00\x00";
/// Kinds of frames.
const SASL_FRAME: u8 = 1;
const AMQP_FRAME: u8 = 0;
/// All that IoT Hub's clients may choose from. All are refused: nothing is checked.
const MECHANISMS: [&str; 4] = ["MSSBCBS", "EXTERNAL", "ANONYMOUS", "PLAIN"];
/// Largest frame before an Open is answered (part 2, 2.4.1).
const FRAME: usize = 512;
/// Bytes that a client may send until it is refused: two headers, two frames, and its Close.
pub const READS: usize = 4 << 10;

/// What each connection of the AMQP listener needs.
#[derive(Clone)]
pub struct AmqpListener {
    /// TLS of this listener.
    pub tls: ServerTls,
    /// Where what happens is reported.
    pub events: Events,
    /// The hub's name.
    pub name: String,
    /// Cancelled when requests shall end.
    pub stop: CancellationToken,
}

impl AmqpListener {
    /// Serves one connection to its end.
    ///
    /// Dropped, it closes the connection.
    pub async fn serve(self, socket: TcpStream, peer: SocketAddr, _permit: Permit, place: Place) {
        let stream = tokio::select! {
            stream = self.tls.accept(socket, &place) => stream,
            () = self.stop.cancelled() => None,
        };
        let Some(stream) = stream else { return };
        let hub = (self.name.as_str(), &self.events);
        refuse(stream, hub, peer, "amqp", &place, &self.stop).await;
    }
}

/// Refuses a client of this hub over any byte stream, within a stranger's time.
///
/// Dropped, it closes the connection.
pub async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    (name, events): (&str, &Events),
    peer: SocketAddr,
    transport: &'static str,
    place: &Place,
    stop: &CancellationToken,
) {
    place.allow(READS, Beyond::Fail);
    if place.is_first_amqp() {
        events.emit(Event::AmqpRefused { peer, transport });
    }
    let conversation = async {
        let _ = place.refused().await;
        timeout(place.handshake_time(), converse(&mut stream, name))
            .await
            .unwrap_or_else(|_| Err(too_slow()))
    };
    let result = tokio::select! {
        result = conversation => result,
        () = place.gone() => return,
        () = stop.cancelled() => return,
    };
    if let Err(error) = result {
        let event = Connection::AmqpNotRefused {
            peer,
            transport,
            reason: &error,
        };
        events.emit(Event::Connection(event));
    }
    let _ = timeout(limits::CLOSE, stream.shutdown()).await;
}

fn too_slow() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the client took too long")
}

/// Speaks with a client until it has read that it is refused, and has left. Dropped, it has stopped
/// anywhere.
///
/// # Errors
/// The stream's, and those of a client that does not speak AMQP 1.0.
pub async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    name: &str,
) -> io::Result<()> {
    let mut header = [0; 8];
    stream.read_exact(&mut header).await?;
    if header == SASL {
        let mechanisms = SaslMechanisms {
            sasl_server_mechanisms: Array::from(MECHANISMS.map(Symbol::from).to_vec()),
        };
        let answer = [SASL.to_vec(), frame(SASL_FRAME, &mechanisms)?].concat();
        send(stream, &answer).await?;
        skip_frame(stream).await?;
        let outcome = SaslOutcome {
            code: SaslCode::Ok,
            additional_data: None,
        };
        send(stream, &frame(SASL_FRAME, &outcome)?).await?;
        stream.read_exact(&mut header).await?;
    }
    if header != AMQP {
        // What would be understood (part 2, 2.2).
        send(stream, &AMQP).await?;
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the client does not speak AMQP 1.0",
        ));
    }
    send(stream, &AMQP).await?;
    skip_frame(stream).await?;
    let error = Error::new(
        ErrorCondition::AmqpError(AmqpError::NotImplemented),
        Some(TEXT.to_owned()),
        None,
    );
    let refusal = [
        frame(AMQP_FRAME, &open(name))?,
        frame(AMQP_FRAME, &Close::new(Some(error)))?,
    ];
    send(stream, &refusal.concat()).await?;
    // To the client's end: a connection that is closed with bytes unread loses what was sent.
    let mut rest = [0; 256];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

fn open(name: &str) -> Open {
    Open {
        container_id: name.to_owned(),
        hostname: None,
        max_frame_size: Default::default(),
        channel_max: Default::default(),
        idle_time_out: None,
        outgoing_locales: None,
        incoming_locales: None,
        offered_capabilities: None,
        desired_capabilities: None,
        properties: None,
    }
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

/// A frame on channel 0 (part 2, 2.3.1).
fn frame(kind: u8, body: &impl Serialize) -> io::Result<Vec<u8>> {
    let body = serde_amqp::to_vec(body).map_err(io::Error::other)?;
    let size = u32::try_from(body.len() + 8).map_err(io::Error::other)?;
    Ok([&size.to_be_bytes()[..], &[2, kind, 0, 0], &body].concat())
}

/// Reads a frame, whatever is in it.
async fn skip_frame<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<()> {
    let size = stream.read_u32().await?;
    let rest = usize::try_from(size)
        .ok()
        .and_then(|size| size.checked_sub(4));
    let mut left = rest.filter(|rest| *rest <= FRAME).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "a frame of a size that cannot be",
        )
    })?;
    let mut bytes = [0; 64];
    while left > 0 {
        let most = left.min(bytes.len());
        let part = bytes.get_mut(..most).unwrap_or_default();
        left -= stream.read_exact(part).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    async fn header(far: &mut DuplexStream) -> [u8; 8] {
        let mut header = [0; 8];
        far.read_exact(&mut header).await.unwrap();
        header
    }

    /// The kind and body of the next frame.
    async fn read_frame(far: &mut DuplexStream) -> (u8, Vec<u8>) {
        let size = far.read_u32().await.unwrap() as usize;
        let mut rest = vec![0; size - 4];
        far.read_exact(&mut rest).await.unwrap();
        assert_eq!((rest[0], &rest[2..4]), (2, &[0, 0][..]));
        (rest[1], rest.split_off(4))
    }

    async fn is_refused(far: &mut DuplexStream) {
        let hello = frame(AMQP_FRAME, &open("client")).unwrap();
        // In one piece, and in two.
        let (first, second) = hello.split_at(5);
        far.write_all(first).await.unwrap();
        tokio::task::yield_now().await;
        far.write_all(second).await.unwrap();
        let (kind, body) = read_frame(far).await;
        let opened: Open = serde_amqp::from_slice(&body).unwrap();
        assert_eq!((kind, opened.container_id.as_str()), (AMQP_FRAME, "hub"));
        let (kind, body) = read_frame(far).await;
        let closed: Close = serde_amqp::from_slice(&body).unwrap();
        let error = closed.error.unwrap();
        assert_eq!(kind, AMQP_FRAME);
        assert_eq!(
            error.condition,
            ErrorCondition::AmqpError(AmqpError::NotImplemented)
        );
        assert!(error.description.unwrap().contains("MQTT"));
    }

    #[tokio::test]
    async fn a_client_without_sasl_reads_why() {
        let (mut near, mut far) = duplex(4096);
        let client = async {
            far.write_all(&AMQP).await.unwrap();
            assert_eq!(header(&mut far).await, AMQP);
            is_refused(&mut far).await;
            drop(far);
        };
        let (result, ()) = tokio::join!(converse(&mut near, "hub"), client);
        result.unwrap();
    }

    #[tokio::test]
    async fn a_client_with_sasl_reads_why() {
        let (mut near, mut far) = duplex(4096);
        let client = async {
            far.write_all(&SASL).await.unwrap();
            assert_eq!(header(&mut far).await, SASL);
            let (kind, body) = read_frame(&mut far).await;
            let offered: SaslMechanisms = serde_amqp::from_slice(&body).unwrap();
            let offered = offered.sasl_server_mechanisms.0;
            assert_eq!((kind, offered.len()), (SASL_FRAME, MECHANISMS.len()));
            // What it says of itself is not looked at.
            let init = [&[0, 0, 0, 12, 2, 1, 0, 0][..], &[0xff; 4]].concat();
            far.write_all(&init).await.unwrap();
            let (kind, body) = read_frame(&mut far).await;
            let outcome: SaslOutcome = serde_amqp::from_slice(&body).unwrap();
            assert_eq!((kind, outcome.code), (SASL_FRAME, SaslCode::Ok));
            far.write_all(&AMQP).await.unwrap();
            assert_eq!(header(&mut far).await, AMQP);
            is_refused(&mut far).await;
            drop(far);
        };
        let (result, ()) = tokio::join!(converse(&mut near, "hub"), client);
        result.unwrap();
    }

    #[tokio::test]
    async fn what_is_not_amqp_fails() {
        for said in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            b"AMQP\x01\x01\x00\x00",
            b"AMQP\x00\x00\x09\x01",
            b"AMQP\x00\x01\x00\x00\xff\xff\xff\xff",
            b"AMQP\x00\x01\x00\x00\x00\x00\x00\x03",
            b"AMQP\x03\x01\x00\x00\x00\x00\x00\x08\x02\x01\x00\x00AMQP\x03\x01\x00\x00",
            b"AMQP",
        ] {
            let (mut near, mut far) = duplex(4096);
            far.write_all(said).await.unwrap();
            far.shutdown().await.unwrap();
            assert!(converse(&mut near, "hub").await.is_err(), "{said:?}");
        }
    }
}
