//! Joins two legs: messages of at most 64 KiB go on as they came, larger ones in
//! pieces. While a leg does not take what was sent to it, little more is read from the other: one
//! message a direction is held, in TLS's buffer, and a slow leg slows the fast one.
//!
//! When one leg ends, what it had sent is delivered first; then the other gets Close,
//! 1000 if the first ended in order, else 1011. A Close is answered when the other leg has what
//! was sent before it. Both directions run in one task.

use std::future::poll_fn;
use std::time::Duration;

use common::boxed::boxed;
use common::identity::Leg;
use common::tunnel::Backlog;
use common::websocket::{CloseFrame, Data, WebSocket, WebSocketError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::both::Relay;
use self::finish::conclude;
use crate::events::{Meter, Relayed};
use crate::limits::Over;
use crate::quotas;

mod both;
mod finish;

use finish::close;
pub use finish::{abort, close_for_violation};

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
    /// Its bytes of the day are used up.
    #[error("the hub ended it: {0}")]
    Over(Over),
    /// The hub ended it.
    #[error("the hub ended it")]
    Cancelled,
}

impl RelayEnd {
    /// Names it among a fixed set of words.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Closed(_) => "closed",
            Self::Aborted(..) => "aborted",
            Self::Lost(..) => "lost",
            Self::Undelivered(..) => "undelivered",
            Self::Over(_) => "quota",
            Self::Cancelled => "hub",
        }
    }

    /// Who has ended it: `device`, `service` or `hub`.
    pub fn ended_by(&self) -> &'static str {
        self.ended().map_or("hub", Leg::as_str)
    }

    /// The leg that ended first.
    fn ended(&self) -> Option<Leg> {
        match self {
            Self::Closed(leg) | Self::Aborted(leg, _) | Self::Lost(leg, _) => Some(*leg),
            Self::Undelivered(leg, _) => Some(leg.other()),
            Self::Over(_) | Self::Cancelled => None,
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

/// Relays until a leg ends or `cancel` is cancelled, then closes both, which
/// takes as long as bytes move, [`limits::LEG_DELIVER`] without any, and
/// [`limits::LEG_CLOSE`]. `held` is a message of `first` that was read while it waited; `meter`
/// counts what is relayed, and `quotas` are of what `first` sends, and of what it is sent.
pub async fn relay<A, B>(
    first_leg: Leg,
    first: WebSocket<A>,
    held: Option<Data>,
    second: WebSocket<B>,
    meter: &Meter,
    quotas: Option<[quotas::Meter; 2]>,
    cancel: &CancellationToken,
) -> RelayOutcome
where
    A: AsyncRead + AsyncWrite + Backlog + Unpin,
    B: AsyncRead + AsyncWrite + Backlog + Unpin,
{
    let started = Instant::now();
    let mut relay = Relay::new(first_leg, first, held, second, meter, quotas);
    let end = tokio::select! {
        end = poll_fn(|cx| relay.poll(cx)) => end,
        () = cancel.cancelled() => RelayEnd::Cancelled,
    };
    let Relayed {
        to_device,
        to_service,
    } = meter.now();
    let duration = started.elapsed();
    let Relay { first, second, .. } = relay;
    let end = match end.ended() {
        None => {
            let (code, reason) = match &end {
                RelayEnd::Over(over) => (CloseFrame::POLICY, over.close_reason()),
                _ => (CloseFrame::ERROR, DISCONNECTED),
            };
            let closing =
                || async { tokio::join!(close(first, code, reason), close(second, code, reason),) };
            boxed(closing).await;
            end
        }
        Some(leg) if leg == first_leg => boxed(|| conclude(first, second, end)).await,
        Some(_) => boxed(|| conclude(second, first, end)).await,
    };
    RelayOutcome {
        to_device,
        to_service,
        duration,
        end,
    }
}

#[cfg(test)]
mod tests;
