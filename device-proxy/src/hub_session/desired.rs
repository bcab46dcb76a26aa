//! The desired properties of the device's twin: read after each connect, and again whenever the hub
//! says that they have changed, so that nothing between the two is lost, and a burst of changes ends
//! in the newest. The twin is read and not pieced together from patches: a patch does not say
//! whether the service has replaced everything else. No I/O; time is an argument.

use common::backoff::Backoff;
use common::identity::RequestId;
use common::mqtt;
use common::wire::twin::{DesiredChange, TwinRequest, TwinResponse};
use tokio::time::{Duration, Instant};

use super::document::Twin;
use crate::limits;

const SHORTEST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(300);

/// Reads the twin when it has to be read.
#[derive(Debug)]
pub(super) struct Desired {
    state: State,
    /// The version that was read last in this hub session.
    version: Option<u64>,
    /// The newest version that the hub has told of in this hub session.
    told: u64,
    /// The twin was read at some time in this run.
    is_known: bool,
    requests: u64,
    backoff: Backoff,
}

#[derive(Debug)]
enum State {
    Idle,
    Reading {
        request_id: RequestId,
        until: Instant,
    },
    Failed {
        again: Instant,
    },
}

/// What was read.
#[derive(Debug, PartialEq)]
pub(super) enum Read {
    /// Our sections of the twin.
    Twin(Twin),
    /// The hub does not give it now; it is asked again later.
    Failed,
}

impl Desired {
    pub(super) fn new() -> Self {
        Self {
            state: State::Idle,
            version: None,
            told: 0,
            is_known: false,
            requests: 0,
            backoff: Backoff::new(SHORTEST, LONGEST),
        }
    }

    /// A hub session is open that answers requests about the twin: the packet to send.
    pub(super) fn opened(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.version = None;
        self.told = 0;
        self.backoff.reset();
        self.read(now)
    }

    /// A hub session is open that does not.
    pub(super) fn opened_without(&mut self) {
        self.state = State::Idle;
    }

    /// Reads the twin: the packet to send, if it is not being read in any case.
    pub(super) fn read(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.requests += 1;
        let request_id = RequestId::parse(&format!("g{}", self.requests))?;
        let topic = TwinRequest::Get(request_id.clone()).to_topic();
        // As the SDKs: one blank.
        let packet = mqtt::publish_with(&topic, b" ").ok()?;
        self.state = State::Reading {
            request_id,
            until: now + limits::TWIN_ANSWER,
        };
        Some(packet)
    }

    /// The hub says that something has changed: the packet to send, if the twin has to be read.
    pub(super) fn told(&mut self, change: DesiredChange, now: Instant) -> Option<Vec<u8>> {
        if self
            .version
            .is_some_and(|version| change.version <= version)
        {
            return None;
        }
        self.told = self.told.max(change.version);
        match self.state {
            State::Idle => self.read(now),
            // The answer may be from before.
            State::Reading { .. } | State::Failed { .. } => None,
        }
    }

    /// The hub's answer to a request: what was read, if it is ours, and the packet to send, if what
    /// was read is not the newest.
    pub(super) fn answered(
        &mut self,
        response: &TwinResponse,
        body: &[u8],
        now: Instant,
    ) -> (Option<Read>, Option<Vec<u8>>) {
        match &self.state {
            State::Reading { request_id, .. } if *request_id == response.request_id => {}
            _ => return (None, None),
        }
        let twin = Some(body).filter(|_| response.is_success());
        let Some(twin) = twin.and_then(Twin::parse) else {
            self.fail(&format!("its answer has status {}", response.status), now);
            return (Some(Read::Failed), None);
        };
        self.state = State::Idle;
        self.backoff.reset();
        self.is_known = true;
        self.version = Some(twin.version);
        let again = if self.told > twin.version {
            self.read(now)
        } else {
            None
        };
        (Some(Read::Twin(twin)), again)
    }

    /// Whether a policy of the cloud may hold of which nothing is known yet: the twin is being read
    /// for the first time in this run.
    pub(super) fn is_pending(&self) -> bool {
        !self.is_known && matches!(self.state, State::Reading { .. })
    }

    /// When [`act`](Self::act) is to be called at latest.
    pub(super) fn due(&self) -> Option<Instant> {
        match &self.state {
            State::Idle => None,
            State::Reading { until, .. } => Some(*until),
            State::Failed { again } => Some(*again),
        }
    }

    /// Does what is due: the outcome of reading, if it has one now, and the packet to send.
    pub(super) fn act(&mut self, now: Instant) -> (Option<Read>, Option<Vec<u8>>) {
        if self.due().is_none_or(|due| now < due) {
            return (None, None);
        }
        match self.state {
            State::Reading { .. } => {
                self.fail("it does not answer", now);
                (Some(Read::Failed), None)
            }
            State::Failed { .. } => (None, self.read(now)),
            State::Idle => (None, None),
        }
    }

    fn fail(&mut self, why: &str, now: Instant) {
        let delay = self.backoff.next_delay();
        tracing::debug!(?delay, "the hub does not give this device's twin: {why}");
        self.state = State::Failed { again: now + delay };
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::reported::SECTION;
    use super::*;

    fn answer(
        desired: &mut Desired,
        number: u64,
        status: u16,
        body: &Value,
    ) -> (Option<Read>, bool) {
        let response = TwinResponse {
            request_id: RequestId::parse(&format!("g{number}")).unwrap(),
            status,
            version: None,
        };
        let body = body.to_string();
        let (read, packet) = desired.answered(&response, body.as_bytes(), Instant::now());
        (read, packet.is_some())
    }

    fn twin(version: u64) -> Value {
        json!({
            "desired": { SECTION: { "maxStreams": version }, "other": 1, "$version": version },
            "reported": { SECTION: { "streams": 1 }, "$version": 9 },
        })
    }

    fn read(version: u64) -> Option<Read> {
        Some(Read::Twin(Twin {
            version,
            desired: Some(json!({ "maxStreams": version })),
            reported: Some(json!({ "streams": 1 })),
        }))
    }

    fn told(desired: &mut Desired, version: u64) -> bool {
        let change = DesiredChange { version };
        desired.told(change, Instant::now()).is_some()
    }

    #[test]
    fn it_is_read_at_each_connect_and_at_each_change() {
        let mut desired = Desired::new();
        assert!(!desired.is_pending());
        let packet = desired.opened(Instant::now()).unwrap();
        assert!(packet.ends_with(b"$iothub/twin/GET/?$rid=g1 "));
        assert!(desired.is_pending());
        assert_eq!(
            answer(&mut desired, 7, 200, &twin(3)),
            (None, false),
            "another's"
        );
        assert_eq!(answer(&mut desired, 1, 200, &twin(3)), (read(3), false));
        assert!(!desired.is_pending() && desired.due().is_none());
        assert_eq!(
            answer(&mut desired, 1, 200, &twin(9)),
            (None, false),
            "twice"
        );

        assert!(!told(&mut desired, 3) && !told(&mut desired, 2), "known");
        assert!(told(&mut desired, 4));
        assert_eq!(answer(&mut desired, 2, 200, &twin(4)), (read(4), false));
        // A new hub session may have any version.
        assert!(desired.opened(Instant::now()).is_some());
        assert!(!desired.is_pending(), "once in a run");
        assert_eq!(answer(&mut desired, 3, 200, &twin(1)), (read(1), false));
    }

    #[test]
    fn a_change_while_it_is_read_is_not_lost() {
        let mut desired = Desired::new();
        desired.opened(Instant::now());
        assert!(!told(&mut desired, 5) && !told(&mut desired, 6) && !told(&mut desired, 5));
        // The answer is older than what was told: once more, and not more often.
        assert_eq!(answer(&mut desired, 1, 200, &twin(4)), (read(4), true));
        assert_eq!(answer(&mut desired, 2, 200, &twin(7)), (read(7), false));
        assert_eq!(desired.due(), None);
    }

    #[test]
    fn a_hub_that_fails_is_asked_again() {
        let mut desired = Desired::new();
        let mut now = Instant::now();
        desired.opened(now);
        let none = json!({});
        assert_eq!(
            answer(&mut desired, 1, 200, &none),
            (Some(Read::Failed), false)
        );
        assert!(!desired.is_pending());
        now = desired.due().unwrap();
        assert!(desired.act(now).1.is_some());
        assert_eq!(
            answer(&mut desired, 2, 429, &twin(1)),
            (Some(Read::Failed), false)
        );
        assert!(!told(&mut desired, 2), "it is asked later in any case");
        now = desired.due().unwrap();
        assert!(desired.act(now).1.is_some());
        now += limits::TWIN_ANSWER;
        assert_eq!(desired.act(now), (Some(Read::Failed), None));
        now = desired.due().unwrap();
        assert_eq!(desired.act(now - Duration::from_millis(1)), (None, None));
        assert!(desired.act(now).1.is_some());
        assert_eq!(answer(&mut desired, 4, 200, &twin(2)), (read(2), false));
    }

    /// What can happen between a hub and a device.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        /// A service changes the desired properties.
        Change,
        /// The hub carries out the next request that waits there.
        Serve,
        /// The next message of the hub arrives.
        Arrive,
    }

    /// A message of the hub.
    enum Message {
        Told(u64),
        Answer(u64, u64),
    }

    proptest! {
        #[test]
        fn in_the_end_the_newest_is_known(
            steps in prop::collection::vec(
                prop::sample::select(vec![Step::Change, Step::Serve, Step::Arrive]), 0..60),
        ) {
            let mut desired = Desired::new();
            let mut version = 1;
            let (mut requests, mut messages) = (VecDeque::new(), VecDeque::new());
            let mut asked = 1;
            desired.opened(Instant::now());
            requests.push_back(asked);
            let rest = std::iter::repeat_n([Step::Serve, Step::Arrive], 200).flatten();
            let mut known = 0;
            for step in steps.into_iter().chain(rest) {
                let has_asked = match step {
                    Step::Change => {
                        version += 1;
                        messages.push_back(Message::Told(version));
                        false
                    }
                    Step::Serve => {
                        let served = requests.pop_front();
                        messages.extend(served.map(|number| Message::Answer(number, version)));
                        false
                    }
                    Step::Arrive => match messages.pop_front() {
                        None => false,
                        Some(Message::Told(version)) => told(&mut desired, version),
                        Some(Message::Answer(number, version)) => {
                            let (read, again) = answer(&mut desired, number, 200, &twin(version));
                            prop_assert!(read.is_some() && version >= known);
                            known = version;
                            again
                        }
                    },
                };
                if has_asked {
                    asked += 1;
                    requests.push_back(asked);
                }
                // One at a time.
                prop_assert!(requests.len() <= 1);
            }
            prop_assert_eq!(known, version);
            prop_assert_eq!(desired.due(), None);
        }
    }
}
