//! What became of a local connection, and the one line that says so.

use std::time::Duration;

use common::identity::StreamId;
use common::session::{ConnectionEnd, ConnectionId, SessionId};
use common::{limits, log_about, report, telemetry, tunnel};
use tracing::Level;

use super::{Tunnel, Way};
use crate::counts::counts;
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
    /// It was cut before it was opened: the program stops, or its forward was removed.
    Stopped,
    /// It was cut in a session, for the same reasons.
    Cut {
        /// Which session.
        session: SessionId,
        /// Which of its connections.
        connection: ConnectionId,
        /// Bytes from the local client, bytes to it, and how long it was carried.
        carried: (u64, u64, Duration),
    },
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
        let (level, text) = self.line(tunnel);
        self.write(tunnel, level, &text);
    }

    /// The same for a tunnel whose forward was removed: that is why it was cut, if it was.
    pub(crate) fn log_removed(&self, tunnel: &Tunnel<'_>) {
        match self {
            Self::Stopped
            | Self::Cut { .. }
            | Self::InStream {
                outcome:
                    tunnel::Outcome {
                        end: tunnel::End::Stopped,
                        ..
                    },
                ..
            } => self.write(
                tunnel,
                Level::INFO,
                "tunnel closed: its forward was removed from the configuration",
            ),
            _ => self.log(tunnel),
        }
    }

    fn line(&self, tunnel: &Tunnel<'_>) -> (Level, String) {
        let (device, name) = (&tunnel.tunnels.identity, tunnel.name);
        let no_connection =
            |why: &NotOpened| format!("no connection to {device} ({name}): {}", report::chain(why));
        match self {
            Self::Unrouted(error) => (Level::WARN, report::chain(error)),
            Self::NotOpened { why, .. } => (Level::WARN, no_connection(why)),
            Self::InSession { outcome, .. } => (Level::INFO, closed(&outcome.end)),
            Self::InStream { outcome, .. } => (Level::INFO, closed(&outcome.end)),
            Self::ClientLeft => (
                Level::DEBUG,
                "the local client left before the stream was there".to_owned(),
            ),
            Self::Stopped | Self::Cut { .. } => (Level::DEBUG, closed(&tunnel::End::Stopped)),
        }
    }

    fn write(&self, tunnel: &Tunnel<'_>, level: Level, text: &str) {
        self.count();
        #[cfg(feature = "otel")]
        self.send_span(tunnel, level, text);
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

    /// Sends it as a span of OpenTelemetry, if it has come to a stream or session.
    #[cfg(feature = "otel")]
    fn send_span(&self, tunnel: &Tunnel<'_>, level: Level, text: &str) {
        use common::otel::{Span, Trace, is_on, send};
        let way = self.way();
        let trace = (way.stream.map(Trace::Stream)).or(way.session.map(Trace::Session));
        if let Some(trace) = trace.filter(|_| is_on()) {
            let carried = self.carried();
            send(Span {
                trace,
                is_root: false,
                name: "tunnel",
                duration: tunnel.begun.elapsed(),
                attributes: vec![
                    ("device", tunnel.tunnels.identity.to_string()),
                    ("name", tunnel.name.to_string()),
                    ("peer", tunnel.peer.to_string()),
                ],
                bytes: carried.map(|(sent, received, _)| [("sent", sent), ("received", received)]),
                end: text.to_owned(),
                is_failure: level == Level::WARN,
            });
        }
    }

    /// Counts what became of it.
    fn count(&self) {
        let ended = |is_normal: bool| match is_normal {
            true => counts().tunnel_ended("closed"),
            false => counts().tunnel_ended("broken"),
        };
        match self {
            Self::Unrouted(error) => counts().tunnel_failed(error.kind()),
            Self::NotOpened { why, .. } => counts().tunnel_failed(match why {
                NotOpened::Refused(_) => "refused",
                NotOpened::Interrupted => "interrupted",
            }),
            Self::InSession { outcome, .. } => ended(outcome.end.is_normal()),
            Self::InStream { outcome, .. } if matches!(outcome.end, tunnel::End::Stopped) => {
                counts().tunnel_ended("stopped");
            }
            Self::InStream { outcome, .. } => ended(outcome.end.is_normal()),
            Self::ClientLeft => counts().tunnel_failed("client_left"),
            Self::Stopped => counts().tunnel_failed("stopped"),
            Self::Cut { .. } => counts().tunnel_ended("stopped"),
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
            }
            | Self::Cut {
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
            Self::InSession { outcome, .. } => Some(carried(outcome)),
            Self::InStream { outcome, .. } => Some(carried(outcome)),
            Self::Cut { carried, .. } => Some(*carried),
            _ => None,
        }
    }
}

fn closed(end: &dyn std::error::Error) -> String {
    format!("tunnel closed: {}", report::chain(end))
}

fn carried<E>(outcome: &tunnel::Outcome<E>) -> (u64, u64, Duration) {
    (outcome.sent, outcome.received, outcome.duration)
}
