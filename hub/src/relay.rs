//! Joins two legs: messages of at most 64 KiB go on as they came, larger ones in
//! pieces, one message in hand a direction, so that a slow leg slows the fast one.
//!
//! When one leg ends, what it had sent is delivered first; then the other gets Close,
//! 1000 if the first said 1000, else 1011. Both directions run in one task.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use common::identity::Leg;
use common::limits;
use common::websocket::{Data, Goodbye, Incoming, WebSocket, WebSocketError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout};
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
}

impl Way {
    fn new(from: Leg, held: Option<Data>) -> Self {
        Self {
            from,
            held,
            unflushed: false,
            bytes: 0,
        }
    }

    /// Moves messages until a socket makes it wait, or one of them ends.
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
        let lost = |error| RelayEnd::Lost(self.from.other(), error);
        loop {
            if let Some(data) = &mut self.held {
                if let Err(error) = ready!(to.poll_ready(cx)) {
                    return Poll::Ready(lost(error));
                }
                let piece = data.split_to(limits::STREAM_MESSAGE);
                self.bytes += piece.len() as u64;
                if data.is_empty() {
                    self.held = None;
                }
                if let Err(error) = to.start_send(piece) {
                    return Poll::Ready(lost(error));
                }
                self.unflushed = true;
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
                            Err(error) => return Poll::Ready(lost(error)),
                        }
                    }
                    return Poll::Pending;
                }
            }
        }
    }
}

/// Relays until a leg ends or `cancel` is cancelled, then closes both; closing takes
/// at most [`limits::LEG_CLOSE`]. `held` is a message of `first` that was read while
/// it waited.
pub async fn relay<A, B>(
    first_leg: Leg,
    mut first: WebSocket<A>,
    held: Option<Data>,
    mut second: WebSocket<B>,
    cancel: &CancellationToken,
) -> RelayOutcome
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let started = Instant::now();
    let mut out = Way::new(first_leg, held);
    let mut back = Way::new(first_leg.other(), None);
    let both = poll_fn(|cx| {
        if let Poll::Ready(end) = out.poll(cx, &mut first, &mut second) {
            return Poll::Ready(end);
        }
        back.poll(cx, &mut second, &mut first)
    });
    let end = tokio::select! {
        end = both => end,
        () = cancel.cancelled() => RelayEnd::Cancelled,
    };
    let (to_device, to_service) = match first_leg {
        Leg::Service => (out.bytes, back.bytes),
        Leg::Device => (back.bytes, out.bytes),
    };
    let outcome = RelayOutcome {
        to_device,
        to_service,
        duration: started.elapsed(),
        end,
    };
    match &outcome.end {
        RelayEnd::Cancelled => {
            tokio::join!(abort(first), abort(second));
        }
        RelayEnd::Closed(leg) | RelayEnd::Aborted(leg, _) | RelayEnd::Lost(leg, _) => {
            let normal = matches!(outcome.end, RelayEnd::Closed(_));
            if *leg == first_leg {
                tokio::join!(answer(first), finish(second, normal));
            } else {
                tokio::join!(answer(second), finish(first, normal));
            }
        }
    }
    outcome
}

/// Closes the surviving leg: what is in hand goes out before the Close.
async fn finish<S: AsyncRead + AsyncWrite + Unpin>(leg: WebSocket<S>, normal: bool) {
    let (code, reason) = if normal {
        (Goodbye::NORMAL, "")
    } else {
        (Goodbye::ERROR, DISCONNECTED)
    };
    leg.close(code, reason, limits::LEG_CLOSE).await;
}

/// Sends the answer to a leg's own Close, which the library has queued.
async fn answer<S: AsyncRead + AsyncWrite + Unpin>(mut leg: WebSocket<S>) {
    let _ = timeout(limits::LEG_CLOSE, poll_fn(|cx| leg.poll_flush(cx))).await;
}

/// Ends a leg from the hub's side.
pub async fn abort<S: AsyncRead + AsyncWrite + Unpin>(leg: WebSocket<S>) {
    leg.close(Goodbye::ERROR, DISCONNECTED, Duration::from_secs(1))
        .await;
}

#[cfg(test)]
mod tests;
