//! One local connection's life: the way to the device, then a session that many share or a stream
//! of its own, and one line about its end.

mod devices;
mod outcome;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use common::boxed::boxed;
use common::identity::{DeviceIdentity, StreamId, StreamName};
use common::session::{
    ConnectionEnd, ConnectionId, NewConnection, RunningConnection, SessionId, SharedSession,
};
use common::settings::session::SessionConfig;
use common::telemetry::About;
use common::tunnel::{LocalSocket, pump, stopped};
use common::{limits, log_about};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::carried::{Carried, StreamOf};
use crate::counts::counts;
use crate::sample_output::SampleOutput;
use crate::session::{Room, Route, RouteError, Sessions};
use crate::stream::{OpenStream, StreamOpener};

pub use devices::{Devices, TooManyDevices};
pub use outcome::{NotOpened, Outcome};

/// After how long the log says what is being waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// What all local connections to one device share.
pub struct Tunnels {
    sessions: Sessions,
    identity: DeviceIdentity,
    carried: Arc<Carried>,
    sample_output: SampleOutput,
    is_quiet: bool,
}

impl fmt::Debug for Tunnels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tunnels({})", self.identity)
    }
}

impl Tunnels {
    /// To this device, through `opener`. If `is_quiet`, only failures of sessions are logged above
    /// debug: the caller reports what became of the connection.
    pub fn new(
        opener: Arc<StreamOpener>,
        identity: DeviceIdentity,
        session: SessionConfig,
        room: Arc<Room>,
        is_quiet: bool,
    ) -> Self {
        Self {
            sample_output: opener.sample_output(),
            carried: Arc::clone(room.carried()),
            sessions: Sessions::new(opener, identity.clone(), session, room, is_quiet),
            identity,
            is_quiet,
        }
    }

    /// The device, or a module of it.
    pub fn identity(&self) -> &DeviceIdentity {
        &self.identity
    }

    /// The sessions with the device.
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// A tunnel for one local connection to the target of this name.
    pub fn tunnel<'a>(&'a self, name: &'a StreamName, peer: Peer) -> Tunnel<'a> {
        Tunnel {
            tunnels: self,
            name,
            peer,
            begun: Instant::now(),
        }
    }
}

/// Who is at the local end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A TCP client.
    Address(SocketAddr),
    /// A client of a Unix socket.
    UnixSocket,
    /// The program at our standard input and output.
    Stdio,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::UnixSocket => f.write_str("unix"),
            Self::Stdio => f.write_str("stdio"),
        }
    }
}

/// A tunnel for one local connection.
#[derive(Debug, Clone, Copy)]
pub struct Tunnel<'a> {
    tunnels: &'a Tunnels,
    name: &'a StreamName,
    peer: Peer,
    /// When it was asked for.
    begun: Instant,
}

/// In what a tunnel's bytes travel, as far as it is known.
#[derive(Debug, Clone, Copy, Default)]
struct Way {
    stream: Option<StreamId>,
    session: Option<SessionId>,
    connection: Option<ConnectionId>,
}

impl Tunnel<'_> {
    /// Finds the way to the device. Ends by itself, after the time limits of opening a stream.
    /// Dropping the future is harmless.
    ///
    /// # Errors
    /// [`RouteError`].
    pub async fn route(&self) -> Result<Route, RouteError> {
        self.tunnels.sessions.route(self.name).await
    }

    /// Waits until the device has opened the tunnel, for a client that is to know. Ends by itself; a
    /// session that is interrupted is waited for as long as for a new stream. Dropping the future
    /// gives the tunnel up.
    ///
    /// # Errors
    /// The [`Outcome`] when it was not opened.
    pub async fn opened(&self, route: Route) -> Result<Route, Outcome> {
        let Route::Session(connection) = route else {
            return Ok(route);
        };
        let why = tokio::select! {
            biased;
            opened = connection.opened() => match opened {
                Ok(()) => return Ok(Route::Session(connection)),
                Err(end) => NotOpened::Refused(end),
            },
            () = self.interrupted(connection.session()) => NotOpened::Interrupted,
        };
        Err(Outcome::NotOpened {
            session: connection.session().id(),
            connection: connection.id(),
            why,
        })
    }

    /// Carries a local connection to its end, or until `stop` is cancelled; then it is cut. Dropping
    /// the future cuts it, too.
    pub async fn carry<L: LocalSocket>(
        &self,
        route: Route,
        local: L,
        stop: &CancellationToken,
    ) -> Outcome {
        match route {
            // Boxed: what a session's connection needs is less, and there are many of them.
            Route::Session(new) => boxed(|| self.in_session(new, local, stop)).await,
            Route::Plain(stream) => boxed(|| self.in_stream(*stream, local, stop)).await,
        }
    }

    /// As a connection of a session.
    async fn in_session<L: LocalSocket>(
        &self,
        new: NewConnection,
        local: L,
        stop: &CancellationToken,
    ) -> Outcome {
        let (live, connection) = new.into_parts();
        let session = live.id();
        let carrying = self.tunnels.carried.begin(None);
        let traffic = carrying.traffic();
        let _counted = counts().carry(traffic);
        let begun = Instant::now();
        let cut = || Outcome::Cut {
            session,
            connection,
            carried: (traffic.sent(), traffic.received(), begun.elapsed()),
        };
        let mut running = RunningConnection::new(&live, connection, local, traffic);
        let is_opened = tokio::select! {
            biased;
            is_opened = running.opened() => is_opened,
            // Dropped, both ends of the connection are broken off.
            () = self.interrupted(&live) => {
                return Outcome::NotOpened { session, connection, why: NotOpened::Interrupted };
            }
            () = stop.cancelled() => return cut(),
        };
        if is_opened {
            counts().tunnel_opened(true, self.begun.elapsed());
            self.log_opened(Way {
                session: Some(session),
                connection: Some(connection),
                stream: None,
            });
        }
        let outcome = tokio::select! {
            biased;
            outcome = running.run() => outcome,
            () = stop.cancelled() => return cut(),
        };
        match outcome.end {
            end @ ConnectionEnd::Refused { .. } => Outcome::NotOpened {
                session,
                connection,
                why: NotOpened::Refused(end),
            },
            _ => Outcome::InSession {
                session,
                connection,
                outcome,
            },
        }
    }

    /// Ends when a connection that was never opened has waited for too long for its
    /// session to be carried again: a client that hangs is no use.
    async fn interrupted(&self, live: &SharedSession) {
        sleep(PATIENCE).await;
        if live.detached_since().is_some() {
            let way = Way {
                session: Some(live.id()),
                ..Way::default()
            };
            log_about!(
                info,
                self.about(&way),
                "the connection waits for its session, which is interrupted"
            );
        }
        loop {
            sleep(limits::STREAM_HANDSHAKE - PATIENCE).await;
            if live.detached_since().is_some() {
                return;
            }
        }
    }

    /// In a stream of its own.
    async fn in_stream<L: LocalSocket>(
        &self,
        OpenStream { id, leg }: OpenStream,
        local: L,
        stop: &CancellationToken,
    ) -> Outcome {
        counts().tunnel_opened(false, self.begun.elapsed());
        self.log_opened(Way {
            stream: id,
            ..Way::default()
        });
        let sample_output = self.tunnels.sample_output;
        sample_output.starting();
        let carrying = self.tunnels.carried.begin(Some(StreamOf {
            id: id.map(|id| id.to_string()),
            device: self.tunnels.identity.to_string(),
            target: self.name.to_string(),
        }));
        let traffic = carrying.traffic();
        let _counted = counts().carry(traffic);
        let outcome = tokio::select! {
            biased;
            outcome = pump(local, leg, traffic, stopped(stop)) => outcome,
            never = sample_output.count(traffic) => match never {},
        };
        sample_output.done();
        Outcome::InStream {
            stream: id,
            outcome,
        }
    }

    /// Whether the log has a line for each tunnel. The samples' lines stand in the place of ours.
    fn is_shown(&self) -> bool {
        !self.tunnels.is_quiet && self.tunnels.sample_output.is_off()
    }

    fn log_opened(&self, way: Way) {
        let about = self.about(&way);
        if self.is_shown() {
            log_about!(audit info, about, "tunnel opened");
        } else {
            log_about!(debug, about, "tunnel opened");
        }
    }

    fn about(&self, way: &Way) -> About<'_> {
        About::stream(way.stream.as_ref(), self.name)
            .of(&self.tunnels.identity)
            .within(way.session.as_ref(), way.connection.as_ref())
            .peer(&self.peer)
    }
}
