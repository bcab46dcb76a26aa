//! Legs that always have more to read and always take what is written, as on a network that is
//! faster than the hub: each turn of the task ends with its budget (tokio's coop) used up.

use std::pin::{Pin, pin};

use tokio::io::ReadBuf;
use tokio::task::coop;

use std::io;
use std::task::{Context, Poll, ready};

use super::super::finish::finish;
use super::*;

/// A client's Close 1000, with a mask of zeros.
const CLOSE: [u8; 8] = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xE8];
/// A client's binary message of 1000 bytes, with a mask of zeros.
const HEAD: [u8; 8] = [0x82, 0xFE, 0x03, 0xE8, 0, 0, 0, 0];

/// The hub's end of a leg, whose client sends without an end, or nothing but a Close.
struct EagerLeg {
    /// What is read next; then the next message.
    left: Vec<u8>,
    is_flood: bool,
    /// Our Close has come.
    is_closed: bool,
}

impl EagerLeg {
    fn flood() -> Self {
        Self {
            left: Vec::new(),
            is_flood: true,
            is_closed: false,
        }
    }

    fn close() -> Self {
        Self {
            left: CLOSE.to_vec(),
            is_flood: false,
            is_closed: false,
        }
    }
}

/// As each read and write of a socket does.
fn spend(cx: &mut Context<'_>) -> Poll<()> {
    pin!(coop::consume_budget()).poll(cx)
}

impl AsyncRead for EagerLeg {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(spend(cx));
        if self.left.is_empty() {
            if std::mem::take(&mut self.is_closed) {
                self.left = CLOSE.to_vec();
                self.is_flood = false;
            } else if self.is_flood {
                self.left = [&HEAD[..], &[0; 1000]].concat();
            } else {
                return Poll::Pending;
            }
        }
        let count = self.left.len().min(buffer.remaining());
        buffer.put_slice(&self.left[..count]);
        self.left.drain(..count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for EagerLeg {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(spend(cx));
        self.is_closed |= bytes.first() == Some(&0x88);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Backlog for EagerLeg {
    fn backlog(&self) -> usize {
        0
    }
}

async fn end(first: EagerLeg, second: EagerLeg) -> RelayEnd {
    let first = WebSocket::server(first, &[]);
    let second = WebSocket::server(second, &[]);
    let cancel = CancellationToken::new();
    let relaying = tokio::spawn(async move {
        relay(Leg::Service, first, None, second, &meter(), None, &cancel).await
    });
    timeout(Duration::from_secs(10), relaying)
        .await
        .expect("the relay goes on")
        .unwrap()
        .end
}

#[tokio::test]
async fn a_flood_from_the_service_does_not_hide_the_device_s_close() {
    let end = end(EagerLeg::flood(), EagerLeg::close()).await;
    assert!(matches!(end, RelayEnd::Closed(Leg::Device)), "{end}");
}

#[tokio::test]
async fn a_flood_from_the_device_does_not_hide_the_service_s_close() {
    let end = end(EagerLeg::close(), EagerLeg::flood()).await;
    assert!(matches!(end, RelayEnd::Closed(Leg::Service)), "{end}");
}

#[tokio::test]
async fn a_leg_that_floods_is_asked_to_stop() {
    let leg = WebSocket::server(EagerLeg::flood(), &[]);
    timeout(Duration::from_secs(10), finish(leg, true))
        .await
        .expect("it is read without an end")
        .unwrap();
}
