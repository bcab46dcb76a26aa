//! Joins two legs: messages of at most 64 KiB go on as they came, larger ones in
//! pieces, one message in hand a direction, so that a slow leg slows the fast one.
//!
//! When one leg ends, what it had sent is delivered first; then the other gets Close,
//! 1000 if the first said 1000, else 1011. Both directions run in one task.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use common::identity::Leg;
use common::limits;
use common::websocket::{Data, Goodbye, Incoming, WebSocket, WebSocketError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// The reason text in a Close after a leg that did not end normally, as the real
/// gateway writes it.
pub const DISCONNECTED: &str = "WS disconnected";

/// How a relay ended.
#[derive(Debug, thiserror::Error)]
pub enum RelayEnd {
    /// A leg closed with 1000.
    #[error("the {0} closed it")]
    Closed(Leg),
    /// A leg closed with another code.
    #[error("the {0} ended it with code {1}")]
    Aborted(Leg, u16),
    /// A leg was lost.
    #[error("the {0}'s leg was lost")]
    Lost(Leg, #[source] WebSocketError),
    /// The hub ended it.
    #[error("the hub ended it")]
    Cancelled,
}

/// The story of one joined stream.
#[derive(Debug)]
pub struct RelayOutcome {
    /// Bytes from the service to the device.
    pub to_device: u64,
    /// Bytes from the device to the service.
    pub to_service: u64,
    /// From the meeting of the legs to the end.
    pub duration: Duration,
    /// How it ended.
    pub end: RelayEnd,
}

/// One direction of a relay.
struct Way {
    from: Leg,
    held: Option<Data>,
    unflushed: bool,
    bytes: u64,
    /// The leg it writes to takes nothing any more. It may have said things before,
    /// which the other direction still delivers.
    broken: Option<WebSocketError>,
}

impl Way {
    fn new(from: Leg, held: Option<Data>) -> Self {
        Self {
            from,
            held,
            unflushed: false,
            bytes: 0,
            broken: None,
        }
    }

    /// Moves messages until a socket makes it wait, or the leg it reads from ends.
    fn poll<A, B>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut WebSocket<A>,
        to: &mut WebSocket<B>,
    ) -> Poll<RelayEnd>
    where
        A: AsyncRead + AsyncWrite + Unpin,
        B: AsyncRead + AsyncWrite + Unpin,
    {
        while self.broken.is_none() {
            if self.held.is_some() {
                if let Err(error) = ready!(self.poll_send(cx, to)) {
                    self.broken = Some(error);
                }
                continue;
            }
            match from.poll_incoming(cx) {
                Poll::Ready(Ok(Incoming::Data(data))) => self.held = Some(data),
                Poll::Ready(Ok(Incoming::Closed(goodbye))) => {
                    return Poll::Ready(if goodbye.is_normal() {
                        RelayEnd::Closed(self.from)
                    } else {
                        RelayEnd::Aborted(self.from, goodbye.code)
                    });
                }
                Poll::Ready(Err(error)) => return Poll::Ready(RelayEnd::Lost(self.from, error)),
                Poll::Pending => {
                    if self.unflushed {
                        match ready!(to.poll_flush(cx)) {
                            Ok(()) => self.unflushed = false,
                            Err(error) => {
                                self.broken = Some(error);
                                continue;
                            }
                        }
                    }
                    return Poll::Pending;
                }
            }
        }
        // What the other leg still sends has nowhere to go.
        self.held = None;
        Poll::Pending
    }

    /// Sends the message in hand.
    fn poll_send<B: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut WebSocket<B>,
    ) -> Poll<Result<(), WebSocketError>> {
        ready!(to.poll_ready(cx))?;
        if let Some(data) = self.held.take() {
            let length = data.len() as u64;
            to.start_send(data)?;
            self.bytes += length;
            self.unflushed = true;
        }
        Poll::Ready(Ok(()))
    }
}

/// Both directions, in one task.
struct Relay<A, B> {
    first: WebSocket<A>,
    second: WebSocket<B>,
    /// From the first leg to the second.
    out: Way,
    /// From the second leg to the first.
    back: Way,
    /// Bytes moved, and when the last of them was: what limits a delivery.
    moved: (u64, Instant),
    timer: Pin<Box<Sleep>>,
}

impl<A, B> Relay<A, B>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<RelayEnd> {
        if let Poll::Ready(end) = self.out.poll(cx, &mut self.first, &mut self.second) {
            return Poll::Ready(end);
        }
        if let Poll::Ready(end) = self.back.poll(cx, &mut self.second, &mut self.first) {
            return Poll::Ready(end);
        }
        if self.out.broken.is_some() && self.back.broken.is_some() {
            return Poll::Ready(self.lost());
        }
        if self.out.broken.is_some() || self.back.broken.is_some() {
            // One leg takes nothing; what it had said is being delivered to the other.
            let bytes = self.out.bytes + self.back.bytes;
            if bytes != self.moved.0 || self.timer.deadline() < self.moved.1 {
                self.moved = (bytes, Instant::now());
                let deadline = self.moved.1 + limits::LEG_DELIVER;
                self.timer.as_mut().reset(deadline);
            }
            ready!(self.timer.as_mut().poll(cx));
            return Poll::Ready(self.lost());
        }
        Poll::Pending
    }

    /// The leg that could not be written to is the one that was lost.
    fn lost(&mut self) -> RelayEnd {
        match (self.out.broken.take(), self.back.broken.take()) {
            (Some(error), _) => RelayEnd::Lost(self.out.from.other(), error),
            (None, Some(error)) => RelayEnd::Lost(self.back.from.other(), error),
            (None, None) => RelayEnd::Cancelled,
        }
    }
}

/// Relays until a leg ends or `cancel` is cancelled, then closes both, which
/// takes at most [`limits::LEG_DELIVER`] and [`limits::LEG_CLOSE`]. `held` is a message of
/// `first` that was read while it waited.
pub async fn relay<A, B>(
    first_leg: Leg,
    first: WebSocket<A>,
    held: Option<Data>,
    second: WebSocket<B>,
    cancel: &CancellationToken,
) -> RelayOutcome
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let started = Instant::now();
    let mut relay = Relay {
        first,
        second,
        out: Way::new(first_leg, held),
        back: Way::new(first_leg.other(), None),
        moved: (u64::MAX, started),
        timer: Box::pin(sleep(limits::LEG_DELIVER)),
    };
    let end = tokio::select! {
        end = poll_fn(|cx| relay.poll(cx)) => end,
        () = cancel.cancelled() => RelayEnd::Cancelled,
    };
    let (to_device, to_service) = match first_leg {
        Leg::Service => (relay.out.bytes, relay.back.bytes),
        Leg::Device => (relay.back.bytes, relay.out.bytes),
    };
    let outcome = RelayOutcome {
        to_device,
        to_service,
        duration: started.elapsed(),
        end,
    };
    let Relay { first, second, .. } = relay;
    match &outcome.end {
        RelayEnd::Cancelled => {
            tokio::join!(abort(first), abort(second));
        }
        RelayEnd::Closed(leg) | RelayEnd::Aborted(leg, _) | RelayEnd::Lost(leg, _) => {
            if *leg == first_leg {
                tokio::join!(answer(first, &outcome.end), finish(second, &outcome.end));
            } else {
                tokio::join!(answer(second, &outcome.end), finish(first, &outcome.end));
            }
        }
    }
    outcome
}

/// Closes the surviving leg: what is in hand goes out before the Close, however slow
/// the leg; one that takes nothing for [`limits::LEG_DELIVER`] is dropped without it.
async fn finish<S: AsyncRead + AsyncWrite + Unpin>(mut leg: WebSocket<S>, end: &RelayEnd) {
    let (code, reason) = if matches!(end, RelayEnd::Closed(_)) {
        (Goodbye::NORMAL, "")
    } else {
        (Goodbye::ERROR, DISCONNECTED)
    };
    let delivered = timeout(limits::LEG_DELIVER, poll_fn(|cx| leg.poll_flush(cx))).await;
    if matches!(delivered, Ok(Ok(()))) {
        leg.close(code, reason, limits::LEG_CLOSE).await;
    }
}

/// The last word to the leg that has ended: the answer to its Close, which the library
/// has queued, or what rule it broke.
async fn answer<S: AsyncRead + AsyncWrite + Unpin>(mut leg: WebSocket<S>, end: &RelayEnd) {
    match end {
        RelayEnd::Lost(_, error) => reproach(leg, error).await,
        _ => {
            let _ = timeout(limits::LEG_CLOSE, poll_fn(|cx| leg.poll_flush(cx))).await;
        }
    }
}

/// Closes a leg that was lost: one that broke a rule is told which.
pub async fn reproach<S: AsyncRead + AsyncWrite + Unpin>(
    leg: WebSocket<S>,
    error: &WebSocketError,
) {
    let (code, reason) = match error {
        WebSocketError::TooLarge { .. } => (Goodbye::TOO_LARGE, "message too large"),
        WebSocketError::Protocol(_) => (Goodbye::PROTOCOL, "protocol error"),
        WebSocketError::Lost(_) | WebSocketError::Dead => return,
    };
    leg.close(code, reason, Duration::from_secs(1)).await;
}

/// Ends a leg from the hub's side.
pub async fn abort<S: AsyncRead + AsyncWrite + Unpin>(leg: WebSocket<S>) {
    leg.close(Goodbye::ERROR, DISCONNECTED, Duration::from_secs(1))
        .await;
}

#[cfg(test)]
mod tests;
