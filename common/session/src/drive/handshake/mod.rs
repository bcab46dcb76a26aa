//! The handshake on a carrier, with deadlines: the device sends a greeting, and the service begins
//! a session or resumes one (`docs/session-protocol.md`, "Handshake"). Without a greeting, the
//! service sends nothing. Here is what both sides share; each has a file of its own.

mod device;
mod service;

pub use device::{ResumeRequest, SessionRequest};

use std::future::poll_fn;

use bytes::{Bytes, BytesMut};
use device_stream_websocket::{CloseFrame, Data, Incoming, WebSocket, WebSocketError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Duration, timeout};

use crate::limits;
use crate::proto::frame::{Code, Decoder, Frame, HEADER};
use crate::proto::proof::VERSION;

/// Why the handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The peer sent nothing in time.
    #[error("the other end said nothing within {} s", .0.as_secs_f32())]
    Silent(Duration),
    /// The peer does not speak session mode; its first bytes.
    #[error("the other end does not speak session mode: it sent {0}")]
    Malformed(String),
    /// The peer sent a frame that is not expected now.
    #[error("the other end does not speak session mode: it sent a frame out of turn")]
    OutOfTurn,
    /// The peer supports other versions.
    #[error("the other end speaks versions {lowest} to {highest} of session mode, not {VERSION}")]
    Version {
        /// Its lowest.
        lowest: u8,
        /// Its highest.
        highest: u8,
    },
    /// The peer refuses.
    #[error("the other end refuses: {code}{}", if .text.is_empty() { String::new() } else { format!(" ({text})") })]
    Refused {
        /// Why.
        code: Code,
        /// Its text; may be empty.
        text: String,
    },
    /// The peer does not know the session's secret.
    #[error("the other end could not prove that the session is its own")]
    Proof,
    /// The stream was closed.
    #[error("the stream was closed with code {}", .0.code)]
    Closed(CloseFrame),
    /// The stream was lost.
    #[error(transparent)]
    Lost(#[from] WebSocketError),
}

/// The handshake on one carrier. When one of its futures is dropped before its end, the carrier
/// cannot be used any more.
pub struct Exchange<S> {
    stream: WebSocket<S>,
    unread: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Exchange<S> {
    /// On a fresh carrier.
    pub fn new(stream: WebSocket<S>) -> Self {
        Self {
            stream,
            unread: BytesMut::new(),
        }
    }

    /// The carrier, and the bytes that the peer has sent after the handshake.
    pub fn into_parts(self) -> (WebSocket<S>, Bytes) {
        (self.stream, self.unread.freeze())
    }

    /// Closes the carrier in order. Dropping the future cuts it.
    pub async fn close(self) {
        self.stream
            .close(CloseFrame::NORMAL, "", limits::CLOSE)
            .await;
    }

    async fn send(&mut self, frame: &Frame) -> Result<(), HandshakeError> {
        let limit = limits::RESUME;
        let sending = async {
            poll_fn(|cx| self.stream.poll_ready(cx)).await?;
            self.stream.start_send(Data::binary(frame.encode()))?;
            poll_fn(|cx| self.stream.poll_flush(cx)).await?;
            Ok(())
        };
        timeout(limit, sending)
            .await
            .unwrap_or(Err(HandshakeError::Silent(limit)))
    }

    async fn next(&mut self, limit: Duration) -> Result<Frame, HandshakeError> {
        let receiving = async {
            loop {
                if let Some(frame) = self.unread_frame()? {
                    return Ok(frame);
                }
                match poll_fn(|cx| self.stream.poll_incoming(cx)).await? {
                    Incoming::Data(data) => self.unread.extend_from_slice(&data.into_bytes()),
                    Incoming::Closed(close_frame) => {
                        return Err(HandshakeError::Closed(close_frame));
                    }
                }
            }
        };
        timeout(limit, receiving)
            .await
            .unwrap_or(Err(HandshakeError::Silent(limit)))
    }

    /// Takes a whole frame, if one has arrived; later bytes stay.
    fn unread_frame(&mut self) -> Result<Option<Frame>, HandshakeError> {
        let malformed = |bytes: &[u8]| HandshakeError::Malformed(shown(bytes));
        // Decodes an incomplete frame too, so that malformed input fails at its first bytes.
        let mut rest = Bytes::copy_from_slice(&self.unread);
        let frame = Decoder::default()
            .next(&mut rest)
            .map_err(|_| malformed(&self.unread))?;
        match frame {
            Some(Frame::Data { .. }) => Err(malformed(&self.unread)),
            Some(frame) => {
                self.unread = BytesMut::from(rest);
                Ok(Some(frame))
            }
            None if self.unread.len() > HEADER + 1024 => Err(malformed(&self.unread)),
            None => Ok(None),
        }
    }
}

/// The first bytes that a peer sent, for display.
fn shown(bytes: &[u8]) -> String {
    let start = bytes.get(..bytes.len().min(24)).unwrap_or_default();
    format!("\"{}\"", start.escape_ascii())
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};

    use super::*;
    use crate::proto::boot_id::BootId;
    use crate::proto::proof::{ResumeSecret, SessionId};

    async fn pair() -> (Exchange<DuplexStream>, Exchange<DuplexStream>) {
        // A small pipe finds code that relies on whole reads.
        let (near, far) = duplex(8);
        let (service, device) = (WebSocket::client(near, &[]), WebSocket::server(far, &[]));
        (Exchange::new(service), Exchange::new(device))
    }

    #[tokio::test]
    async fn a_session_begins_and_is_resumed() {
        let (id, secret) = (SessionId::random(), ResumeSecret::random());
        let boot_id = BootId::random();
        let (mut service, mut device) = pair().await;
        let sent_secret = secret.clone();
        let asking = async {
            assert_eq!(
                service.greeting(limits::HANDSHAKE).await.unwrap().boot_id,
                boot_id
            );
            let grace = Duration::from_secs(7);
            service.hello(id, &sent_secret, grace).await.unwrap();
        };
        let (request, ()) = tokio::join!(device.greet(boot_id), asking);
        let SessionRequest::New {
            id: named,
            secret: known,
            grace,
        } = request.unwrap()
        else {
            panic!("not new")
        };
        assert_eq!((named, grace.as_secs()), (id, 7));
        assert_eq!(known, secret);

        let (mut service, mut device) = pair().await;
        let asking = async {
            let greeting = service.greeting(limits::HANDSHAKE).await.unwrap();
            service.resume(&greeting, id, &secret, 11).await
        };
        let answering = async {
            let SessionRequest::Resume(request) = device.greet(boot_id).await.unwrap() else {
                panic!("not a resume")
            };
            assert_eq!(request.received, 11);
            assert!(!request.is_proven(&ResumeSecret::random()));
            assert!(request.is_proven(&known));
            device.resumed(&request, &known, 22).await.unwrap();
        };
        assert_eq!(tokio::join!(asking, answering).0.unwrap(), 22);
    }

    #[tokio::test]
    async fn a_device_that_does_not_know_the_secret_is_rejected() {
        let (id, secret) = (SessionId::random(), ResumeSecret::random());
        let (mut service, mut device) = pair().await;
        let asking = async {
            let greeting = service.greeting(limits::HANDSHAKE).await.unwrap();
            service.resume(&greeting, id, &secret, 0).await
        };
        let answering = async {
            let SessionRequest::Resume(request) = device.greet(BootId::random()).await.unwrap()
            else {
                panic!("not a resume")
            };
            let guess = ResumeSecret::random();
            device.resumed(&request, &guess, 0).await.unwrap();
        };
        let (asked, ()) = tokio::join!(asking, answering);
        assert!(matches!(asked, Err(HandshakeError::Proof)));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_and_malformed_input_are_errors() {
        let (mut service, device) = pair().await;
        let error = service.greeting(limits::HANDSHAKE).await.unwrap_err();
        assert!(matches!(error, HandshakeError::Silent(_)), "{error}");
        drop(device);

        let (mut service, device) = pair().await;
        let (mut stream, _) = device.into_parts();
        let banner = async {
            let banner = Data::binary(Bytes::from_static(b"SSH-2.0-OpenSSH_9.2\r\n"));
            stream.start_send(banner).unwrap();
            poll_fn(|cx| stream.poll_flush(cx)).await.unwrap();
        };
        let (error, ()) = tokio::join!(service.greeting(limits::HANDSHAKE), banner);
        let shown = error.unwrap_err().to_string();
        assert!(shown.contains("SSH-2.0-OpenSSH"), "{shown}");
    }
}
