//! One stream on standard input and output, for programs that bring their own end of the
//! connection, such as ssh with ProxyCommand. stdout carries nothing but the tunnel.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use common::identity::{DeviceIdentity, StreamName};
use common::limits;
use common::session::{ConnectionEnd, ConnectionOutcome, Over, pipe};
use common::shutdown;
use common::tunnel::{End, Pipes, Traffic};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::output::Output;
use crate::config::ConnectConfig;
use crate::session::{Route, RouteError, Sessions};
use crate::stream::{ServiceLeg, SetupError, StreamError, StreamOpener, carry, report_outcome};

mod output;

/// How long the connection may go on by itself after standard output has lost its reader: ssh
/// closes both pipes at once, and its last bytes are still to go.
const LAST_BYTES: Duration = Duration::from_millis(500);
/// How long input that is there is waited for, to know whether the other side left any of it.
const UNREAD: Duration = Duration::from_millis(100);

/// Why a transfer over stdin and stdout is not complete.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Streams cannot be opened at all.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The stream could not be opened.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// No way to the device was found.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// The connection in the session ended before both sides were done.
    #[error("the transfer is not complete")]
    Broken(#[source] ConnectionEnd),
    /// The device did not open the connection.
    #[error("no connection to {identity} ({name}): {end}")]
    Refused {
        /// The device, or a module of it.
        identity: DeviceIdentity,
        /// The target's name.
        name: StreamName,
        /// Why.
        end: ConnectionEnd,
    },
    /// The stream ended before both sides were done.
    #[error("the transfer is not complete")]
    Incomplete(#[source] End),
    /// The stream ended before the input was read to its end.
    #[error("the transfer is not complete: {identity} ({name}) ended it before all input was sent")]
    InputLeft {
        /// The device, or a module of it.
        identity: DeviceIdentity,
        /// The target's name.
        name: StreamName,
    },
    /// The last bytes were sent, and the device did not acknowledge them.
    #[error(
        "the transfer may not be complete: {identity} ({name}) did not acknowledge the last bytes within {} s",
        limits::STREAM_HANDSHAKE.as_secs()
    )]
    Unacknowledged {
        /// The device, or a module of it.
        identity: DeviceIdentity,
        /// The target's name.
        name: StreamName,
    },
    /// The terminal or program that started this one has hung up (SIGHUP).
    #[error("hung up")]
    HungUp,
    /// Nothing reads standard output any more.
    #[error("nothing reads standard output any more")]
    OutputGone,
}

/// Carries one stream on this process's stdin and stdout.
///
/// # Errors
/// [`ConnectError`], unless the input was sent to its end and the stream ended normally.
pub async fn run(config: ConnectConfig, stop: &CancellationToken) -> Result<(), ConnectError> {
    let gone = stop.child_token();
    // A person at a terminal should not have to end the input of a connection that is over; and
    // where the output cannot be closed, its reader would wait for our end, and we for its.
    let ends = if cfg!(not(unix)) || std::io::stdin().is_terminal() {
        InputEnd::WithOutput
    } else {
        InputEnd::ByItself
    };
    let output = Output::new(tokio::io::stdout());
    let running = run_on(config, tokio::io::stdin(), output, ends, &gone);
    tokio::pin!(running);
    let why = tokio::select! {
        result = &mut running => return result,
        // ssh's way to end its ProxyCommand: the device is to know that the connection is over,
        // and the person at the terminal, who has left, needs no message.
        () = shutdown::hangup() => ConnectError::HungUp,
        () = shutdown::output_gone() => match timeout(LAST_BYTES, &mut running).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(_)) => return Err(ConnectError::OutputGone),
            Err(_) => ConnectError::OutputGone,
        },
    };
    gone.cancel();
    let _ = running.await;
    Err(why)
}

/// When the input is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputEnd {
    /// When it says so, however early the output has ended.
    ByItself,
    /// Also when the output has ended.
    WithOutput,
}

/// Carries one stream on any pair of pipes. Dropped, it breaks the connection off.
///
/// # Errors
/// [`ConnectError`], unless the input was sent to its end and the stream ended normally.
pub async fn run_on<R, W>(
    config: ConnectConfig,
    mut input: R,
    output: W,
    ends: InputEnd,
    stop: &CancellationToken,
) -> Result<(), ConnectError>
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    let opener = Arc::new(StreamOpener::new(&config.hub, config.sample_output)?);
    let sessions = Sessions::new(
        Arc::clone(&opener),
        config.identity.clone(),
        config.session,
        true,
    );
    let stopped = || ConnectError::Incomplete(End::Stopped);
    let routed = tokio::select! {
        routed = sessions.route(&config.name) => routed?,
        () = stop.cancelled() => return Err(stopped()),
    };
    match routed {
        Route::Session(live, id) => {
            let pipes = match ends {
                InputEnd::ByItself => Pipes::half_closing(input, output),
                InputEnd::WithOutput => Pipes::new(input, output),
            };
            let traffic = Traffic::default();
            let mut result = tokio::select! {
                outcome = pipe(&live, id, pipes, &traffic, || ()) => in_session(&config, outcome),
                () = stop.cancelled() => Err(stopped()),
            };
            if result.is_ok() {
                // The last bytes may still be on their way.
                result = tokio::select! {
                    // A service's session ends in order only when nothing is on its way.
                    () = sessions.finish() => match live.over() {
                        Some(Over::Ended) => Ok(()),
                        _ => Err(ConnectError::Unacknowledged {
                            identity: config.identity.clone(),
                            name: config.name.clone(),
                        }),
                    },
                    () = stop.cancelled() => Err(stopped()),
                };
            }
            sessions.shut_down().await;
            result
        }
        Route::Plain(leg) => {
            let pipes = Pipes::new(&mut input, output);
            let end = in_stream(&config, *leg, pipes, stop).await?;
            if matches!(end, End::PeerClosed)
                && ends == InputEnd::ByItself
                && is_left(&mut input).await
            {
                return Err(ConnectError::InputLeft {
                    identity: config.identity.clone(),
                    name: config.name.clone(),
                });
            }
            Ok(())
        }
    }
}

/// Whether there is input that was not read.
async fn is_left<R: AsyncRead + Unpin>(input: &mut R) -> bool {
    let mut byte = [0];
    matches!(timeout(UNREAD, input.read(&mut byte)).await, Ok(Ok(count)) if count > 0)
}

fn in_session(config: &ConnectConfig, outcome: ConnectionOutcome) -> Result<(), ConnectError> {
    let ConnectionOutcome {
        sent,
        received,
        duration,
        end,
    } = outcome;
    let (identity, name) = (&config.identity, &config.name);
    let seconds = duration.as_secs_f32();
    tracing::debug!(device = %identity, %name, peer = "stdio", sent, received, seconds, "tunnel closed: {end}");
    match end {
        ConnectionEnd::Finished => Ok(()),
        ConnectionEnd::Refused { .. } => Err(ConnectError::Refused {
            identity: identity.clone(),
            name: name.clone(),
            end,
        }),
        _ => Err(ConnectError::Broken(end)),
    }
}

async fn in_stream<R, W>(
    config: &ConnectConfig,
    leg: ServiceLeg,
    pipes: Pipes<R, W>,
    stop: &CancellationToken,
) -> Result<End, ConnectError>
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    let (identity, name) = (&config.identity, &config.name);
    let outcome = carry(pipes, leg, stop, config.sample_output).await;
    // The program that started us shows our stderr to a person, as ssh does: a normal end is no
    // news.
    report_outcome(identity, name, &"stdio", &outcome, false);
    if outcome.end.is_normal() {
        Ok(outcome.end)
    } else {
        Err(ConnectError::Incomplete(outcome.end))
    }
}
