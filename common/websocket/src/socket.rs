//! The WebSocket of a leg: data messages, and a keepalive that detects a dead peer.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Duration, Instant, Sleep, sleep, timeout};

use crate::decoder::Event;
use crate::error::WebSocketError;
use crate::frames::{Appetite, Frames};
use crate::keepalive::{Action, Keepalive, Pace};
use crate::limits;
use crate::message::{Data, Incoming};
use crate::role::Role;

/// A WebSocket of the streaming endpoint, either end.
pub struct WebSocket<S>(Box<Socket<S>>);

/// Boxed: it has some 1.5 KiB with its TLS, and every future through which it is moved would
/// reserve that.
struct Socket<S> {
    frames: Frames<S>,
    keepalive: Keepalive,
    /// When to see whether the connection is idle, if it holds large buffers.
    rests_at: Option<std::time::Instant>,
    /// Expires when it is time for the keepalive or for `rests_at`, or earlier.
    timer: Pin<Box<Sleep>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// The server's end of an upgraded connection; `read` are the bytes that followed the upgrade
    /// request.
    pub fn server(stream: S, read: &[u8]) -> Self {
        Self::new(stream, Role::Server, read)
    }

    /// The client's end of an upgraded connection; `read` are the bytes that followed the answer.
    pub fn client(stream: S, read: &[u8]) -> Self {
        Self::new(stream, Role::Client, read)
    }

    fn new(stream: S, role: Role, read: &[u8]) -> Self {
        let pace = pace(role);
        let mut frames = Frames::new(stream, role, limits::STREAM_MESSAGE_ACCEPTED, read);
        frames.keep_buffers();
        Self(Box::new(Socket {
            frames,
            keepalive: Keepalive::new(pace, now()),
            rests_at: None,
            timer: Box::pin(sleep(pace.interval)),
        }))
    }

    /// The stream below.
    pub fn get_ref(&self) -> &S {
        self.0.frames.get_ref()
    }

    /// The same. Who reads or writes it breaks the WebSocket.
    pub fn get_mut(&mut self) -> &mut S {
        self.0.frames.get_mut()
    }

    /// The next data message that is not empty, or the peer's Close. A message above
    /// [`limits::STREAM_MESSAGE`] is returned in pieces of that size. This also answers and sends
    /// pings, and detects a dead peer.
    pub fn poll_incoming(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Incoming, WebSocketError>> {
        self.poll_incoming_of(Appetite::All, cx)
    }

    /// The same for a caller that cannot forward much now: only messages that are small or in the
    /// buffer already, and an end that no large message precedes. Larger messages do not wake the
    /// task.
    pub fn poll_incoming_little(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Incoming, WebSocketError>> {
        self.poll_incoming_of(Appetite::Little, cx)
    }

    fn poll_incoming_of(
        &mut self,
        appetite: Appetite,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Incoming, WebSocketError>> {
        loop {
            let Poll::Ready(event) = self.0.frames.poll_event_of(appetite, cx)? else {
                if appetite == Appetite::Little && self.0.frames.is_full() {
                    // A peer that we do not read is not silent.
                    return Poll::Pending;
                }
                return self.poll_keepalive(cx);
            };
            let received = now();
            match event {
                Event::Data(data) => {
                    self.0.keepalive.received(received);
                    return Poll::Ready(Ok(Incoming::Data(data)));
                }
                // SDKs send any number of empty messages, which have no meaning.
                Event::Nothing | Event::Ping(_) => self.0.keepalive.received(received),
                Event::Pong => self.0.keepalive.ponged(received),
                Event::Close(close_frame) => return Poll::Ready(Ok(Incoming::Closed(close_frame))),
            }
        }
    }

    /// Sends a ping when one is due; ready only with an error.
    fn poll_keepalive<T>(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, WebSocketError>> {
        loop {
            match self.0.keepalive.action(now()) {
                Action::Dead => return Poll::Ready(Err(WebSocketError::Dead)),
                Action::Ping => {
                    if self.0.frames.is_closing() {
                        return Poll::Pending;
                    }
                    // If there is no room for a ping, the socket is full of data: it can wait.
                    ready!(self.0.frames.poll_ready(cx))?;
                    self.0.frames.shrink();
                    self.0.frames.send_ping();
                    self.0.keepalive.pinged(now());
                    if let Poll::Ready(result) = self.0.frames.poll_flush(cx) {
                        result?;
                    }
                }
                Action::Wait(until) => {
                    let until = self.rest().map_or(until, |at| at.min(until));
                    let timer = &mut self.0.timer;
                    let (until, set) = (Instant::from_std(until), timer.deadline());
                    // A timer that expires somewhat early is set again then.
                    if until < set || until > set + limits::PING_TIMER || timer.is_elapsed() {
                        timer.as_mut().reset(until);
                    }
                    ready!(timer.as_mut().poll(cx));
                }
            }
        }
    }

    /// Frees the buffers of a connection that has become idle; returns when to call again.
    fn rest(&mut self) -> Option<std::time::Instant> {
        let Socket {
            frames, rests_at, ..
        } = &mut *self.0;
        if rests_at.is_some_and(|at| at <= now()) {
            frames.rest();
            *rests_at = None;
        }
        if rests_at.is_none() && frames.is_bulk() {
            *rests_at = Some(now() + limits::IDLE);
        }
        *rests_at
    }

    /// Reuses the memory of at most so many messages, 64 KiB each, once they are dropped: for an
    /// owner that keeps several at a time. It is freed when the connection is idle.
    pub fn reuse_buffers(&mut self, most: usize) {
        self.0.frames.reuse_buffers(most);
    }

    /// Ready when [`start_send`](Self::start_send) may be called; pending while earlier messages
    /// still wait for the network.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WebSocketError>> {
        self.0.frames.poll_ready(cx)
    }

    /// Queues a message of at most [`limits::STREAM_MESSAGE`] bytes, after
    /// [`poll_ready`](Self::poll_ready) was ready.
    ///
    /// # Errors
    /// [`WebSocketError`] when the connection is lost or closing.
    pub fn start_send(&mut self, data: Data) -> Result<(), WebSocketError> {
        self.0.keepalive.sent(data.len());
        self.0.frames.send(data)
    }

    /// Writes queued messages to the network.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WebSocketError>> {
        self.0.frames.poll_flush(cx)
    }

    /// Queues a Close; flush it. Nothing may be sent after it, but data may still arrive.
    ///
    /// # Errors
    /// [`WebSocketError`] when the connection is lost or already closing.
    pub fn start_close(&mut self, code: u16, reason: &str) -> Result<(), WebSocketError> {
        self.0.frames.send_close(code, reason)
    }

    /// Answers the peer's Close with this code instead of its own, unless the answer was written
    /// already; flush it.
    pub fn answer_close(&mut self, code: u16, reason: &'static str) {
        self.0.frames.answer_close(code, reason);
    }

    /// Bytes that are queued and not yet given to the system.
    pub fn queued(&self) -> usize {
        self.0.frames.queued()
    }

    /// Sends a Close, and drops received data until the peer has sent one too, for `patience` at
    /// most. Dropping the future cuts the connection.
    pub async fn close(mut self, code: u16, reason: &'static str, patience: Duration) {
        let close_frame = async {
            let _ = poll_fn(|cx| self.poll_ready(cx)).await;
            let _ = self.start_close(code, reason);
            poll_fn(|cx| self.poll_flush(cx)).await?;
            while let Incoming::Data(_) = poll_fn(|cx| self.poll_incoming(cx)).await? {}
            poll_fn(|cx| self.poll_flush(cx)).await
        };
        let _ = timeout(patience, close_frame).await;
    }
}

/// Of all WebSockets of this process.
fn pace(role: Role) -> Pace {
    static ORIGIN: LazyLock<std::time::Instant> = LazyLock::new(now);
    let (interval, patience) = match role {
        Role::Client => (limits::PING, limits::PONG),
        Role::Server => (limits::SERVER_PING, limits::SERVER_PONG),
    };
    Pace {
        interval,
        patience,
        tick: limits::PING_TICK,
        origin: *ORIGIN,
    }
}

/// Now, by tokio's clock, which tests can pause.
fn now() -> std::time::Instant {
    Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_has_become_idle_frees_its_buffers() {
        let (near, far) = duplex(1 << 20);
        let mut near = WebSocket::client(near, &[]);
        let mut far = WebSocket::server(far, &[]);
        let sent = Data::binary(vec![7; limits::STREAM_MESSAGE].into());
        near.start_send(sent.clone()).unwrap();
        poll_fn(|cx| near.poll_flush(cx)).await.unwrap();
        let received = poll_fn(|cx| far.poll_incoming(cx)).await.unwrap();
        assert!(matches!(received, Incoming::Data(data) if data == sent));
        assert!(near.0.frames.is_bulk() && far.0.frames.is_bulk());
        let silence = poll_fn(|cx| {
            assert!(near.poll_incoming(cx).is_pending() && far.poll_incoming(cx).is_pending());
            Poll::<()>::Pending
        });
        assert!(timeout(3 * limits::IDLE, silence).await.is_err());
        assert!(!near.0.frames.is_bulk() && !far.0.frames.is_bulk());
    }
}
