//! What device-proxy reports about itself in the device's twin, beside the session report: only what
//! has changed, and at most once a minute after the first report of a hub session. What confirms a
//! policy goes at once, with the targets that it leaves. No I/O; time is an argument.

use common::backoff::Backoff;
use common::identity::RequestId;
use common::mqtt;
use common::wire::twin::{TwinRequest, TwinResponse};
use serde_json::{Map, Value, json};
use tokio::time::{Duration, Instant};

use crate::limits;

/// The section of the properties that is ours.
pub(super) const SECTION: &str = "deviceStreams";
/// The member of it that confirms a policy.
pub(super) const POLICY: &str = "policy";
/// The member of it that names what can be reached.
pub(super) const TARGETS: &str = "targets";

/// Between two reports of what changes all the time.
const PERIOD: Duration = Duration::from_secs(60);
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);

/// Members of the section. `null` stands for a member that is to be absent.
pub(super) type Section = Map<String, Value>;

/// Reports the section.
#[derive(Debug)]
pub(super) struct Reported {
    /// What the hub has, as far as that is known in this hub session.
    known: Known,
    state: State,
    /// When all of it was compared last in this hub session.
    compared: Option<Instant>,
    /// Since when something may be different.
    dirty: Option<Instant>,
    /// The same for the policy.
    urgent: Option<Instant>,
    requests: u64,
    backoff: Backoff,
}

#[derive(Debug)]
enum Known {
    /// Wait until the twin is read.
    Unread,
    /// It cannot be read: everything is reported.
    Nothing,
    Section(Section),
}

#[derive(Debug)]
enum State {
    Idle,
    Waiting {
        request_id: RequestId,
        patch: Section,
        until: Instant,
    },
    Failed {
        again: Instant,
    },
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Act {
    Nothing,
    /// Send this packet.
    Send(Vec<u8>),
    /// Read the twin: what the hub has is no longer known.
    Read,
}

impl Reported {
    pub(super) fn new() -> Self {
        Self {
            known: Known::Unread,
            state: State::Idle,
            compared: None,
            dirty: None,
            urgent: None,
            requests: 0,
            backoff: Backoff::new(SHORTEST, LONGEST),
        }
    }

    /// A hub session is open. Nothing is sent before [`read`](Self::read).
    pub(super) fn opened(&mut self) {
        self.known = Known::Unread;
        self.state = State::Idle;
        self.compared = None;
        (self.dirty, self.urgent) = (None, None);
    }

    /// The twin was read: what the hub has of the section. `None` if it cannot be read.
    pub(super) fn read(&mut self, section: Option<&Value>, now: Instant) {
        if !matches!(self.known, Known::Unread) {
            return;
        }
        self.known = match section {
            Some(Value::Object(section)) => Known::Section(section.clone()),
            Some(_) => Known::Section(Section::new()),
            None => Known::Nothing,
        };
        self.dirty = Some(now);
        self.urgent = Some(now);
    }

    /// Whether it matters if something changes: it has not been taken note of yet.
    pub(super) fn wants_changes(&self) -> bool {
        self.dirty.is_none()
    }

    /// Something may be different.
    pub(super) fn changed(&mut self, now: Instant) {
        self.dirty.get_or_insert(now);
    }

    /// The policy may be different.
    pub(super) fn policy_changed(&mut self, now: Instant) {
        self.urgent.get_or_insert(now);
        self.changed(now);
    }

    /// When [`act`](Self::act) is to be called at latest.
    pub(super) fn due(&self) -> Option<Instant> {
        match &self.state {
            State::Waiting { until, .. } => Some(*until),
            State::Failed { again } => Some(*again),
            State::Idle if matches!(self.known, Known::Unread) => None,
            State::Idle => {
                let all = self.all_due();
                self.urgent.into_iter().chain(all).min()
            }
        }
    }

    fn all_due(&self) -> Option<Instant> {
        let earliest = self.compared.map(|at| at + PERIOD);
        self.dirty
            .map(|since| earliest.map_or(since, |earliest| earliest.max(since)))
    }

    /// Does what is due; the section is to be as `current`.
    pub(super) fn act(&mut self, current: &Section, now: Instant) -> Act {
        if self.due().is_none_or(|due| now < due) {
            return Act::Nothing;
        }
        match self.state {
            State::Idle => {}
            State::Waiting { .. } => {
                self.fail("the hub did not answer", now);
                return Act::Nothing;
            }
            State::Failed { .. } => {
                self.opened();
                return Act::Read;
            }
        }
        let is_all = self.all_due().is_some_and(|due| now >= due);
        self.urgent = None;
        if is_all {
            self.compared = Some(now);
            // Bytes are counted without a notice; nothing else changes without one.
            let is_active = current.get("activeStreams") != Some(&json!(0));
            self.dirty = is_active.then_some(now);
        }
        let known = match &self.known {
            Known::Section(known) => Some(known),
            Known::Nothing | Known::Unread => None,
        };
        let mut patch = difference(current, known);
        if !is_all && patch.contains_key(POLICY) {
            // What a policy does first of all is in the same write.
            patch.retain(|name, _| name == POLICY || name == TARGETS);
        } else if !is_all {
            patch.clear();
        }
        if patch.is_empty() {
            return Act::Nothing;
        }
        self.send(patch, now)
    }

    /// The program stops: what is to stand in the twin from then on. The answer is not waited for.
    pub(super) fn closing(&mut self, last: &Section, now: Instant) -> Act {
        match &self.known {
            Known::Section(known) => {
                let patch = difference(last, Some(known));
                if patch.is_empty() {
                    return Act::Nothing;
                }
                self.send(patch, now)
            }
            Known::Nothing | Known::Unread => Act::Nothing,
        }
    }

    fn send(&mut self, patch: Section, now: Instant) -> Act {
        self.requests += 1;
        // Unlike the ids of the other requests about the twin.
        let Some(request_id) = RequestId::parse(&format!("r{}", self.requests)) else {
            return Act::Nothing;
        };
        let topic = TwinRequest::PatchReported(request_id.clone()).to_topic();
        let body = json!({ SECTION: patch }).to_string();
        let Ok(packet) = mqtt::publish_with(&topic, body.as_bytes()) else {
            return Act::Nothing;
        };
        self.state = State::Waiting {
            request_id,
            patch,
            until: now + limits::TWIN_ANSWER,
        };
        Act::Send(packet)
    }

    /// The hub's answer to a request.
    pub(super) fn answered(&mut self, response: &TwinResponse, now: Instant) {
        let State::Waiting {
            request_id, patch, ..
        } = &mut self.state
        else {
            return;
        };
        if *request_id != response.request_id {
            return;
        }
        if !response.is_success() {
            let why = format!("the hub refuses it with status {}", response.status);
            return self.fail(&why, now);
        }
        let patch = std::mem::take(patch);
        self.state = State::Idle;
        self.backoff.reset();
        match &mut self.known {
            Known::Section(known) => merge(known, patch),
            Known::Nothing | Known::Unread => {
                let mut known = Section::new();
                merge(&mut known, patch);
                self.known = Known::Section(known);
            }
        }
    }

    fn fail(&mut self, why: &str, now: Instant) {
        let delay = self.backoff.next_delay();
        tracing::debug!(?delay, "the report on this device is repeated: {why}");
        self.state = State::Failed { again: now + delay };
    }
}

/// The merge patch that makes `known` like `current`. The first level of `known` may have more
/// members, which are others'. With nothing known, members that are to be absent are removed in any
/// case.
fn difference(current: &Section, known: Option<&Section>) -> Section {
    let mut patch = Section::new();
    for (name, value) in current {
        let before = known.map(|known| known.get(name).unwrap_or(&Value::Null));
        let change = match (value, before) {
            (_, Some(before)) if value == before => continue,
            (Value::Object(value), Some(Value::Object(before))) => {
                let change = difference(value, Some(before));
                if change.is_empty() {
                    continue;
                }
                Value::Object(change)
            }
            _ => value.clone(),
        };
        patch.insert(name.clone(), change);
    }
    patch
}

/// Applies a merge patch (RFC 7396).
pub(super) fn merge(known: &mut Section, patch: Section) {
    for (name, value) in patch {
        match value {
            Value::Null => {
                known.remove(&name);
            }
            Value::Object(patch) => {
                let member = known.entry(name).or_insert(Value::Null);
                if !member.is_object() {
                    *member = Value::Object(Section::new());
                }
                if let Value::Object(member) = member {
                    merge(member, patch);
                }
            }
            value => {
                known.insert(name, value);
            }
        }
    }
}

#[cfg(test)]
mod tests;
