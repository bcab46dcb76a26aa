//! A peer that sends without a pause to a local socket that always takes it: each poll of the task
//! uses up its budget (tokio's coop).

use std::pin::pin;

use tokio::io::ReadBuf;
use tokio::task::coop;

use super::*;

/// A server's Close 1000.
const CLOSE: [u8; 4] = [0x88, 2, 0x03, 0xE8];
/// The header of a server's binary message of 1000 bytes.
const HEAD: [u8; 4] = [0x82, 126, 0x03, 0xE8];

/// Consumes budget, as each read and write of a socket does.
fn spend(cx: &mut Context<'_>) -> Poll<()> {
    pin!(coop::consume_budget()).poll(cx)
}

/// A peer that sends without a pause until it receives something.
#[derive(Default)]
struct Flood {
    left: Vec<u8>,
    is_answered: bool,
}

impl AsyncRead for Flood {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(spend(cx));
        if self.left.is_empty() {
            self.left = if self.is_answered {
                CLOSE.to_vec()
            } else {
                [&HEAD[..], &[0; 1000]].concat()
            };
        }
        let count = self.left.len().min(buffer.remaining());
        buffer.put_slice(&self.left[..count]);
        self.left.drain(..count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Flood {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(spend(cx));
        self.is_answered = true;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A local socket that has three bytes to send, and takes everything.
struct Eager {
    bytes: &'static [u8],
    is_shut: bool,
}

impl LocalSocket for Eager {}

impl ConnectionSocket for Eager {}

impl AsyncRead for Eager {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(spend(cx));
        match std::mem::take(&mut self.bytes) {
            b"" if self.is_shut => Poll::Ready(Ok(())),
            b"" => Poll::Pending,
            bytes => {
                buffer.put_slice(bytes);
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncWrite for Eager {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(spend(cx));
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_shut = true;
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_flood_does_not_delay_the_opposite_direction() {
    let stream = WebSocket::client(Flood::default(), &[]);
    let pumping = tokio::spawn(async move {
        let stop = CancellationToken::new();
        let local = Eager {
            bytes: b"^C\n",
            is_shut: false,
        };
        pump(local, stream, &Traffic::default(), stopped(&stop)).await
    });
    let outcome = timeout(Duration::from_secs(10), pumping)
        .await
        .expect("nothing was sent")
        .unwrap();
    assert!(matches!(outcome.end, End::PeerClosed), "{:?}", outcome.end);
    assert_eq!(outcome.sent, 3);
}
