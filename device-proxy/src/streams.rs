//! All streams of this device: each request goes to what serves it, a plain stream or a session.

use std::sync::Arc;

use common::boxed::boxed;
use common::log_about;
use common::session::memory::Memory;
use common::session::{STREAM_PREFIX, target_of};
use common::session_mode::SessionMode;
use common::wire::stream::{StreamAnswer, StreamRequest};
use common::wire::twin::BootId;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::forwarding::Forwardings;
use crate::limits;
use crate::policy::{Policy, PolicyWatch};
use crate::requests::{Answer, Desk, Noted, Requested, printable};
use crate::session::Sessions;
use crate::{session, stream};

/// All streams of this device.
pub struct Streams {
    desk: Arc<Desk>,
    sessions: Arc<Sessions>,
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
        Self {
            desk: Arc::new(Desk::new(config, policy, boot_id, answers, stop)),
            sessions: Arc::new(Sessions::new(
                config.session.grace,
                config.limits,
                Memory::new(config.session.memory),
            )),
        }
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

    /// Keeps an error that is no stream's, for those who ask.
    pub(crate) fn failed(&self, why: &str) {
        self.desk.forwardings.failed(why);
    }

    /// How many sessions there are, detached ones included.
    pub(crate) fn sessions(&self) -> usize {
        self.sessions.count()
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

    /// Follows the hub's name, which a changed connection string may have changed.
    pub fn follow(&self, config: &Config) {
        self.desk.follow(config);
    }

    /// Takes a request; the rest happens in a task of its own.
    pub fn request(&self, request: StreamRequest) {
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
            }
            Noted::New => {
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
            desk.failed(&stream, &error.to_string());
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
        desk.failed(&stream, &format!("{which} may not be used"));
        return boxed(|| desk.answer(request, Answer::Reject)).await;
    }
    if !policy.accept {
        log_about!(
            info,
            stream.about(),
            "rejected a stream: no new stream is accepted now"
        );
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
