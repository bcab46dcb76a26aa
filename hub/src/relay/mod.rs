//! Joins two legs: messages of at most 64 KiB go on as they came, larger ones in
//! pieces. While a leg does not take what was sent to it, little more is read from the other: one
//! message a direction is held, in TLS's buffer, and a slow leg slows the fast one.
//!
//! When one leg ends, what it had sent is delivered first; then the other gets Close,
//! 1000 if the first ended in order, else 1011. A Close is answered when the other leg has what
//! was sent before it. Both directions run in one task.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use common::identity::Leg;
use common::tunnel::{Backlog, Delivery};
use common::websocket::{CloseFrame, Data, Incoming, ViolationError, WebSocket, WebSocketError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::limits;

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
    /// A leg did not take what the other had sent before it closed.
    #[error("the {0} did not take what was left for it")]
    Undelivered(Leg, #[source] WebSocketError),
    /// The hub ended it.
    #[error("the hub ended it")]
    Cancelled,
}

impl RelayEnd {
    /// The leg that ended first.
    fn ended(&self) -> Option<Leg> {
        match self {
            Self::Closed(leg) | Self::Aborted(leg, _) | Self::Lost(leg, _) => Some(*leg),
            Self::Undelivered(leg, _) => Some(leg.other()),
            Self::Cancelled => None,
        }
    }
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
struct Direction {
    from: Leg,
    held: Option<Data>,
    unflushed: bool,
    bytes: u64,
    /// The leg it writes to takes nothing any more. It may have sent something before,
    /// which the other direction still delivers.
    broken: Option<WebSocketError>,
}

impl Direction {
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
        loop {
            if self.broken.is_some() {
                // It has nowhere to go, but who may not send may not read either.
                self.held = None;
            }
            let is_ready = self.broken.is_some()
                || match to.poll_ready(cx) {
                    Poll::Ready(Ok(())) => true,
                    Poll::Ready(Err(error)) => {
                        self.broken = Some(error);
                        continue;
                    }
                    Poll::Pending => false,
                };
            let incoming = if !is_ready {
                if self.held.is_some() {
                    return Poll::Pending;
                }
                // An end is seen all the same, if no more than a little comes before it.
                from.poll_incoming_little(cx)
            } else if let Some(data) = self.held.take() {
                self.send(data, to);
                continue;
            } else {
                from.poll_incoming(cx)
            };
            match incoming {
                Poll::Ready(Ok(Incoming::Data(data))) => self.held = Some(data),
                Poll::Ready(Ok(Incoming::Closed(close_frame))) => {
                    return Poll::Ready(if close_frame.is_normal() {
                        RelayEnd::Closed(self.from)
                    } else {
                        RelayEnd::Aborted(self.from, close_frame.code)
                    });
                }
                Poll::Ready(Err(error)) => return Poll::Ready(RelayEnd::Lost(self.from, error)),
                Poll::Pending => {
                    if self.unflushed && self.broken.is_none() {
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
    }

    /// Sends a message to a leg that is ready for it.
    fn send<B: AsyncRead + AsyncWrite + Unpin>(&mut self, data: Data, to: &mut WebSocket<B>) {
        let length = data.len() as u64;
        match to.start_send(data) {
            Ok(()) => {
                self.bytes += length;
                self.unflushed = true;
            }
            Err(error) => self.broken = Some(error),
        }
    }
}

/// Both directions, in one task.
struct Relay<A, B> {
    first: WebSocket<A>,
    second: WebSocket<B>,
    /// From the first leg to the second.
    out: Direction,
    /// From the second leg to the first.
    back: Direction,
    /// Since one leg takes nothing: whether the rest still moves.
    delivery: Option<Delivery>,
    /// Which direction comes first now. A task has a budget of operations before it must let
    /// others run (tokio's coop), and a flood in one direction can use it up each time.
    is_back_first: bool,
}

impl<A, B> Relay<A, B>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<RelayEnd> {
        let is_back_first = self.is_back_first;
        self.is_back_first = !is_back_first;
        for is_back in [is_back_first, !is_back_first] {
            let (ended, lost_some) = if is_back {
                let ended = self.back.poll(cx, &mut self.second, &mut self.first);
                (ended, self.back.broken.is_some())
            } else {
                let ended = self.out.poll(cx, &mut self.first, &mut self.second);
                (ended, self.out.broken.is_some())
            };
            if let Poll::Ready(end) = ended {
                // What it sent before its end was not taken: that is how the relay ended.
                return Poll::Ready(if lost_some { self.lost() } else { end });
            }
        }
        if self.out.broken.is_some() || self.back.broken.is_some() {
            // One leg takes nothing; what it had sent is being delivered to the other.
            let moved = self.out.bytes + self.back.bytes;
            let queued = self.first.queued() + self.second.queued();
            let delivery = self.delivery.get_or_insert_default();
            ready!(delivery.poll_stuck(cx, || (moved, queued)));
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
/// takes as long as bytes move, [`limits::LEG_DELIVER`] without any, and
/// [`limits::LEG_CLOSE`]. `held` is a message of `first` that was read while it waited.
pub async fn relay<A, B>(
    first_leg: Leg,
    first: WebSocket<A>,
    held: Option<Data>,
    second: WebSocket<B>,
    cancel: &CancellationToken,
) -> RelayOutcome
where
    A: AsyncRead + AsyncWrite + Backlog + Unpin,
    B: AsyncRead + AsyncWrite + Backlog + Unpin,
{
    let started = Instant::now();
    let mut relay = Relay {
        first,
        second,
        out: Direction::new(first_leg, held),
        back: Direction::new(first_leg.other(), None),
        delivery: None,
        is_back_first: false,
    };
    let end = tokio::select! {
        end = poll_fn(|cx| relay.poll(cx)) => end,
        () = cancel.cancelled() => RelayEnd::Cancelled,
    };
    let (to_device, to_service) = match first_leg {
        Leg::Service => (relay.out.bytes, relay.back.bytes),
        Leg::Device => (relay.back.bytes, relay.out.bytes),
    };
    let duration = started.elapsed();
    let Relay { first, second, .. } = relay;
    let end = match end.ended() {
        None => {
            tokio::join!(abort(first), abort(second));
            end
        }
        Some(leg) if leg == first_leg => conclude(first, second, end).await,
        Some(_) => conclude(second, first, end).await,
    };
    RelayOutcome {
        to_device,
        to_service,
        duration,
        end,
    }
}

/// Ends both legs after one of them has ended; returns how the relay ended after all.
async fn conclude<A, B>(ended: WebSocket<A>, survivor: WebSocket<B>, end: RelayEnd) -> RelayEnd
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Backlog + Unpin,
{
    let RelayEnd::Closed(leg) = end else {
        let (_, ()) = tokio::join!(finish(survivor, false), answer(ended, &end));
        return end;
    };
    // The answer to its Close means that nothing was lost. A slow leg is not waited for longer
    // than its peer is patient.
    let mut finishing = std::pin::pin!(finish(survivor, true));
    let finished = match timeout(limits::LEG_CONFIRM, finishing.as_mut()).await {
        Ok(finished) => {
            let mut ended = ended;
            if finished.is_err() {
                ended.answer_close(CloseFrame::ERROR, DISCONNECTED);
            }
            answer(ended, &end).await;
            finished
        }
        Err(_) => tokio::join!(finishing, answer(ended, &end)).0,
    };
    match finished {
        Ok(()) => end,
        Err(error) => RelayEnd::Undelivered(leg.other(), error),
    }
}

/// Closes the surviving leg: what is in hand goes out before the Close, however slow the leg.
/// What it still sends is dropped: it may not read before it can send.
///
/// # Errors
/// When it was lost, or took nothing for [`limits::LEG_DELIVER`], before it had all.
async fn finish<S>(leg: WebSocket<S>, is_normal: bool) -> Result<(), WebSocketError>
where
    S: AsyncRead + AsyncWrite + Backlog + Unpin,
{
    let mut finish = Finish {
        leg,
        is_normal,
        is_close_queued: false,
        is_closed: false,
        dropped: 0,
        delivery: Delivery::default(),
    };
    poll_fn(|cx| finish.poll(cx)).await
}

struct Finish<S> {
    leg: WebSocket<S>,
    /// Close 1000, not 1011.
    is_normal: bool,
    is_close_queued: bool,
    /// The peer's Close has come.
    is_closed: bool,
    dropped: u64,
    delivery: Delivery,
}

impl<S: AsyncRead + AsyncWrite + Backlog + Unpin> Finish<S> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WebSocketError>> {
        // Before it reads: a peer that floods us could otherwise use up each turn of this task
        // (tokio's coop), and would never be asked to stop.
        let mut is_written = self.poll_written(cx)?;
        let mut ended = None;
        while !self.is_closed && ended.is_none() {
            match self.leg.poll_incoming(cx) {
                Poll::Ready(Ok(Incoming::Data(data))) => self.dropped += data.len() as u64,
                Poll::Ready(Ok(Incoming::Closed(_))) => {
                    self.is_closed = true;
                    is_written = self.poll_written(cx)?;
                }
                Poll::Ready(Err(error)) => ended = Some(error),
                Poll::Pending => break,
            }
        }
        match ended {
            // Official clients end the connection without an answer; one that had not read all
            // would have reset it.
            Some(WebSocketError::Ended) if is_written => return Poll::Ready(Ok(())),
            Some(WebSocketError::Lost(error))
                if is_written && error.kind() == io::ErrorKind::UnexpectedEof =>
            {
                return Poll::Ready(Ok(()));
            }
            Some(error) => return Poll::Ready(Err(error)),
            None if is_written && self.is_closed => return Poll::Ready(Ok(())),
            None => {}
        }
        let (leg, dropped) = (&self.leg, self.dropped);
        ready!(
            self.delivery
                .poll_stuck(cx, || { (dropped, leg.queued() + leg.get_ref().backlog()) })
        );
        Poll::Ready(Err(WebSocketError::Dead))
    }

    /// Writes what is queued and the Close behind it; whether all of it is with the network.
    fn poll_written(&mut self, cx: &mut Context<'_>) -> Result<bool, WebSocketError> {
        loop {
            match self.leg.poll_flush(cx) {
                Poll::Ready(flushed) => flushed?,
                Poll::Pending => return Ok(false),
            }
            // A peer that has closed by itself gets its answer, and that is flushed now.
            if self.is_close_queued || self.is_closed {
                return Ok(true);
            }
            let (code, reason) = if self.is_normal {
                (CloseFrame::NORMAL, "")
            } else {
                (CloseFrame::ERROR, DISCONNECTED)
            };
            self.leg.start_close(code, reason)?;
            self.is_close_queued = true;
        }
    }
}

/// The last word to the leg that has ended: the answer to its Close, or what rule it broke.
async fn answer<S: AsyncRead + AsyncWrite + Unpin>(mut leg: WebSocket<S>, end: &RelayEnd) {
    match end {
        RelayEnd::Lost(_, error) => close_for_violation(leg, error).await,
        _ => {
            let _ = timeout(limits::LEG_CLOSE, poll_fn(|cx| leg.poll_flush(cx))).await;
        }
    }
}

/// Closes a leg that was lost: the Close names the rule that it broke.
///
/// Dropped, it closes the connection without the Close.
pub async fn close_for_violation<S: AsyncRead + AsyncWrite + Unpin>(
    leg: WebSocket<S>,
    error: &WebSocketError,
) {
    let (code, reason) = match error {
        WebSocketError::TooLarge { limit } => ViolationError::TooLarge { limit: *limit }.close(),
        WebSocketError::Protocol(violation) => violation.close(),
        WebSocketError::Lost(_) | WebSocketError::Ended | WebSocketError::Dead => return,
    };
    leg.close(code, reason, Duration::from_secs(1)).await;
}

/// Ends a leg from the hub's side.
///
/// Dropped, it closes the connection without the Close.
pub async fn abort<S: AsyncRead + AsyncWrite + Unpin>(leg: WebSocket<S>) {
    leg.close(CloseFrame::ERROR, DISCONNECTED, Duration::from_secs(1))
        .await;
}

#[cfg(test)]
mod tests;
