//! What became of a local connection, and the one line that says so.

use std::time::Duration;

use common::identity::StreamId;
use common::session::{ConnectionEnd, ConnectionId, SessionId};
use common::{limits, log_about, report, telemetry, tunnel};
use tracing::Level;

use super::{Tunnel, Way};
use crate::session::RouteError;

/// What became of a local connection.
#[derive(Debug)]
pub enum Outcome {
    /// There is no way to the device.
    Unrouted(RouteError),
    /// The local client left before there was a way.
    ClientLeft,
    /// The device has not opened it in its session.
    NotOpened {
        /// Which session.
        session: SessionId,
        /// Which of its connections.
        connection: ConnectionId,
        /// Why not.
        why: NotOpened,
    },
    /// It was carried in a session.
    InSession {
        /// Which session.
        session: SessionId,
        /// Which of its connections.
        connection: ConnectionId,
        /// How far, and how it ended.
        outcome: tunnel::Outcome<ConnectionEnd>,
    },
    /// It was carried in a stream of its own.
    InStream {
        /// Which, if its URL says so.
        stream: Option<StreamId>,
        /// How far, and how it ended.
        outcome: tunnel::Outcome,
    },
    /// The program stops.
    Stopped,
}

/// Why the device has not opened a connection in a session.
#[derive(Debug, thiserror::Error)]
pub enum NotOpened {
    /// The device does not.
    #[error(transparent)]
    Refused(ConnectionEnd),
    /// The session lost its stream first.
    #[error(
        "its session is interrupted, and was not back within {} s",
        limits::STREAM_HANDSHAKE.as_secs()
    )]
    Interrupted,
}

impl Outcome {
    /// Whether there was no way to the device since the hub does not know it.
    pub(crate) fn is_of_unknown_device(&self) -> bool {
        matches!(self, Self::Unrouted(error) if error.is_of_unknown_device())
    }

    /// Writes the tunnel's last line: info for one that was carried, a warning for a failure, and
    /// debug for the rest.
    pub(crate) fn log(&self, tunnel: &Tunnel<'_>) {
        let (device, name) = (&tunnel.tunnels.identity, tunnel.name);
        let no_connection =
            |why: &NotOpened| format!("no connection to {device} ({name}): {}", report::chain(why));
        let (level, text) = match self {
            Self::Unrouted(error) => (Level::WARN, report::chain(error)),
            Self::NotOpened { why, .. } => (Level::WARN, no_connection(why)),
            Self::InSession { outcome, .. } => (Level::INFO, closed(&outcome.end)),
            Self::InStream { outcome, .. } => (Level::INFO, closed(&outcome.end)),
            Self::ClientLeft => (
                Level::DEBUG,
                "the local client left before the stream was there".to_owned(),
            ),
            Self::Stopped => (Level::DEBUG, closed(&tunnel::End::Stopped)),
        };
        let (way, carried) = (self.way(), self.carried());
        let about = tunnel.about(&way);
        macro_rules! event {
            ($($level:ident)+) => {
                log_about!(
                    $($level)+,
                    about,
                    sent = carried.map(|(sent, _, _)| sent),
                    received = carried.map(|(_, received, _)| received),
                    seconds = carried.map(|(_, _, time)| telemetry::seconds(time)),
                    "{text}"
                )
            };
        }
        match level {
            Level::WARN if !tunnel.tunnels.is_quiet => event!(warn),
            Level::INFO if tunnel.is_shown() => event!(audit info),
            _ => event!(debug),
        }
    }

    fn way(&self) -> Way {
        match self {
            Self::Unrouted(error) => Way {
                stream: error.stream(),
                ..Way::default()
            },
            Self::NotOpened {
                session,
                connection,
                ..
            }
            | Self::InSession {
                session,
                connection,
                ..
            } => Way {
                stream: None,
                session: Some(*session),
                connection: Some(*connection),
            },
            Self::InStream { stream, .. } => Way {
                stream: *stream,
                ..Way::default()
            },
            Self::ClientLeft | Self::Stopped => Way::default(),
        }
    }

    /// Bytes from the local client, bytes to it, and how long it was carried.
    fn carried(&self) -> Option<(u64, u64, Duration)> {
        match self {
            Self::InSession { outcome, .. } => Some(counts(outcome)),
            Self::InStream { outcome, .. } => Some(counts(outcome)),
            _ => None,
        }
    }
}

fn closed(end: &dyn std::error::Error) -> String {
    format!("tunnel closed: {}", report::chain(end))
}

fn counts<E>(outcome: &tunnel::Outcome<E>) -> (u64, u64, Duration) {
    (outcome.sent, outcome.received, outcome.duration)
}
