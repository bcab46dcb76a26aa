//! Session mode on the operator's side: one session for each target of the device, kept
//! alive through any number of streams, and plain streams where a device does not support
//! them. `docs/session-protocol.md` is the protocol.

mod begin;
mod keeper;
mod resume;
mod room;
mod support;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use common::identity::{DeviceIdentity, StreamId, StreamName};
use common::locks::lock;
use common::session::{Code, NewConnection, SharedSession};
use common::session_mode::SessionMode;
use common::settings::session::SessionConfig;
use common::telemetry::About;
use common::websocket::CloseFrame;
use common::{limits, log_about};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::stream::{OpenStream, StreamError, StreamOpener};
pub use room::Room;
use support::SessionSupport;

/// How one connection gets to the device.
pub enum Route {
    /// As a connection of a session, which is requested of the device.
    Session(NewConnection),
    /// In a plain stream of its own; it is open.
    Plain(Box<OpenStream>),
}

/// Why a connection does not get to the device.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// The session could not be begun.
    #[error(transparent)]
    Stream(Arc<StreamError>),
    /// The session does not take the connection.
    #[error("no connection to {identity} ({name})")]
    Session {
        /// The device, or a module of it.
        identity: DeviceIdentity,
        /// The target's name.
        name: StreamName,
        /// Why not.
        #[source]
        fault: SessionFault,
    },
}

/// Why a session does not take a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SessionFault {
    /// It has as many as it may have.
    #[error("too many are open already")]
    Full,
    /// It ends as soon as it begins.
    #[error("its session ended again and again; try once more")]
    Ends,
}

impl RouteError {
    /// The stream that failed, if it had an id already.
    pub fn stream(&self) -> Option<StreamId> {
        match self {
            Self::Stream(error) => error.stream,
            Self::Session { .. } => None,
        }
    }

    /// Names it among a fixed set of reasons.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Stream(error) => error.failure.kind(),
            Self::Session { .. } => "session",
        }
    }

    /// Whether the hub does not know the device.
    pub fn is_of_unknown_device(&self) -> bool {
        matches!(self, Self::Stream(error) if error.failure.is_unknown_device())
    }
}

/// The phase of a session's life.
#[derive(Debug, Clone)]
enum Phase {
    Opening,
    Up(SharedSession),
    /// The device takes plain streams only.
    Plain,
    Failed(Arc<StreamError>),
    Over,
}

/// All sessions with one device.
pub struct Sessions {
    shared: Arc<Shared>,
}

struct Shared {
    opener: Arc<StreamOpener>,
    identity: DeviceIdentity,
    config: Mutex<SessionConfig>,
    room: Arc<Room>,
    /// Only failures are logged: another program shows to a person what we print.
    is_quiet: bool,
    support: SessionSupport,
    slots: Mutex<HashMap<StreamName, watch::Receiver<Phase>>>,
    tasks: TaskTracker,
    /// Sessions are broken off.
    stop: CancellationToken,
}

/// A session may have ended when it is to be used; so often another one is begun.
const ATTEMPTS: usize = 3;

impl Sessions {
    /// With no session yet. They are opened through `opener`, and have their share of `room`. If
    /// `is_quiet`, only what goes wrong is logged.
    pub fn new(
        opener: Arc<StreamOpener>,
        identity: DeviceIdentity,
        config: SessionConfig,
        room: Arc<Room>,
        is_quiet: bool,
    ) -> Self {
        let shared = Arc::new(Shared {
            opener,
            identity,
            config: Mutex::new(config),
            room,
            is_quiet,
            support: SessionSupport::default(),
            slots: Mutex::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        });
        shared.room.add(&shared);
        Self { shared }
    }

    /// From now on connections go as this says; those that are open stay as they are.
    pub fn follow(&self, config: SessionConfig) {
        *lock(&self.shared.config) = config;
    }

    /// Whether there is no session, and none is being opened.
    pub fn are_none(&self) -> bool {
        self.shared.tasks.is_empty()
    }

    /// Reads ahead of the first connection whether the device supports sessions, so that it does not
    /// wait for that.
    pub fn ask_ahead(&self) {
        if self.shared.config().mode == SessionMode::Auto {
            let shared = Arc::clone(&self.shared);
            self.shared.tasks.spawn(async move {
                tokio::select! {
                    _ = shared.support.ask(shared.opener.api(), &shared.identity) => {}
                    () = shared.stop.cancelled() => {}
                }
            });
        }
    }

    /// Finds the way for a new connection to this target. Ends by itself, after the time
    /// limits of opening a stream. Dropping the future is harmless.
    ///
    /// # Errors
    /// [`RouteError`].
    pub async fn route(&self, name: &StreamName) -> Result<Route, RouteError> {
        let shared = &self.shared;
        for _ in 0..ATTEMPTS {
            if shared.config().mode == SessionMode::Never || shared.is_known_as_plain(name) {
                return shared.open_plain(name).await;
            }
            let mut phases = shared.slot(name);
            let phase = match phases.wait_for(|it| !matches!(it, Phase::Opening)).await {
                Ok(phase) => phase.clone(),
                Err(_) => Phase::Over,
            };
            match phase {
                Phase::Up(live) => match NewConnection::open(&live) {
                    Some(connection) => return Ok(Route::Session(connection)),
                    None if live.connections() >= limits::SESSION_CONNECTIONS => {
                        return Err(shared.failure(name, SessionFault::Full));
                    }
                    None => {}
                },
                Phase::Plain => {
                    if let Some(route) = shared.open_plain_if_it_must_be(name).await? {
                        return Ok(route);
                    }
                }
                Phase::Failed(error) => return Err(RouteError::Stream(error)),
                Phase::Opening | Phase::Over => {}
            }
        }
        Err(shared.failure(name, SessionFault::Ends))
    }

    /// Ends all sessions in order: what was sent still reaches the device, if that is
    /// possible within [`limits::STREAM_HANDSHAKE`]; a session over which all was acknowledged is
    /// then [`Over::Ended`](common::session::Over). May be dropped;
    /// [`shut_down`](Self::shut_down) comes after it.
    pub async fn finish(&self) {
        let slots: Vec<_> = self.shared.slots().values().cloned().collect();
        for slot in slots {
            if let Phase::Up(live) = &*slot.borrow() {
                live.end();
            }
        }
        self.shared.tasks.close();
        let _ = timeout(limits::STREAM_HANDSHAKE, self.shared.tasks.wait()).await;
    }

    /// Ends all sessions: in order those without connections, the others are broken
    /// off. Takes [`limits::CLOSE`] at most. Dropping the future leaves them to end by themselves.
    pub async fn shut_down(&self) {
        let slots: Vec<_> = self.shared.slots().values().cloned().collect();
        for slot in slots {
            if let Phase::Up(live) = &*slot.borrow() {
                if live.connections() == 0 && live.detached_since().is_none() {
                    live.end();
                } else {
                    live.reset(Code::Stopping, "");
                }
            }
        }
        self.shared.tasks.close();
        let in_time = timeout(limits::CLOSE / 2, self.shared.tasks.wait()).await;
        if in_time.is_err() {
            self.shared.stop.cancel();
            let _ = timeout(limits::CLOSE / 2, self.shared.tasks.wait()).await;
        }
    }
}

impl Drop for Sessions {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

impl Shared {
    fn config(&self) -> SessionConfig {
        *lock(&self.config)
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<StreamName, watch::Receiver<Phase>>> {
        lock(&self.slots)
    }

    fn is_known_as_plain(&self, name: &StreamName) -> bool {
        self.config().mode == SessionMode::Auto && self.support.is_plain(name)
    }

    async fn open_plain(&self, name: &StreamName) -> Result<Route, RouteError> {
        let opened = self.opener.open(&self.identity, name).await;
        match opened {
            Ok(stream) => {
                self.opener.expect_another();
                Ok(Route::Plain(Box::new(stream)))
            }
            Err(error) => Err(RouteError::Stream(Arc::new(error))),
        }
    }

    /// The same, unless the device has connected meanwhile and reports that it takes sessions: the
    /// twin may have been read before that, and a connection in a plain stream stays in it.
    async fn open_plain_if_it_must_be(
        &self,
        name: &StreamName,
    ) -> Result<Option<Route>, RouteError> {
        let is_sure = self.is_known_as_plain(name);
        let route = self.open_plain(name).await;
        let is_answered = match &route {
            Ok(_) => true,
            // It may take nothing but sessions.
            Err(RouteError::Stream(error)) => error.failure.is_reject(),
            Err(_) => false,
        };
        if is_sure || !is_answered || begin::stream_name(name).is_none() {
            return route.map(Some);
        }
        let asking = self.support.ask_again(self.opener.api(), &self.identity);
        if asking.await.is_none() {
            return route.map(Some);
        }
        let about = About::stream(None, name).of(&self.identity);
        log_about!(debug, about, "the device takes sessions after all");
        if let Ok(Route::Plain(stream)) = route {
            let closing = stream.leg.close(CloseFrame::NORMAL, "", limits::CLOSE);
            self.tasks.spawn(closing);
        }
        Ok(None)
    }

    /// The session with this target, or the beginning of a new one.
    fn slot(self: &Arc<Self>, name: &StreamName) -> watch::Receiver<Phase> {
        let mut slots = self.slots();
        if let Some(slot) = slots.get(name) {
            let is_alive = slot.has_changed().is_ok();
            if is_alive && matches!(&*slot.borrow(), Phase::Opening | Phase::Up(_)) {
                return slot.clone();
            }
        }
        let (phases, slot) = watch::channel(Phase::Opening);
        slots.insert(name.clone(), slot.clone());
        let keeping = keeper::keep(Arc::clone(self), name.clone(), phases);
        self.tasks.spawn(keeping);
        slot
    }

    fn failure(&self, name: &StreamName, fault: SessionFault) -> RouteError {
        RouteError::Session {
            identity: self.identity.clone(),
            name: name.clone(),
            fault,
        }
    }
}
