//! One stream request from arrival to end.

mod ahead;
mod carry;
pub(crate) mod echo;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use common::session::budget::Budget;
use common::session::memory::Memory;
use common::streaming_hosts::{EndpointError, StreamingHosts};
use common::websocket::{ConnectError, WebSocket};
use common::wire::stream::{StreamAnswer, StreamRequest};
use common::wire::twin::BootId;
use common::{descriptors, limits};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout};
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::session::Sessions;
use crate::target::Targets;
use ahead::Ahead;
use common::session_mode::SessionMode;

/// All streams of this device.
pub struct Streams {
    shared: Arc<Shared>,
}

/// Our leg of an open stream.
pub(crate) type DeviceLeg = WebSocket<TlsStream<TcpStream>>;

/// What every stream needs.
pub(crate) struct Shared {
    /// Names this run of the program.
    pub(crate) boot_id: BootId,
    pub(crate) targets: Targets,
    tls: Arc<ClientConfig>,
    /// Where streams may lead.
    endpoints: Mutex<Arc<StreamingHosts>>,
    ahead: Ahead,
    answers: mpsc::Sender<StreamAnswer>,
    pub(crate) permits: Semaphore,
    session_mode: SessionMode,
    pub(crate) sessions: Sessions,
    tasks: TaskTracker,
    /// Requests at once, those that wait for a reject included.
    most_requests: usize,
    /// Requests that are being served, by their URL, and what was answered: a hub
    /// sends a pending request again when the session was replaced.
    open: Mutex<HashMap<String, Option<bool>>>,
    sample_output: bool,
    pub(crate) stop: CancellationToken,
}

impl Streams {
    /// Starts with none, in the run of this name. Answers go to `answers`; tunnels end
    /// when `stop` is cancelled.
    pub fn new(
        config: &Config,
        boot_id: BootId,
        answers: mpsc::Sender<StreamAnswer>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                boot_id,
                targets: config.targets.clone(),
                tls: Arc::clone(&config.tls),
                endpoints: Mutex::new(Arc::new(config.endpoint_rule())),
                ahead: Ahead::default(),
                answers,
                // A target and a leg each.
                permits: Semaphore::new(descriptors::room(config.max_streams, 2, 2)),
                session_mode: config.session,
                sessions: Sessions::new(
                    config.session_grace,
                    Budget::default(),
                    Memory::new(config.memory),
                ),
                tasks: TaskTracker::new(),
                most_requests: config
                    .max_streams
                    .saturating_add(limits::STREAMS_PER_DEVICE),
                open: Mutex::default(),
                sample_output: config.sample_output,
                stop,
            }),
        }
    }

    /// Names this run of the program.
    pub fn boot_id(&self) -> BootId {
        self.shared.boot_id
    }

    /// Whether somebody may be waiting for this device to come back: a session is open.
    pub fn are_waited_for(&self) -> bool {
        self.shared.sessions.any()
    }

    /// Follows the hub's name, which a changed connection string may have changed.
    pub fn follow(&self, config: &Config) {
        *self.shared.endpoints() = Arc::new(config.endpoint_rule());
    }

    /// Takes a request; the rest happens in a task of its own.
    pub fn request(&self, request: StreamRequest) {
        let shared = Arc::clone(&self.shared);
        let mut open = shared.open();
        if let Some(answered) = open.get(&request.url) {
            if let Some(accepted) = *answered {
                drop(open);
                self.shared
                    .spawn(async move { shared.answer(&request, accepted).await });
            }
            return;
        }
        // Beyond the limit there is not even a task to reject it: the bound holds.
        if open.len() >= shared.most_requests {
            return tracing::warn!(name = %printable(&request.name), "ignored a stream request: too many at once");
        }
        open.insert(request.url.clone(), None);
        drop(open);
        self.shared.spawn(async move {
            let url = request.url.clone();
            carry::serve(&shared, request).await;
            shared.open().remove(&url);
        });
    }

    /// Waits until all have ended.
    pub async fn drain(&self) {
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}

impl Shared {
    fn open(&self) -> MutexGuard<'_, HashMap<String, Option<bool>>> {
        // No code panics while it holds the lock; if one did, the map is still whole.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn endpoints(&self) -> MutexGuard<'_, Arc<StreamingHosts>> {
        // Nothing panics while it holds the lock; if something did, the rule is still whole.
        self.endpoints
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the request leads to where it may.
    fn check(&self, request: &StreamRequest) -> Result<(), EndpointError> {
        let rule = Arc::clone(&self.endpoints());
        rule.check(&request.url).map(|_| ())
    }

    /// Runs something to its end; [`Streams::drain`] waits for it.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Accepts a request and opens our leg; `None` when the program stops.
    pub(crate) async fn open_leg(
        &self,
        request: &StreamRequest,
    ) -> Option<Result<DeviceLeg, ConnectError>> {
        // Neither waits for the other: the hub knows the leg before its accept.
        let opening = async {
            let leg = self.ahead.open(request, &self.tls);
            tokio::join!(self.answer(request, true), leg).1
        };
        tokio::select! {
            leg = opening => Some(leg),
            () = self.stop.cancelled() => None,
        }
    }

    /// Has a connection ready for the next stream of a session that is detached since
    /// then. Never ends; to be dropped.
    pub(crate) async fn dial_ahead(&self, detached: Instant) {
        self.ahead.provide(detached, &self.tls).await;
    }

    /// Sends an answer, now or when the hub session is back.
    pub(crate) async fn answer(&self, request: &StreamRequest, accepted: bool) {
        if let Some(answered) = self.open().get_mut(&request.url) {
            *answered = Some(accepted);
        }
        let answer = StreamAnswer {
            request_id: request.request_id.clone(),
            accepted,
        };
        // After that time nobody waits for it.
        let _ = timeout(limits::STREAM_HANDSHAKE, self.answers.send(answer)).await;
    }
}

/// A stream's name for the log: it comes from outside.
fn printable(name: &str) -> String {
    name.chars()
        .filter(|c| !common::outside::is_unprintable(*c))
        .take(limits::ID_LENGTH)
        .collect()
}
