//! Legs that always have more to read and always take what is written, as on a network that is
//! faster than the hub: each turn of the task ends with its budget (tokio's coop) used up.

use std::pin::{Pin, pin};

use tokio::io::ReadBuf;
use tokio::task::coop;

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Wake, ready};

use super::super::both::{Relay, TURN};
use super::super::finish::finish;
use super::*;

/// A client's Close 1000, with a mask of zeros.
const CLOSE: [u8; 8] = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xE8];

/// A client's binary message of so many bytes, more than 125, with a mask of zeros.
fn message(size: u16) -> Vec<u8> {
    let [high, low] = size.to_be_bytes();
    let head = [0x82, 0xFE, high, low, 0, 0, 0, 0];
    [&head[..], &vec![0; size.into()]].concat()
}

/// The hub's end of a leg, whose client sends without an end, or nothing but a Close.
struct EagerLeg {
    /// What is read next; then the next message.
    left: Vec<u8>,
    is_flood: bool,
    /// Bytes of a message.
    size: u16,
    /// Our Close has come.
    is_closed: bool,
}

impl EagerLeg {
    fn flood() -> Self {
        Self {
            left: Vec::new(),
            is_flood: true,
            size: 1000,
            is_closed: false,
        }
    }

    fn close() -> Self {
        Self {
            left: CLOSE.to_vec(),
            is_flood: false,
            size: 0,
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
                self.left = message(self.size);
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

/// Counts how often a task wants to be polled again.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

#[tokio::test]
async fn a_flood_of_large_messages_lets_others_run_as_well() {
    let large = || EagerLeg {
        size: 60_000,
        ..EagerLeg::flood()
    };
    let meters = Meters::default();
    let meter = meters.open();
    let legs = [large(), large()].map(|leg| WebSocket::server(leg, &[]));
    let [first, second] = legs;
    let mut relay = Relay::new(Leg::Service, first, None, second, &meter, None);
    let wakes = Arc::new(Wakes::default());
    let waker = Arc::clone(&wakes).into();
    let mut cx = Context::from_waker(&waker);
    let mut before = 0;
    for turn in 1..=10 {
        assert!(relay.poll(&mut cx).is_pending());
        assert!(wakes.0.load(Relaxed) >= turn, "it waits for nothing");
        let (_, relayed) = meters.now();
        let moved = relayed.to_device + relayed.to_service;
        let most = 2 * (TURN as u64 + 120_000);
        assert!((1..=most).contains(&(moved - before)), "{moved}");
        before = moved;
        // A new budget, as each turn of a task has one.
        tokio::task::yield_now().await;
    }
}
