//! The desk: every stream request passes here. A repeated one has the answer that it had, each
//! holds a permit while it is served, and an accepted one gets our leg.

use std::collections::HashMap;
use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};

use common::identity::StreamId;
use common::limits;
use common::locks::lock;
use common::net::{ConnectError, Dialer, Leg, LegOpener};
use common::streaming_hosts::{EndpointError, StreamingHosts};
use common::telemetry::About;
use common::wire::stream::{StreamAnswer, StreamRequest};
use common::wire::streaming_endpoint::StreamingEndpoint;
use common::wire::twin::BootId;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::Admission;
use crate::config::Config;
use crate::counts::{Counts, Rejection};
use crate::forwarding::Forwardings;
use crate::policy::{Policy, PolicyWatch};
use crate::reports::Reports;
use crate::target::Target;

/// What a device answers to a stream request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Accept,
    Reject,
}

/// What becomes of a request that has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Noted {
    /// Serve it, and forget it after that.
    New,
    /// It was repeated, and has no answer yet.
    Waiting,
    /// It was repeated: the hub needs the answer once more.
    Answered(Answer),
    /// More are being served than may be.
    TooMany,
}

/// What every stream needs.
pub(crate) struct Desk {
    /// Names this run of the program.
    pub(crate) boot_id: BootId,
    /// Print the official samples' lines.
    pub(crate) sample_output: bool,
    /// Cancelled when the program stops.
    pub(crate) stop: CancellationToken,
    /// All that is carried.
    pub(crate) forwardings: Arc<Forwardings>,
    /// What is counted.
    pub(crate) counts: Counts,
    /// What the hub is told of connections in sessions.
    pub(crate) reports: Arc<Reports>,
    /// What the rules for targets count.
    pub(crate) admission: Admission,
    policy: PolicyWatch,
    /// Where streams may lead.
    endpoints: Mutex<Arc<StreamingHosts>>,
    legs: LegOpener,
    answers: mpsc::Sender<StreamAnswer>,
    /// Permits that are held.
    held: AtomicUsize,
    tasks: TaskTracker,
    /// Requests that are being served, by their URL, and what was answered: a hub
    /// sends a pending request again when the session was replaced.
    open: Mutex<HashMap<String, Option<Answer>>>,
}

/// One of the streams that may be open at once; given back when it is dropped.
pub(crate) struct Permit<'a>(&'a AtomicUsize);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Desk {
    /// Starts without requests.
    pub(crate) fn new(
        config: &Config,
        policy: PolicyWatch,
        boot_id: BootId,
        answers: mpsc::Sender<StreamAnswer>,
        stop: CancellationToken,
    ) -> Self {
        let admission = Admission::new(&config.connection.identity, policy.clone());
        Self {
            boot_id,
            sample_output: config.sample_output,
            stop,
            forwardings: Arc::default(),
            counts: Counts::default(),
            reports: Arc::new(Reports::new(
                config.report_connections,
                &config.connection.identity,
            )),
            admission,
            policy,
            endpoints: Mutex::new(Arc::new(config.endpoint_rule())),
            legs: LegOpener::new(config.dialer.clone()),
            answers,
            held: AtomicUsize::new(0),
            tasks: TaskTracker::new(),
            open: Mutex::default(),
        }
    }

    /// The policy in force.
    pub(crate) fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy.borrow())
    }

    /// The policy in force, and its changes.
    pub(crate) fn watch(&self) -> PolicyWatch {
        self.policy.clone()
    }

    /// Waits until streams of this name no longer reach the target. May be dropped.
    pub(crate) async fn withdrawn(&self, name: &str, target: &Target) {
        let is_withdrawn = |policy: &Arc<Policy>| policy.targets.select(name) != Some(target);
        if self.watch().wait_for(is_withdrawn).await.is_err() {
            // The last policy stays.
            pending().await
        }
    }

    /// Follows the hub's name, which a changed connection string may have changed.
    pub(crate) fn follow(&self, config: &Config) {
        *self.endpoints() = Arc::new(config.endpoint_rule());
    }

    /// Counts a stream that is not served, and keeps, for those who ask, why.
    pub(crate) fn failed(&self, stream: &Requested<'_>, rejection: Rejection, why: &str) {
        self.counts.rejected(rejection);
        self.forwardings.failed(&format!("{}: {why}", stream.name));
    }

    /// Takes note of a request; at most so many are served at once.
    pub(crate) fn note(&self, request: &StreamRequest, most: usize) -> Noted {
        let mut open = self.open();
        match open.get(&request.url) {
            Some(Some(answer)) => Noted::Answered(*answer),
            Some(None) => Noted::Waiting,
            None if open.len() >= most => Noted::TooMany,
            None => {
                open.insert(request.url.clone(), None);
                Noted::New
            }
        }
    }

    /// Forgets a request that was served.
    pub(crate) fn forget(&self, request: &StreamRequest) {
        self.open().remove(&request.url);
    }

    /// A permit for one more stream, if the policy in force has one left.
    pub(crate) fn permit(&self) -> Option<Permit<'_>> {
        let most = self.policy.borrow().streams();
        self.held
            .fetch_update(Relaxed, Relaxed, |held| (held < most).then_some(held + 1))
            .ok()?;
        Some(Permit(&self.held))
    }

    /// Waits until all have ended. May be dropped.
    pub(crate) async fn drain(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn open(&self) -> MutexGuard<'_, HashMap<String, Option<Answer>>> {
        lock(&self.open)
    }

    fn endpoints(&self) -> MutexGuard<'_, Arc<StreamingHosts>> {
        lock(&self.endpoints)
    }

    /// Where the request leads, if it may lead there.
    pub(crate) fn check(
        &self,
        request: &StreamRequest,
    ) -> Result<StreamingEndpoint, EndpointError> {
        let rule = Arc::clone(&self.endpoints());
        rule.check(&request.url)
    }

    /// What reaches targets.
    pub(crate) fn dialer(&self) -> &Dialer {
        self.legs.dialer()
    }

    /// Runs something to its end; [`drain`](Self::drain) waits for it.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Accepts a request and opens our leg; `None` when the program stops.
    pub(crate) async fn open_leg(
        &self,
        request: &StreamRequest,
        endpoint: StreamingEndpoint,
    ) -> Option<Result<Leg, ConnectError>> {
        // Neither waits for the other: the hub knows the leg before its accept.
        let opening = async {
            let leg = self.legs.open(&endpoint, &request.token, None);
            tokio::join!(self.answer(request, Answer::Accept), leg).1
        };
        tokio::select! {
            leg = opening => Some(leg),
            () = self.stop.cancelled() => None,
        }
    }

    /// Has a connection ready for a while for the stream that may follow a plain one.
    pub(crate) fn expect_another(&self) {
        self.legs.expect_another();
    }

    /// Has a connection ready for the next stream of a session that is detached since
    /// then. Never ends; to be dropped.
    pub(crate) async fn dial_ahead(&self, detached: Instant) {
        self.legs.keep_ready(detached).await;
    }

    /// Sends an answer, now or when the hub session is back.
    pub(crate) async fn answer(&self, request: &StreamRequest, answer: Answer) {
        if let Some(answered) = self.open().get_mut(&request.url) {
            *answered = Some(answer);
        }
        let answer = StreamAnswer {
            request_id: request.request_id.clone(),
            accepted: answer == Answer::Accept,
        };
        // After that time the hub does not wait for it.
        let _ = timeout(limits::STREAM_HANDSHAKE, self.answers.send(answer)).await;
    }
}

/// The stream that is requested, as the log names it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Requested<'a> {
    /// The name of what it is to reach; printable.
    pub(crate) name: &'a str,
    /// The stream's id, by which its lines at the hub are found, if its URL has one.
    pub(crate) id: Option<StreamId>,
}

impl<'a> Requested<'a> {
    /// By this request, under a name that is [`printable`].
    pub(crate) fn by(request: &StreamRequest, name: &'a str) -> Self {
        Self {
            name,
            id: StreamId::of_url(&request.url),
        }
    }

    /// What its lines are about.
    pub(crate) fn about(&self) -> About<'_> {
        About::stream(self.id.as_ref(), &self.name)
    }
}

/// A stream's name for the log: it comes from outside. Without blanks, so that nothing in it reads
/// as another field of a line.
pub(crate) fn printable(name: &str) -> String {
    name.chars()
        .filter(|c| !common::outside::is_unprintable(*c) && !c.is_whitespace())
        .take(limits::ID_LENGTH)
        .collect()
}
