//! All streams of this device: each request goes to what serves it, a plain stream or a session.

use std::sync::{Arc, Mutex};

use common::boxed::boxed;
use common::locks::lock;
use common::log_about;
use common::session::memory::Memory;
use common::session::{STREAM_PREFIX, target_of};
use common::session_mode::SessionMode;
use common::wire::stream::{StreamAnswer, StreamRequest};
use common::wire::twin::BootId;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::counts::{Counts, Rejection};
use crate::forwarding::{Forwardings, Totals};
use crate::limits;
use crate::policy::{Policy, PolicyWatch};
use crate::reports::Reports;
use crate::requests::{Answer, Desk, Noted, Requested, printable};
use crate::session::Sessions;
use crate::view::View;
use crate::{session, stream};

/// All streams of this device.
pub struct Streams {
    desk: Arc<Desk>,
    sessions: Arc<Sessions>,
    view: Mutex<View>,
    /// How the hub session is, and since when.
    hub_session: Mutex<(&'static str, Instant)>,
}

/// What is carried now, and was since the start.
pub(crate) struct Carried {
    forwardings: Arc<Forwardings>,
    sessions: Arc<Sessions>,
}

impl Carried {
    /// The figures now.
    pub(crate) fn totals(&self) -> Totals {
        self.forwardings.totals()
    }

    /// How many sessions there are, and how many of them are detached.
    pub(crate) fn sessions(&self) -> (usize, usize) {
        (self.sessions.count(), self.sessions.count_detached())
    }
}

impl Streams {
    /// Starts with none, in the run of this name. Requests are judged by the `policy` at their
    /// arrival. Answers go to `answers`; tunnels end when `stop` is cancelled.
    pub fn new(
        config: &Config,
        policy: PolicyWatch,
        boot_id: BootId,
        answers: mpsc::Sender<StreamAnswer>,
        stop: CancellationToken,
    ) -> Self {
        let desk = Desk::new(config, policy, boot_id, answers, stop);
        Self {
            sessions: Arc::new(Sessions::new(
                config.session.grace,
                config.limits,
                Memory::new(config.session.memory),
                desk.counts.clone(),
            )),
            desk: Arc::new(desk),
            view: Mutex::new(View::of(config)),
            hub_session: Mutex::new(("connecting", Instant::now())),
        }
    }

    /// For the status: the hub session is up, or it is not.
    pub(crate) fn set_connected(&self, is_connected: bool) {
        let now = if is_connected {
            "connected"
        } else {
            "connecting"
        };
        let mut state = lock(&self.hub_session);
        if state.0 != now {
            *state = (now, Instant::now());
        }
    }

    /// How the hub session is, and since when.
    pub(crate) fn hub_session(&self) -> (&'static str, Instant) {
        *lock(&self.hub_session)
    }

    /// All sessions, for the status document.
    pub(crate) fn session_status(&self) -> Vec<Value> {
        self.sessions.status()
    }

    /// Names this run of the program.
    pub fn boot_id(&self) -> BootId {
        self.desk.boot_id
    }

    /// The policy in force, and its changes.
    pub fn policy(&self) -> PolicyWatch {
        self.desk.watch()
    }

    /// All that is carried to targets.
    pub(crate) fn forwardings(&self) -> &Arc<Forwardings> {
        &self.desk.forwardings
    }

    /// What is counted.
    pub(crate) fn counts(&self) -> &Counts {
        &self.desk.counts
    }

    /// What is carried, for who looks at it from time to time.
    pub(crate) fn carried(&self) -> Carried {
        Carried {
            forwardings: Arc::clone(&self.desk.forwardings),
            sessions: Arc::clone(&self.sessions),
        }
    }

    /// What the hub is told of connections in sessions.
    pub(crate) fn reports(&self) -> &Arc<Reports> {
        &self.desk.reports
    }

    /// Keeps an error that is no stream's, for those who ask.
    pub(crate) fn failed(&self, why: &str) {
        self.desk.forwardings.failed(why);
    }

    /// How many sessions there are, detached ones included.
    pub(crate) fn sessions(&self) -> usize {
        self.sessions.count()
    }

    /// How the hub and the targets are reached.
    pub(crate) fn view(&self) -> View {
        lock(&self.view).clone()
    }

    /// Runs something to its end, or to that of the program; [`drain`](Self::drain) waits for it.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.desk.stop.clone();
        self.desk.spawn(async move {
            tokio::select! {
                () = task => {}
                () = stop.cancelled() => {}
            }
        });
    }

    /// Whether a service may be waiting for this device to come back: a session is open.
    pub fn are_waited_for(&self) -> bool {
        self.sessions.any()
    }

    /// Follows what the configuration says of sessions. None that is attached is ended for it.
    pub fn follow_limits(&self, config: &Config) {
        self.desk.reports.follow(config.report_connections);
        let session = config.session;
        self.sessions
            .set_limits(session.grace, config.limits, session.memory);
    }

    /// What is open follows the rules in force.
    pub(crate) fn follow_rules(&self) {
        self.desk.admission.follow(&self.desk.policy());
    }

    /// Follows the hub's name, which a changed connection string may have changed.
    pub fn follow(&self, config: &Config) {
        self.desk.follow(config);
        *lock(&self.view) = View::of(config);
    }

    /// Takes a request; the rest happens in a task of its own.
    pub fn request(&self, request: StreamRequest) {
        // No other hub says that.
        let initiator = request.initiator.as_ref();
        if initiator.is_some_and(|initiator| !initiator.policy.is_empty()) {
            self.desk.reports.is_ours();
        }
        let policy = self.desk.policy();
        let most = policy
            .max_streams
            .saturating_add(limits::STREAMS_PER_DEVICE);
        let desk = Arc::clone(&self.desk);
        match self.desk.note(&request, most) {
            Noted::Waiting => {}
            Noted::Answered(answer) => {
                self.desk
                    .spawn(async move { desk.answer(&request, answer).await });
            }
            // Beyond the limit there is not even a task to reject it: the bound holds.
            Noted::TooMany => {
                let name = printable(&request.name);
                let stream = Requested::by(&request, &name);
                log_about!(
                    warn,
                    stream.about(),
                    "ignored a stream request: too many at once"
                );
                self.desk.counts.rejected(Rejection::Limit);
            }
            Noted::New => {
                self.desk.counts.stream_requested();
                let sessions = Arc::clone(&self.sessions);
                self.desk.spawn(async move {
                    serve(&desk, &sessions, &policy, &request).await;
                    desk.forget(&request);
                });
            }
        }
    }

    /// Waits until all have ended. May be dropped.
    pub async fn drain(&self) {
        self.desk.drain().await;
    }
}

/// Serves one request to its end.
async fn serve(
    desk: &Arc<Desk>,
    sessions: &Arc<Sessions>,
    policy: &Policy,
    request: &StreamRequest,
) {
    let name = printable(&request.name);
    let mut stream = Requested::by(request, &name);
    let endpoint = match desk.check(request) {
        Ok(endpoint) => endpoint,
        Err(error) => {
            log_about!(warn, stream.about(), "rejected a stream: {error}");
            desk.failed(&stream, Rejection::Endpoint, &error.to_string());
            return boxed(|| desk.answer(request, Answer::Reject)).await;
        }
    };
    if policy.session != SessionMode::Never
        && let Some(target) = target_of(&name)
    {
        stream.name = target;
        return boxed(|| session::serve(desk, sessions, policy, (request, endpoint), &stream))
            .await;
    }
    let is_session = name.starts_with(STREAM_PREFIX);
    if is_session || policy.session == SessionMode::Always {
        let which = if is_session {
            "session mode"
        } else {
            "plain streams"
        };
        log_about!(
            warn,
            stream.about(),
            "rejected a stream: {which} may not be used (--session)"
        );
        let why = format!("{which} may not be used");
        desk.failed(&stream, Rejection::Mode, &why);
        return boxed(|| desk.answer(request, Answer::Reject)).await;
    }
    if !policy.accept {
        log_about!(
            info,
            stream.about(),
            "rejected a stream: no new stream is accepted now"
        );
        desk.counts.rejected(Rejection::NotNow);
        return boxed(|| desk.answer(request, Answer::Reject)).await;
    }
    stream::serve(desk, policy, (request, endpoint), &stream).await;
}

#[cfg(test)]
mod tests {
    use common::identity::RequestId;
    use common::secret::Secret;
    use tokio::sync::watch;

    use super::*;
    use crate::target::Targets;

    fn request(number: u32, name: &str) -> StreamRequest {
        StreamRequest {
            request_id: RequestId::parse(&number.to_string()).unwrap(),
            name: name.to_owned(),
            url: format!("wss://h:1/{number}"),
            token: Secret::new("token"),
            initiator: None,
        }
    }

    #[tokio::test]
    async fn a_changed_policy_holds_for_the_next_request() {
        let config = crate::config::tests::config(&["--target", "ssh=127.0.0.1:22"]);
        let (changes, policy) = watch::channel(Arc::new(config.policy()));
        let (answers, mut answered) = mpsc::channel(10);
        let stop = CancellationToken::new();
        let streams = Streams::new(&config, policy, BootId::random(), answers, stop.clone());

        streams.request(request(1, "echo"));
        assert!(!answered.recv().await.unwrap().accepted, "no such target");

        let widened = Targets::parse(&[], true).unwrap();
        changes.send_modify(|policy| Arc::make_mut(policy).targets = widened);
        streams.request(request(2, "echo"));
        assert!(answered.recv().await.unwrap().accepted);

        changes.send_modify(|policy| Arc::make_mut(policy).session = SessionMode::Always);
        streams.request(request(3, "echo"));
        assert!(!answered.recv().await.unwrap().accepted, "plain");
        changes.send_modify(|policy| Arc::make_mut(policy).session = SessionMode::Auto);
        changes.send_modify(|policy| Arc::make_mut(policy).accept = false);
        for (number, name) in [(4, "echo"), (5, "_session.echo")] {
            streams.request(request(number, name));
            assert!(!answered.recv().await.unwrap().accepted, "{name}");
        }
        // The answer to a request that is repeated is the one that it had.
        stop.cancel();
        streams.drain().await;
    }
}
