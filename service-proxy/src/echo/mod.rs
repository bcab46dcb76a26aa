//! Echo tests of a stream: messages that must come back as they were sent, either one
//! after the other with their round-trip times ([`EchoPlan::Pings`]), or as many bytes
//! as fit through at once ([`EchoPlan::Throughput`]).

mod pattern;
mod ping;
mod print;
mod throughput;

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use common::identity::{DeviceIdentity, StreamName};
use common::limits;
use common::websocket::{CloseFrame, Incoming, WebSocket, WebSocketError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

pub use crate::echo_plan::{EchoPlan, Payload};
use crate::stream::{SetupError, StreamError, StreamOpener};

pub use print::run_and_print;

/// Why an echo test is no success.
#[derive(Debug, thiserror::Error)]
pub enum EchoError {
    /// Streams cannot be opened at all.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The stream could not be opened.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// Not every byte came back right.
    #[error("the echo test failed")]
    Failed(#[source] EchoFailure),
}

/// How long a reply may take, and in a throughput test how long nothing may move.
pub const REPLY: Duration = Duration::from_secs(10);

/// What happens while a test runs.
#[derive(Debug)]
pub enum EchoEvent<'a> {
    /// The stream is open.
    Opened,
    /// A message was sent.
    Sent {
        /// Its content.
        bytes: &'a Bytes,
    },
    /// The right reply came.
    Reply {
        /// Counted from 1.
        seq: u64,
        /// Its content.
        bytes: &'a Bytes,
        /// From the send to the last byte of the reply.
        time: Duration,
    },
    /// So many bytes of a throughput test have come back right.
    Progress {
        /// Bytes in all so far.
        received: u64,
    },
}

/// Why a test is not a success.
#[derive(Debug, thiserror::Error)]
pub enum EchoFailure {
    /// Something else came back.
    #[error("what came back is not what was sent: byte {at} is wrong")]
    Mismatch {
        /// The first wrong byte: of the message, or of the whole throughput test.
        at: u64,
    },
    /// More came back than was sent.
    #[error("more came back than was sent")]
    Surplus,
    /// Nothing came back in time. A stream keeps its order: what is missing now would
    /// spoil every later reply.
    #[error("no reply within {} s; does an echo target answer this stream name?", REPLY.as_secs())]
    NoReply,
    /// The other side ended the stream before all had come back.
    #[error(
        "the other side closed the stream ({code}) before everything came back; official echo samples close after one message (--count 1)"
    )]
    Closed {
        /// Its close code.
        code: u16,
    },
    /// The stream was lost.
    #[error("the stream was lost")]
    Lost(#[source] WebSocketError),
    /// The test was stopped before anything had come back.
    #[error("stopped before anything came back")]
    Stopped,
}

/// What an echo test found.
#[derive(Debug, Default)]
pub struct EchoReport {
    /// Messages sent; in a throughput test 0.
    pub sent: u64,
    /// Right replies.
    pub received: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Bytes that came back right.
    pub bytes_received: u64,
    /// The round-trip times of the replies.
    pub times: RoundTrips,
    /// The whole test, without opening the stream.
    pub duration: Duration,
    /// What was not right.
    pub failure: Option<EchoFailure>,
}

impl EchoReport {
    /// Whether every byte came back right.
    pub fn is_success(&self) -> bool {
        self.failure.is_none()
    }

    /// MiB/s each way.
    pub fn throughput(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let mib = self.bytes_received as f64 / f64::from(1 << 20);
        mib / self.duration.as_secs_f64().max(f64::EPSILON)
    }
}

/// Shortest, longest and mean of round-trip times.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RoundTrips {
    count: u32,
    total: Duration,
    min: Duration,
    max: Duration,
}

impl RoundTrips {
    fn add(&mut self, time: Duration) {
        self.min = if self.count == 0 {
            time
        } else {
            self.min.min(time)
        };
        self.max = self.max.max(time);
        self.count = self.count.saturating_add(1);
        self.total = self.total.saturating_add(time);
    }

    /// The shortest.
    pub fn min(&self) -> Duration {
        self.min
    }

    /// The longest.
    pub fn max(&self) -> Duration {
        self.max
    }

    /// The mean; zero when there is none.
    pub fn average(&self) -> Duration {
        self.total.checked_div(self.count).unwrap_or_default()
    }
}

impl fmt::Display for RoundTrips {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [min, average, max] =
            [self.min, self.average(), self.max].map(|time| time.as_secs_f64() * 1e3);
        write!(f, "min/avg/max = {min:.2}/{average:.2}/{max:.2} ms")
    }
}

/// Opens a stream and runs a test on it, until it is done or `stop` is cancelled, and
/// reports its progress to `observer`. Dropping the future cuts the stream.
///
/// # Errors
/// [`StreamError`] when the stream cannot be opened; everything later is in the report.
pub async fn run(
    opener: &StreamOpener,
    identity: &DeviceIdentity,
    name: &StreamName,
    plan: &EchoPlan,
    stop: &CancellationToken,
    mut observer: impl FnMut(EchoEvent<'_>),
) -> Result<EchoReport, StreamError> {
    let stream = tokio::select! {
        opened = opener.open(identity, name) => opened?,
        () = stop.cancelled() => {
            return Ok(EchoReport {
                failure: Some(EchoFailure::Stopped),
                ..EchoReport::default()
            });
        }
    };
    observer(EchoEvent::Opened);
    Ok(run_on(stream.leg, plan, stop, observer).await)
}

/// Runs a test on an open stream, and closes it. Dropping the future cuts the stream.
pub async fn run_on<S: AsyncRead + AsyncWrite + Unpin>(
    mut leg: WebSocket<S>,
    plan: &EchoPlan,
    stop: &CancellationToken,
    mut observer: impl FnMut(EchoEvent<'_>),
) -> EchoReport {
    let report = match plan {
        EchoPlan::Pings {
            count,
            payload,
            interval,
        } => {
            let test = ping::Pings {
                count: *count,
                payload,
                interval: *interval,
            };
            test.run(&mut leg, stop, &mut observer).await
        }
        EchoPlan::Throughput { total } => {
            throughput::run(&mut leg, *total, stop, &mut observer).await
        }
    };
    leg.close(CloseFrame::NORMAL, "", limits::CLOSE).await;
    report
}

/// The next bytes from the peer.
async fn receive<S: AsyncRead + AsyncWrite + Unpin>(
    leg: &mut WebSocket<S>,
) -> Result<Bytes, EchoFailure> {
    match std::future::poll_fn(|cx| leg.poll_incoming(cx)).await {
        Ok(Incoming::Data(data)) => Ok(data.into_bytes()),
        Ok(Incoming::Closed(close_frame)) => Err(EchoFailure::Closed {
            code: close_frame.code,
        }),
        Err(error) => Err(EchoFailure::Lost(error)),
    }
}

#[cfg(test)]
mod tests;
