//! One connection on standard input and output, for programs that bring their own end of it, such
//! as ssh with ProxyCommand. stdout carries nothing but the tunnel.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use common::identity::{DeviceIdentity, StreamName};
use common::limits;
use common::session::{ConnectionEnd, Over, SharedSession};
use common::shutdown;
use common::status::{self, Place};
use common::tunnel::{End, Pipes};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::output::Output;
use crate::config::ConnectConfig;
use crate::session::{Room, Route, RouteError};
use crate::status::{Board, Shown, ShownHub};
use crate::stream::{SetupError, StreamOpener};
use crate::tunnel::{NotOpened, Outcome, Peer, Tunnels};

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
    /// No way to the device was found.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// The connection in the session ended before both sides were done.
    #[error("the transfer is not complete")]
    Broken(#[source] ConnectionEnd),
    /// The device did not open the connection.
    #[error("no connection to {identity} ({name})")]
    NotOpened {
        /// The device, or a module of it.
        identity: DeviceIdentity,
        /// The target's name.
        name: StreamName,
        /// Why.
        #[source]
        why: NotOpened,
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

/// Carries one connection on this process's stdin and stdout, and answers those who ask for its
/// status. Dropping the future breaks it off.
///
/// # Errors
/// [`ConnectError`], unless the input was sent to its end and the connection ended normally.
pub async fn run(
    config: ConnectConfig,
    status: &Place,
    stop: &CancellationToken,
) -> Result<(), ConnectError> {
    let gone = stop.child_token();
    // A person at a terminal should not have to end the input of a connection that is over; and
    // where the output cannot be closed, its reader would wait for our end, and we for its.
    let ends = if cfg!(not(unix)) || std::io::stdin().is_terminal() {
        InputEnd::WithOutput
    } else {
        InputEnd::ByItself
    };
    let output = Output::new(tokio::io::stdout());
    let mut hangups = shutdown::Hangups::new();
    let board = Board::default();
    let running = carry(config, tokio::io::stdin(), output, ends, &gone, &board);
    let running = async {
        tokio::select! {
            result = running => result,
            never = status::serve(env!("CARGO_PKG_NAME"), status, || board.document()) => match never {},
        }
    };
    tokio::pin!(running);
    let why = tokio::select! {
        result = &mut running => return result,
        // ssh ends its ProxyCommand so. Tell the device that the connection is over; the person at
        // the terminal has left and needs no message.
        () = hangups.next() => ConnectError::HungUp,
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
    /// At its own end, however early the output has ended.
    ByItself,
    /// Also when the output has ended.
    WithOutput,
}

/// Carries one connection on any pair of pipes. Dropping the future breaks it off.
///
/// # Errors
/// [`ConnectError`], unless the input was sent to its end and the connection ended normally.
pub async fn run_on<R, W>(
    config: ConnectConfig,
    input: R,
    output: W,
    ends: InputEnd,
    stop: &CancellationToken,
) -> Result<(), ConnectError>
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    carry(config, input, output, ends, stop, &Board::default()).await
}

async fn carry<R, W>(
    config: ConnectConfig,
    mut input: R,
    output: W,
    ends: InputEnd,
    stop: &CancellationToken,
    board: &Board,
) -> Result<(), ConnectError>
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    let room = Room::new(&config.session);
    board.publish(Shown {
        hubs: vec![ShownHub {
            name: None,
            host: config.hub.service.host.to_string(),
            room: Arc::clone(&room),
        }],
        forwards: vec![format!("stdio -> {} ({})", config.identity, config.name)],
    });
    let tunnels = Tunnels::new(
        Arc::new(StreamOpener::new(&config.hub, config.sample_output)?),
        config.identity.clone(),
        config.session,
        room,
        // The program that started us shows our stderr to a person, as ssh does: a normal end is
        // not logged, and a failure is printed by our caller.
        true,
    );
    let tunnel = tunnels.tunnel(&config.name, Peer::Stdio);
    let route = tokio::select! {
        routed = tunnel.route() => routed?,
        () = stop.cancelled() => return Err(stopped()),
    };
    let session = match &route {
        Route::Session(connection) => Some(connection.session().clone()),
        Route::Plain(_) => None,
    };
    let pipes = if session.is_some() && ends == InputEnd::ByItself {
        Pipes::half_closing(&mut input, output)
    } else {
        Pipes::new(&mut input, output)
    };
    let outcome = tunnel.carry(route, pipes, stop).await;
    outcome.log(&tunnel);
    let may_be_left = matches!(
        &outcome,
        Outcome::InStream { outcome, .. } if matches!(outcome.end, End::PeerClosed)
    );
    let mut result = result(&config, outcome);
    if let Some(session) = session {
        if result.is_ok() {
            // The last bytes may still be on their way.
            result = tokio::select! {
                acknowledged = acknowledged(&config, &tunnels, &session) => acknowledged,
                () = stop.cancelled() => Err(stopped()),
            };
        }
        tunnels.sessions().shut_down().await;
    } else if may_be_left && ends == InputEnd::ByItself && is_left(&mut input).await {
        return Err(ConnectError::InputLeft {
            identity: config.identity,
            name: config.name,
        });
    }
    result
}

fn stopped() -> ConnectError {
    ConnectError::Incomplete(End::Stopped)
}

/// Whether the transfer is complete, by the tunnel's outcome.
fn result(config: &ConnectConfig, outcome: Outcome) -> Result<(), ConnectError> {
    match outcome {
        Outcome::InSession { outcome, .. } if outcome.end.is_normal() => Ok(()),
        Outcome::InSession { outcome, .. } => Err(ConnectError::Broken(outcome.end)),
        Outcome::InStream { outcome, .. } if outcome.end.is_normal() => Ok(()),
        Outcome::InStream { outcome, .. } => Err(ConnectError::Incomplete(outcome.end)),
        Outcome::NotOpened { why, .. } => Err(ConnectError::NotOpened {
            identity: config.identity.clone(),
            name: config.name.clone(),
            why,
        }),
        Outcome::Unrouted(error) => Err(error.into()),
        Outcome::ClientLeft | Outcome::Stopped | Outcome::Cut { .. } => Err(stopped()),
    }
}

/// Ends the session, and fails unless the device has acknowledged all of it: a service's session ends
/// in order only when nothing is on its way. May be dropped.
async fn acknowledged(
    config: &ConnectConfig,
    tunnels: &Tunnels,
    session: &SharedSession,
) -> Result<(), ConnectError> {
    tunnels.sessions().finish().await;
    match session.over() {
        Some(Over::Ended) => Ok(()),
        _ => Err(ConnectError::Unacknowledged {
            identity: config.identity.clone(),
            name: config.name.clone(),
        }),
    }
}

/// Whether there is input that was not read.
async fn is_left<R: AsyncRead + Unpin>(input: &mut R) -> bool {
    let mut byte = [0];
    matches!(timeout(UNREAD, input.read(&mut byte)).await, Ok(Ok(count)) if count > 0)
}
