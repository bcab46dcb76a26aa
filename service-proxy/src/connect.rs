//! One stream on standard input and output, for programs that bring their own end of the
//! connection, such as ssh with ProxyCommand. stdout carries nothing but the tunnel.

use std::sync::Arc;

use common::identity::{DeviceIdentity, StreamName};
use common::session::{PipeEnd, PipeOutcome, pipe};
use common::shutdown;
use common::tunnel::{End, Pipes, Traffic};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use crate::config::ConnectConfig;
use crate::session::{Route, RouteError, Sessions};
use crate::stream::{ServiceLeg, SetupError, StreamError, StreamOpener, carry, report_outcome};

/// Exit code of a process that SIGHUP has ended.
const HUNG_UP: i32 = 128 + 1;

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
    Broken(#[source] PipeEnd),
    /// The device did not open the connection.
    #[error("no connection to {identity} ({name}): {end}")]
    Refused {
        /// The device, or a module of it.
        identity: DeviceIdentity,
        /// The target's name.
        name: StreamName,
        /// Why.
        end: PipeEnd,
    },
    /// The stream ended before both sides were done.
    #[error("the transfer is not complete")]
    Incomplete(#[source] End),
}

/// Carries one stream on this process's stdin and stdout.
///
/// # Errors
/// [`ConnectError`], unless the stream ended normally.
pub async fn run(config: ConnectConfig, stop: &CancellationToken) -> Result<(), ConnectError> {
    let gone = stop.child_token();
    let running = run_on(config, tokio::io::stdin(), tokio::io::stdout(), &gone);
    tokio::pin!(running);
    tokio::select! {
        result = &mut running => result,
        // ssh's way to end its ProxyCommand: the device is to know that nobody comes back,
        // and the person at the terminal, who has left, need not be told.
        () = shutdown::hangup() => {
            gone.cancel();
            let _ = running.await;
            std::process::exit(HUNG_UP);
        }
    }
}

/// Carries one stream on any pair of pipes.
///
/// # Errors
/// [`ConnectError`], unless the stream ended normally.
pub async fn run_on<R, W>(
    config: ConnectConfig,
    input: R,
    output: W,
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
    let pipes = Pipes::new(input, output);
    match routed {
        Route::Session(live, id) => {
            let traffic = Traffic::default();
            let result = tokio::select! {
                outcome = pipe(&live, id, pipes, &traffic, || ()) => in_session(&config, outcome),
                () = stop.cancelled() => Err(stopped()),
            };
            if result.is_ok() {
                // The last bytes may still be on their way.
                tokio::select! {
                    () = sessions.finish() => {}
                    () = stop.cancelled() => {}
                }
            }
            sessions.shut_down().await;
            result
        }
        Route::Plain(leg) => in_stream(&config, *leg, pipes, stop).await,
    }
}

fn in_session(config: &ConnectConfig, outcome: PipeOutcome) -> Result<(), ConnectError> {
    let PipeOutcome {
        sent,
        received,
        duration,
        end,
    } = outcome;
    let (identity, name) = (&config.identity, &config.name);
    let seconds = duration.as_secs_f32();
    tracing::debug!(device = %identity, %name, peer = "stdio", sent, received, seconds, "tunnel closed: {end}");
    match end {
        PipeEnd::Finished => Ok(()),
        PipeEnd::Refused { .. } => Err(ConnectError::Refused {
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
) -> Result<(), ConnectError>
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    let (identity, name) = (&config.identity, &config.name);
    let outcome = carry(pipes, leg, stop, config.sample_output).await;
    // Whoever started us shows our stderr to a person, as ssh does: a normal end is no news.
    report_outcome(identity, name, &"stdio", &outcome, false);
    if outcome.end.is_normal() {
        Ok(())
    } else {
        Err(ConnectError::Incomplete(outcome.end))
    }
}
