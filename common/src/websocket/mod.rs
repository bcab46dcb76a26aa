//! A WebSocket as our programs see one: non-empty data messages in and out, pings
//! kept to itself, and an end that says how it came. The library is named in this
//! folder only.
//!
//! Everything here is poll-based and cancel-safe: a message is either taken or still
//! there, so that one task can drive two sockets.

mod bytes;
mod connect;
mod upgrade;

pub use bytes::WebSocketBytes;
pub use connect::{ConnectError, Endpoint, connect, connect_over};
pub use upgrade::{offered_subprotocol, upgrade_answer};

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::bytes::Bytes;
use futures_util::{Sink as _, Stream as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Duration, Instant, Sleep};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message, Utf8Bytes};

use crate::keepalive::{Action, Keepalive};
use crate::limits;

/// The type of a data message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Opcode 2.
    Binary,
    /// Opcode 1: valid UTF-8.
    Text,
}

/// One data message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data {
    kind: Kind,
    bytes: Bytes,
}

impl Data {
    /// A binary message.
    pub fn binary(bytes: Bytes) -> Self {
        Self {
            kind: Kind::Binary,
            bytes,
        }
    }

    /// A text message.
    pub fn text(text: String) -> Self {
        Self {
            kind: Kind::Text,
            bytes: Bytes::from(text),
        }
    }

    /// Binary or text.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Payload length in bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether the payload is empty.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Takes at most `limit` bytes (at least 4) off the front: a message of the same
    /// type, without a copy. Text is cut between characters.
    pub fn split_to(&mut self, limit: usize) -> Self {
        let mut at = limit.min(self.bytes.len());
        if self.kind == Kind::Text {
            // Continuation bytes look like 10xxxxxx.
            while at > 0 && self.bytes.get(at).is_some_and(|byte| byte & 0xC0 == 0x80) {
                at -= 1;
            }
        }
        Self {
            kind: self.kind,
            bytes: self.bytes.split_to(at),
        }
    }

    /// The payload, whatever the type.
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    fn into_message(self) -> Result<Message, WebSocketError> {
        Ok(match self.kind {
            Kind::Binary => Message::Binary(self.bytes),
            Kind::Text => Message::Text(
                Utf8Bytes::try_from(self.bytes)
                    .map_err(|_| WebSocketError::Protocol("text that is not UTF-8".into()))?,
            ),
        })
    }
}

/// How the peer said goodbye.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Goodbye {
    /// The close code; 1005 when the peer gave none.
    pub code: u16,
    /// The peer's reason, cleaned for logs.
    pub reason: String,
}

impl Goodbye {
    /// Close code of a normal end.
    pub const NORMAL: u16 = 1000;
    /// Close code of a peer that goes away.
    pub const AWAY: u16 = 1001;
    /// Close code for a peer that broke the protocol.
    pub const PROTOCOL: u16 = 1002;
    /// Close code for a peer that sent too large a message.
    pub const TOO_LARGE: u16 = 1009;
    /// Close code of an end that is not normal.
    pub const ERROR: u16 = 1011;

    /// Whether everything was said that was to be said.
    pub fn is_normal(&self) -> bool {
        self.code == Self::NORMAL
    }
}

/// What comes from the peer.
#[derive(Debug)]
pub enum Incoming {
    /// A non-empty data message.
    Data(Data),
    /// The peer closed in due form; nothing more will come.
    Closed(Goodbye),
}

/// How a WebSocket was lost.
#[derive(Debug, thiserror::Error)]
pub enum WebSocketError {
    /// TCP or TLS ended without a goodbye.
    #[error("the connection was lost")]
    Lost(#[source] io::Error),
    /// The peer did not answer a ping.
    #[error("the peer does not answer")]
    Dead,
    /// A message is larger than allowed.
    #[error("the peer sent a message larger than {limit} bytes")]
    TooLarge {
        /// The largest that is accepted.
        limit: usize,
    },
    /// The peer broke the protocol.
    #[error("the peer broke the WebSocket protocol: {0}")]
    Protocol(String),
}

impl From<tungstenite::Error> for WebSocketError {
    fn from(error: tungstenite::Error) -> Self {
        use tungstenite::Error as E;
        match error {
            E::Io(error) => Self::Lost(crate::dial::plain(error)),
            E::ConnectionClosed | E::AlreadyClosed => {
                Self::Lost(io::ErrorKind::NotConnected.into())
            }
            E::Capacity(tungstenite::error::CapacityError::MessageTooLong { max_size, .. }) => {
                Self::TooLarge { limit: max_size }
            }
            // Its name is misleading: the connection ended in due form, but without a Close.
            E::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => {
                Self::Lost(crate::dial::plain(io::ErrorKind::UnexpectedEof.into()))
            }
            // The remaining variants describe the peer's bytes, never show them.
            E::Protocol(error) => Self::Protocol(error.to_string()),
            other => Self::Protocol(other.to_string()),
        }
    }
}

/// A WebSocket of the streaming endpoint, either end.
pub struct WebSocket<S> {
    inner: WebSocketStream<S>,
    keepalive: Keepalive,
    timer: Pin<Box<Sleep>>,
    closing: bool,
}

fn config(message: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(limits::WEBSOCKET_READ_BUFFER)
        .write_buffer_size(limits::WEBSOCKET_WRITE_BUFFER)
        // One batch, and one message that tips it over.
        .max_write_buffer_size(2 * limits::WEBSOCKET_WRITE_BUFFER + limits::STREAM_MESSAGE)
        .max_message_size(Some(message))
        .max_frame_size(Some(message))
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// The server's end of an upgraded connection; `read` is what came behind the
    /// upgrade request.
    pub async fn server(stream: S, read: Vec<u8>) -> Self {
        let config = config(limits::STREAM_MESSAGE_ACCEPTED);
        let inner =
            WebSocketStream::from_partially_read(stream, read, Role::Server, Some(config)).await;
        Self::new(inner)
    }

    /// The client's end of a connection that is upgraded already.
    pub async fn client(stream: S) -> Self {
        let config = config(limits::STREAM_MESSAGE_ACCEPTED);
        Self::new(WebSocketStream::from_raw_socket(stream, Role::Client, Some(config)).await)
    }

    fn new(inner: WebSocketStream<S>) -> Self {
        let now = Instant::now();
        Self {
            inner,
            keepalive: Keepalive::new(limits::LEG_PING, limits::LEG_PONG, now),
            timer: Box::pin(tokio::time::sleep(limits::LEG_PING)),
            closing: false,
        }
    }

    /// What it runs over.
    pub fn get_ref(&self) -> &S {
        self.inner.get_ref()
    }

    /// The next non-empty data message, or the peer's goodbye. Pings are answered and
    /// sent on the way, and a dead peer is noticed here.
    pub fn poll_incoming(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Incoming, WebSocketError>> {
        loop {
            match Pin::new(&mut self.inner).poll_next(cx) {
                Poll::Ready(Some(Ok(message))) => {
                    if let Some(incoming) = self.sort(message) {
                        return Poll::Ready(Ok(incoming));
                    }
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error.into())),
                Poll::Ready(None) => {
                    return Poll::Ready(Err(WebSocketError::Lost(
                        io::ErrorKind::UnexpectedEof.into(),
                    )));
                }
                Poll::Pending => return self.poll_keepalive(cx),
            }
        }
    }

    fn sort(&mut self, message: Message) -> Option<Incoming> {
        let now = Instant::now();
        match message {
            Message::Binary(bytes) => {
                self.keepalive.heard(now);
                // SDKs send endless empty messages; they mean nothing.
                (!bytes.is_empty()).then(|| Incoming::Data(Data::binary(bytes)))
            }
            Message::Text(text) => {
                self.keepalive.heard(now);
                (!text.is_empty()).then(|| {
                    Incoming::Data(Data {
                        kind: Kind::Text,
                        bytes: text.into(),
                    })
                })
            }
            Message::Pong(_) => {
                self.keepalive.ponged(now);
                None
            }
            Message::Ping(_) | Message::Frame(_) => {
                self.keepalive.heard(now);
                None
            }
            Message::Close(frame) => Some(Incoming::Closed(match frame {
                None => Goodbye {
                    code: 1005,
                    reason: String::new(),
                },
                Some(frame) => Goodbye {
                    code: frame.code.into(),
                    reason: frame.reason.chars().filter(|c| !c.is_control()).collect(),
                },
            })),
        }
    }

    /// Sends a ping when one is due; ready only with the news of the peer's death.
    /// A socket that waits for its reader, not for its peer, polls this instead of
    /// [`poll_incoming`](Self::poll_incoming).
    fn poll_keepalive<T>(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, WebSocketError>> {
        loop {
            match self.keepalive.action(Instant::now()) {
                Action::Dead => return Poll::Ready(Err(WebSocketError::Dead)),
                Action::Ping => {
                    // A ping that cannot be queued now is not urgent: the socket is full of data.
                    if self.closing {
                        return Poll::Pending;
                    }
                    match Pin::new(&mut self.inner).poll_ready(cx) {
                        Poll::Ready(Ok(())) => {
                            Pin::new(&mut self.inner).start_send(Message::Ping(Bytes::new()))?;
                            self.keepalive.pinged(Instant::now());
                            if let Poll::Ready(result) = Pin::new(&mut self.inner).poll_flush(cx) {
                                result?;
                            }
                        }
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                        Poll::Pending => return Poll::Pending,
                    }
                }
                Action::Wait(until) => {
                    if self.timer.deadline() != until {
                        self.timer.as_mut().reset(until);
                    }
                    ready!(self.timer.as_mut().poll(cx));
                }
            }
        }
    }

    /// Ready when the next message may be given to [`start_send`](Self::start_send);
    /// pending while what was given before still waits for the network.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WebSocketError>> {
        Pin::new(&mut self.inner).poll_ready(cx).map_err(Into::into)
    }

    /// Takes a message of at most [`limits::STREAM_MESSAGE`] bytes, after
    /// [`poll_ready`](Self::poll_ready) said so.
    ///
    /// # Errors
    /// [`WebSocketError`] when the connection is lost or closing.
    pub fn start_send(&mut self, data: Data) -> Result<(), WebSocketError> {
        self.keepalive.sent(data.len());
        let message = data.into_message()?;
        Ok(Pin::new(&mut self.inner).start_send(message)?)
    }

    /// Writes what was taken to the network.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WebSocketError>> {
        Pin::new(&mut self.inner).poll_flush(cx).map_err(Into::into)
    }

    /// Queues a goodbye; flush it. Nothing may be sent after it, data may still come.
    ///
    /// # Errors
    /// [`WebSocketError`] when the connection is lost or already closing.
    pub fn start_close(&mut self, code: u16, reason: &'static str) -> Result<(), WebSocketError> {
        self.closing = true;
        let frame = CloseFrame {
            code: CloseCode::from(code),
            reason: Utf8Bytes::from_static(reason),
        };
        Ok(Pin::new(&mut self.inner).start_send(Message::Close(Some(frame)))?)
    }

    /// Says goodbye, reads and drops what still comes until the peer has said so too,
    /// and gives all of it `patience`. The socket is then done.
    pub async fn close(mut self, code: u16, reason: &'static str, patience: Duration) {
        let goodbye = async {
            let _ = std::future::poll_fn(|cx| self.poll_ready(cx)).await;
            let _ = self.start_close(code, reason);
            std::future::poll_fn(|cx| self.poll_flush(cx)).await?;
            while let Incoming::Data(_) = std::future::poll_fn(|cx| self.poll_incoming(cx)).await? {
            }
            std::future::poll_fn(|cx| self.poll_flush(cx)).await
        };
        let _ = tokio::time::timeout(patience, goodbye).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_messages_are_cut_in_pieces_of_the_same_type() {
        let mut binary = Data::binary(Bytes::from(vec![7u8; 10]));
        assert_eq!(binary.split_to(4).len(), 4);
        assert_eq!(binary.len(), 6);
        let mut text = Data::text("aäöü".into());
        assert_eq!(text.split_to(4), Data::text("aä".into()));
        assert_eq!(text.split_to(100), Data::text("öü".into()));
        assert!(text.is_empty());
    }
}
