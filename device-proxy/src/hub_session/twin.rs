//! The session report in the device's twin: sent after each connect, repeated until the hub
//! has taken it, withdrawn at a clean stop, and left alone by everything else, so that a
//! service-proxy can rely on it. No I/O; time is an argument.

use common::backoff::Backoff;
use common::identity::RequestId;
use common::mqtt;
use common::wire::twin::{BootId, SESSION_VERSION, SessionReport, TwinRequest, TwinResponse};
use serde_json::Value;
use tokio::time::{Duration, Instant};

use common::session_mode::SessionMode;

use crate::limits;

/// Between two attempts to report: a hub whose disk was full for a moment, or which
/// throttles, is asked again soon, and one that never answers rarely.
const SHORTEST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(300);

/// Reports in the twin whether this device-proxy takes streams in session mode.
pub struct Reporter {
    boot_id: BootId,
    /// Whether the report is to stand in the twin while we are here.
    is_allowed: bool,
    /// A report may stand in the twin: ours, or one of an earlier run that ended badly.
    may_stand: bool,
    /// The hub has taken our report at some time in this run.
    is_taken: bool,
    requests: u64,
    state: State,
    backoff: Backoff,
    /// It was logged that the hub does not take the report.
    is_warned: bool,
}

enum State {
    Idle,
    /// A request is unanswered.
    Waiting {
        request_id: RequestId,
        /// The report is withdrawn.
        is_withdrawal: bool,
        /// The program ends: nothing is repeated.
        is_last: bool,
        until: Instant,
    },
    /// The hub did not take it; it is repeated then.
    Refused {
        again: Instant,
    },
}

impl Reporter {
    /// For this mode, in the run of this name.
    pub fn new(mode: SessionMode, boot_id: BootId) -> Self {
        Self {
            boot_id,
            is_allowed: mode != SessionMode::Never,
            may_stand: true,
            is_taken: false,
            requests: 0,
            state: State::Idle,
            backoff: Backoff::new(SHORTEST, LONGEST),
            is_warned: false,
        }
    }

    /// From now on for this mode; whether that changes what is to be reported.
    pub fn follow(&mut self, mode: SessionMode) -> bool {
        let is_allowed = mode != SessionMode::Never;
        std::mem::replace(&mut self.is_allowed, is_allowed) != is_allowed
    }

    /// What is to be reported has changed during a hub session: the packet to send, if there is
    /// one. The answer to an earlier request no longer matters.
    pub fn changed(&mut self, has_twin: bool, now: Instant) -> Option<Vec<u8>> {
        self.state = State::Idle;
        if has_twin {
            self.next_report(now)
        } else {
            None
        }
    }

    /// A hub session is open: the packet to send, if there is something to report.
    /// `has_twin`: the hub has granted answers about the twin.
    pub fn opened(&mut self, has_twin: bool, now: Instant) -> Option<Vec<u8>> {
        if !has_twin {
            tracing::debug!("the hub has no twins, so session mode cannot be reported");
        }
        self.changed(has_twin, now)
    }

    /// What has to stand in the twin now.
    fn next_report(&mut self, now: Instant) -> Option<Vec<u8>> {
        if !self.is_allowed {
            return self.withdrawal(false, now);
        }
        self.may_stand = true;
        let report = SessionReport {
            version: SESSION_VERSION,
            boot_id: self.boot_id,
        };
        self.ask(&report.to_patch(), false, false, now)
    }

    /// The program stops: the packet to send, if there is something to withdraw.
    pub fn closing(&mut self, has_twin: bool, now: Instant) -> Option<Vec<u8>> {
        // What an earlier run left there was taken back at the start.
        if has_twin && self.is_allowed {
            self.withdrawal(true, now)
        } else {
            None
        }
    }

    fn withdrawal(&mut self, is_last: bool, now: Instant) -> Option<Vec<u8>> {
        if !self.may_stand {
            return None;
        }
        self.ask(&SessionReport::withdrawal(), true, is_last, now)
    }

    fn ask(
        &mut self,
        patch: &Value,
        is_withdrawal: bool,
        is_last: bool,
        now: Instant,
    ) -> Option<Vec<u8>> {
        self.requests += 1;
        let request_id = RequestId::from(self.requests);
        let topic = TwinRequest::PatchReported(request_id.clone()).to_topic();
        let packet = mqtt::publish_with(&topic, patch.to_string().as_bytes()).ok()?;
        self.state = State::Waiting {
            request_id,
            is_withdrawal,
            is_last,
            until: now + limits::TWIN_ANSWER,
        };
        Some(packet)
    }

    /// Whether the hub's answer to the last request is still to come.
    pub fn is_waiting(&self) -> bool {
        matches!(self.state, State::Waiting { .. })
    }

    /// Whether a service that asks now may not find our report yet, though it will: it is
    /// on its way for the first time in this run, or is about to be repeated.
    pub fn is_pending(&self) -> bool {
        self.is_allowed && !self.is_taken && !matches!(self.state, State::Idle)
    }

    /// The hub's answer to a request.
    pub fn answered(&mut self, response: &TwinResponse, now: Instant) {
        let State::Waiting {
            request_id,
            is_withdrawal,
            is_last,
            ..
        } = &self.state
        else {
            return;
        };
        if *request_id != response.request_id {
            return;
        }
        let (is_withdrawal, is_last) = (*is_withdrawal, *is_last);
        if response.is_success() {
            self.may_stand = !is_withdrawal;
            self.is_taken |= !is_withdrawal;
            self.state = State::Idle;
            self.backoff.reset();
            if std::mem::take(&mut self.is_warned) {
                tracing::info!("the hub has taken the report on session mode");
            }
        } else if is_last {
            self.state = State::Idle;
            tracing::debug!(
                status = response.status,
                "the hub refuses to take the report on session mode back"
            );
        } else {
            let why = format!("the hub refuses it with status {}", response.status);
            self.repeat(&why, now);
        }
    }

    fn repeat(&mut self, why: &str, now: Instant) {
        let delay = self.backoff.next_delay();
        self.state = State::Refused { again: now + delay };
        if std::mem::replace(&mut self.is_warned, true) {
            tracing::debug!(?delay, "the report on session mode is repeated: {why}");
        } else {
            tracing::warn!(
                "the report on session mode does not reach this device's twin: {why}; it is repeated until the hub takes it, and services may use plain streams until then"
            );
        }
    }

    /// When [`act`](Self::act) is to be called at latest.
    pub fn due(&self) -> Option<Instant> {
        match &self.state {
            State::Idle => None,
            State::Waiting { until, .. } => Some(*until),
            State::Refused { again } => Some(*again),
        }
    }

    /// Does what is due: the packet to send, if there is one.
    pub fn act(&mut self, now: Instant) -> Option<Vec<u8>> {
        if self.due().is_none_or(|due| now < due) {
            return None;
        }
        if self.is_waiting() {
            let seconds = limits::TWIN_ANSWER.as_secs();
            self.repeat(&format!("the hub did not answer within {seconds} s"), now);
            return None;
        }
        self.next_report(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: BootId = BootId::from_bytes([7; 16]);

    fn response(rid: u64, status: u16) -> TwinResponse {
        TwinResponse {
            request_id: RequestId::from(rid),
            status,
            version: None,
        }
    }

    /// The patch in a packet: a PUBLISH shorter than 128 bytes.
    fn patch(packet: Option<Vec<u8>>) -> String {
        let text = String::from_utf8_lossy(&packet.unwrap()).into_owned();
        text[text.find('{').unwrap()..].to_owned()
    }

    #[test]
    fn said_at_each_connect_and_taken_back_at_the_end() {
        let mut reporter = Reporter::new(SessionMode::Auto, BOOT);
        let report =
            format!(r#"{{"deviceStreams":{{"session":{{"bootId":"{BOOT}","version":1}}}}}}"#);
        let packet = reporter.opened(true, Instant::now());
        let topic = "$iothub/twin/PATCH/properties/reported/?$rid=1{";
        assert!(String::from_utf8_lossy(packet.as_ref().unwrap()).contains(topic));
        assert_eq!(patch(packet), report);
        assert!(reporter.is_waiting());
        reporter.answered(&response(9, 204), Instant::now());
        assert!(reporter.is_waiting(), "another request");
        reporter.answered(&response(1, 204), Instant::now());
        assert!(!reporter.is_waiting());

        assert_eq!(
            patch(reporter.opened(true, Instant::now())),
            report,
            "a new session"
        );
        let taken_back = r#"{"deviceStreams":{"session":null}}"#;
        assert_eq!(patch(reporter.closing(true, Instant::now())), taken_back);
        reporter.answered(&response(2, 204), Instant::now());
        assert!(reporter.is_waiting(), "the report's own answer, late");
        reporter.answered(&response(3, 204), Instant::now());
        assert!(!reporter.is_waiting());
    }

    #[test]
    fn never_takes_an_old_report_back_once() {
        let mut reporter = Reporter::new(SessionMode::Never, BOOT);
        let taken_back = r#"{"deviceStreams":{"session":null}}"#;
        assert_eq!(patch(reporter.opened(true, Instant::now())), taken_back);
        reporter.answered(&response(1, 500), Instant::now());
        assert_eq!(
            patch(reporter.opened(true, Instant::now())),
            taken_back,
            "it did not work"
        );
        assert!(reporter.closing(true, Instant::now()).is_none());
        reporter.answered(&response(2, 204), Instant::now());
        assert!(reporter.opened(true, Instant::now()).is_none());
    }

    #[test]
    fn a_changed_mode_is_reported_at_once() {
        let mut reporter = Reporter::new(SessionMode::Auto, BOOT);
        let now = Instant::now();
        let report = patch(reporter.opened(true, now));
        assert!(!reporter.follow(SessionMode::Always), "the same report");
        assert!(reporter.follow(SessionMode::Never));
        let taken_back = r#"{"deviceStreams":{"session":null}}"#;
        assert_eq!(patch(reporter.changed(true, now)), taken_back);
        reporter.answered(&response(1, 204), now);
        assert!(reporter.is_waiting(), "the first report's answer, late");
        reporter.answered(&response(2, 204), now);
        assert!(!reporter.is_waiting());
        assert!(reporter.closing(true, now).is_none());
        assert!(reporter.follow(SessionMode::Auto));
        assert!(reporter.changed(false, now).is_none());
        assert_eq!(patch(reporter.changed(true, now)), report);
    }

    #[test]
    fn hubs_without_twins_are_left_in_peace() {
        for mode in [SessionMode::Auto, SessionMode::Always, SessionMode::Never] {
            let mut reporter = Reporter::new(mode, BOOT);
            assert!(reporter.opened(false, Instant::now()).is_none());
            assert!(reporter.closing(false, Instant::now()).is_none());
            assert!(!reporter.is_waiting());
        }
    }

    #[test]
    fn what_the_hub_does_not_take_is_repeated() {
        let mut reporter = Reporter::new(SessionMode::Always, BOOT);
        let mut now = Instant::now();
        let report = patch(reporter.opened(true, now));
        assert!(reporter.is_pending());
        // Refused, not answered, throttled: it comes again, ever later.
        let mut delays = Vec::new();
        for (number, status) in [(1, Some(500)), (2, None), (3, Some(429)), (4, Some(400))] {
            match status {
                Some(status) => reporter.answered(&response(number, status), now),
                None => {
                    assert_eq!(reporter.due(), Some(now + limits::TWIN_ANSWER));
                    now += limits::TWIN_ANSWER;
                    assert!(reporter.act(now).is_none());
                }
            }
            assert!(!reporter.is_waiting() && reporter.is_pending() && reporter.is_warned);
            let due = reporter.due().unwrap();
            delays.push(due - now);
            assert!(reporter.act(due - Duration::from_millis(1)).is_none());
            now = due;
            assert_eq!(patch(reporter.act(now)), report);
        }
        assert!(
            delays[0] <= 2 * SHORTEST && delays[3] >= 8 * SHORTEST,
            "{delays:?}"
        );
        reporter.answered(&response(5, 204), now);
        assert!(!reporter.is_pending() && !reporter.is_warned);
        assert_eq!(reporter.due(), None);
        // In the next hub session it stands there already.
        assert!(reporter.opened(true, now).is_some());
        assert!(!reporter.is_pending());
        reporter.answered(&response(6, 503), now);
        assert!(reporter.due().unwrap() - now <= 2 * SHORTEST);
        // What is taken back at the end is not waited for for long.
        assert!(reporter.closing(true, now).is_some());
        reporter.answered(&response(7, 503), now);
        assert_eq!(reporter.due(), None);
    }
}
