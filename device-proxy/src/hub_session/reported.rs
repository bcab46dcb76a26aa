//! What device-proxy reports about itself in the device's twin, beside the session report: only what
//! has changed, and at most once a minute after the first report of a hub session. What confirms a
//! policy goes at once. No I/O; time is an argument.

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
        let patch = match &self.known {
            Known::Section(known) => difference(current, Some(known), is_all),
            Known::Nothing | Known::Unread => difference(current, None, is_all),
        };
        if patch.is_empty() {
            return Act::Nothing;
        }
        self.send(patch, now)
    }

    /// The program stops: what is to stand in the twin from then on. The answer is not waited for.
    pub(super) fn closing(&mut self, last: &Section, now: Instant) -> Act {
        match &self.known {
            Known::Section(known) => {
                let patch = difference(last, Some(known), true);
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

/// The merge patch that makes `known` like `current`, in the policy alone if not in all members. The
/// first level of `known` may have more members, which are others'. With nothing known, members that
/// are to be absent are removed in any case.
fn difference(current: &Section, known: Option<&Section>, is_all: bool) -> Section {
    let members = current.iter().filter(|(name, _)| is_all || *name == POLICY);
    let mut patch = Section::new();
    for (name, value) in members {
        let before = known.map(|known| known.get(name).unwrap_or(&Value::Null));
        let change = match (value, before) {
            (_, Some(before)) if value == before => continue,
            (Value::Object(value), Some(Value::Object(before))) => {
                let change = difference(value, Some(before), true);
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
fn merge(known: &mut Section, patch: Section) {
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn section(value: Value) -> Section {
        match value {
            Value::Object(section) => section,
            other => panic!("{other}"),
        }
    }

    fn current(active: u64, bytes: u64) -> Section {
        section(json!({
            "version": "1.0.0", "activeStreams": active, "bytesIn": bytes, "lastError": null,
            "policy": { "version": 3, "status": "applied", "reason": null },
        }))
    }

    /// The patch that was sent.
    fn sent(act: Act) -> Value {
        let Act::Send(packet) = act else {
            panic!("{act:?}")
        };
        let text = String::from_utf8_lossy(&packet).into_owned();
        let body = &text[text.find("{\"").unwrap()..];
        serde_json::from_str::<Value>(body).unwrap()[SECTION].clone()
    }

    fn answer(reported: &mut Reported, number: u64, status: u16, now: Instant) {
        let response = TwinResponse {
            request_id: RequestId::parse(&format!("r{number}")).unwrap(),
            status,
            version: None,
        };
        reported.answered(&response, now);
    }

    #[test]
    fn only_what_has_changed_and_once_a_minute() {
        let mut reported = Reported::new();
        let begun = Instant::now();
        reported.opened();
        reported.changed(begun);
        assert_eq!(reported.due(), None, "the twin is not read yet");
        let other = json!({ "session": { "version": 1 }, "version": "0.9.0", "lastError": {} });
        reported.read(Some(&other), begun);
        assert_eq!(reported.due(), Some(begun));
        let first = sent(reported.act(&current(0, 5), begun));
        assert_eq!(
            first,
            json!({
                "version": "1.0.0", "activeStreams": 0, "bytesIn": 5, "lastError": null,
                "policy": { "version": 3, "status": "applied", "reason": null },
            })
        );
        answer(&mut reported, 9, 204, begun);
        assert_eq!(
            reported.due(),
            Some(begun + limits::TWIN_ANSWER),
            "another's"
        );
        answer(&mut reported, 1, 204, begun);
        // An idle device has no timer.
        assert_eq!(reported.due(), None);
        assert!(reported.wants_changes());

        let mut now = begun + Duration::from_secs(10);
        reported.changed(now);
        reported.changed(now + Duration::from_secs(1));
        assert_eq!(reported.due(), Some(begun + PERIOD));
        assert_eq!(reported.act(&current(1, 7), now), Act::Nothing);
        now = begun + PERIOD;
        let second = sent(reported.act(&current(1, 7), now));
        assert_eq!(second, json!({ "activeStreams": 1, "bytesIn": 7 }));
        answer(&mut reported, 2, 204, now);
        // An open stream is looked at once a minute, and is reported only if it did something.
        for _ in 0..3 {
            now += PERIOD;
            assert_eq!(reported.due(), Some(now));
            assert_eq!(reported.act(&current(1, 7), now), Act::Nothing);
        }
        now += PERIOD;
        assert_eq!(
            sent(reported.act(&current(0, 8), now)),
            json!({ "activeStreams": 0, "bytesIn": 8 })
        );
        answer(&mut reported, 3, 204, now);
        assert_eq!(reported.due(), None);
        // After a pause, at once.
        now += 10 * PERIOD;
        reported.changed(now);
        assert_eq!(reported.due(), Some(now));
        // The next hub session finds all as it was.
        reported.opened();
        reported.read(Some(&Value::Object(current(0, 8))), now);
        assert_eq!(reported.act(&current(0, 8), now), Act::Nothing);
        assert_eq!(reported.due(), None);
    }

    #[test]
    fn a_policy_is_confirmed_at_once_and_alone() {
        let mut reported = Reported::new();
        let now = Instant::now();
        reported.opened();
        reported.read(Some(&Value::Object(current(0, 0))), now);
        assert_eq!(reported.act(&current(0, 0), now), Act::Nothing);
        let mut newer = current(0, 9);
        newer[POLICY] = json!({ "version": 4, "status": "refused", "reason": "x" });
        reported.policy_changed(now);
        assert_eq!(
            sent(reported.act(&newer, now)),
            json!({ POLICY: { "version": 4, "status": "refused", "reason": "x" } })
        );
        // One request at a time: what comes in between is coalesced.
        newer[POLICY]["version"] = json!(5);
        reported.policy_changed(now);
        assert_eq!(reported.act(&newer, now), Act::Nothing);
        newer[POLICY] = json!({ "version": 6, "status": "applied", "reason": null });
        reported.policy_changed(now);
        answer(&mut reported, 1, 204, now);
        assert_eq!(
            sent(reported.act(&newer, now)),
            json!({ POLICY: { "version": 6, "status": "applied", "reason": null } })
        );
        answer(&mut reported, 2, 204, now);
        assert_eq!(reported.act(&newer, now), Act::Nothing);
        let later = now + PERIOD;
        assert_eq!(sent(reported.act(&newer, later)), json!({ "bytesIn": 9 }));
    }

    #[test]
    fn after_a_failure_the_twin_is_read_again() {
        let mut reported = Reported::new();
        let mut now = Instant::now();
        reported.opened();
        reported.read(Some(&json!({})), now);
        for (number, status) in [(1, Some(500)), (2, None), (3, Some(429))] {
            assert!(matches!(reported.act(&current(0, 0), now), Act::Send(_)));
            match status {
                Some(status) => answer(&mut reported, number, status, now),
                None => {
                    now = reported.due().unwrap();
                    assert_eq!(reported.act(&current(0, 0), now), Act::Nothing);
                }
            }
            let again = reported.due().unwrap();
            assert!(again > now);
            assert_eq!(reported.act(&current(0, 0), now), Act::Nothing);
            now = again;
            assert_eq!(reported.act(&current(0, 0), now), Act::Read);
            assert_eq!(reported.due(), None);
            reported.read(None, now);
        }
        // Nothing is known: what is not to be there is removed.
        let all = sent(reported.act(&current(0, 0), now));
        assert!(all.as_object().unwrap().contains_key("lastError"));
        answer(&mut reported, 4, 204, now);
        assert_eq!(reported.due(), None);
        assert_eq!(reported.closing(&current(0, 0), now), Act::Nothing);
        assert_eq!(
            sent(reported.closing(&current(0, 1), now)),
            json!({ "bytesIn": 1 })
        );
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![Just(Value::Null), (0u8..3).prop_map(|n| json!(n))];
        leaf.prop_recursive(2, 12, 3, |inner| {
            prop::collection::btree_map("[a-c]", inner, 0..3).prop_map(|map| json!(map))
        })
    }

    fn members() -> impl Strategy<Value = Section> {
        prop::collection::btree_map("[a-c]", value(), 0..4)
            .prop_map(|map| map.into_iter().collect())
    }

    /// As the hub stores it: without null.
    fn stored(section: &Section) -> Section {
        let mut stored = Section::new();
        merge(&mut stored, section.clone());
        stored
    }

    proptest! {
        #[test]
        fn the_patch_makes_the_twin_as_it_is_to_be(before in members(), now in members()) {
            let known = stored(&before);
            let mut hub = known.clone();
            merge(&mut hub, difference(&now, Some(&known), true));
            for (name, value) in &now {
                let has = hub.get(name).unwrap_or(&Value::Null);
                // Members of members that are not mentioned are left alone.
                prop_assert!(contains(has, value), "{has} {value}");
            }
            // What others have stays, and there is no second patch.
            for (name, value) in known.iter().filter(|(name, _)| !now.contains_key(*name)) {
                prop_assert_eq!(hub.get(name), Some(value));
            }
        }
    }

    fn contains(has: &Value, wanted: &Value) -> bool {
        match (has, wanted) {
            (Value::Object(has), Value::Object(wanted)) => wanted
                .iter()
                .all(|(name, value)| contains(has.get(name).unwrap_or(&Value::Null), value)),
            _ => has == wanted,
        }
    }
}
