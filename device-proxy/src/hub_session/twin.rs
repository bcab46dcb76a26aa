//! The session report in the device's twin: said after each connect, taken back at a
//! clean stop, and left alone by everything else, so that it tells a service-proxy of
//! sessions that live. No I/O and no clock. Hubs without twins are as good as others:
//! nothing depends on the report's arrival.

use common::identity::RequestId;
use common::mqtt;
use common::wire::twin::{BootId, SESSION_VERSION, SessionReport, TwinRequest, TwinResponse};
use serde_json::Value;

use crate::cli::SessionMode;

/// Tells the twin whether this device-proxy takes streams in session mode.
pub struct Reporter {
    /// What stands in the twin while we are here, if session mode is allowed.
    report: Option<SessionReport>,
    /// A report may stand in the twin: ours, or one of an earlier run that ended badly.
    may_stand: bool,
    requests: u64,
    waiting: Option<Waiting>,
}

/// An unanswered request.
struct Waiting {
    request_id: RequestId,
    /// The report is taken back.
    is_withdrawal: bool,
}

impl Reporter {
    /// For this mode, in the run of this name.
    pub fn new(mode: SessionMode, boot_id: BootId) -> Self {
        let report = SessionReport {
            version: SESSION_VERSION,
            boot_id,
        };
        Self {
            report: (mode != SessionMode::Never).then_some(report),
            may_stand: true,
            requests: 0,
            waiting: None,
        }
    }

    /// A hub session is open: the packet to send, if there is something to say.
    /// `has_twin`: the hub has granted answers about the twin.
    pub fn opened(&mut self, has_twin: bool) -> Option<Vec<u8>> {
        self.waiting = None;
        if !has_twin {
            tracing::debug!("the hub has no twins: nobody learns of session mode");
            return None;
        }
        match self.report {
            Some(report) => {
                self.may_stand = true;
                self.ask(&report.to_patch(), false)
            }
            None => self.withdrawal(),
        }
    }

    /// The program stops: the packet to send, if there is something to take back.
    pub fn closing(&mut self, has_twin: bool) -> Option<Vec<u8>> {
        // Who may not report has said at the start what there was to say.
        self.report.filter(|_| has_twin)?;
        self.withdrawal()
    }

    fn withdrawal(&mut self) -> Option<Vec<u8>> {
        if !self.may_stand {
            return None;
        }
        self.ask(&SessionReport::withdrawal(), true)
    }

    fn ask(&mut self, patch: &Value, is_withdrawal: bool) -> Option<Vec<u8>> {
        self.requests += 1;
        let request_id = RequestId::from(self.requests);
        let topic = TwinRequest::PatchReported(request_id.clone()).to_topic();
        let packet = mqtt::publish_with(&topic, patch.to_string().as_bytes()).ok()?;
        self.waiting = Some(Waiting {
            request_id,
            is_withdrawal,
        });
        Some(packet)
    }

    /// Whether the hub's word on the last request is still to come.
    pub fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// The hub's word on a request.
    pub fn answered(&mut self, response: &TwinResponse) {
        let Some(waiting) = self
            .waiting
            .take_if(|waiting| waiting.request_id == response.request_id)
        else {
            return;
        };
        if response.is_success() {
            self.may_stand = !waiting.is_withdrawal;
        } else {
            tracing::debug!(
                status = response.status,
                "the hub refuses what is reported to the twin"
            );
        }
    }

    /// The hub has said nothing for long: it will not.
    pub fn silence(&mut self) {
        self.waiting = None;
        tracing::debug!("the hub says nothing about the twin");
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
        let packet = reporter.opened(true);
        let topic = "$iothub/twin/PATCH/properties/reported/?$rid=1{";
        assert!(String::from_utf8_lossy(packet.as_ref().unwrap()).contains(topic));
        assert_eq!(patch(packet), report);
        assert!(reporter.is_waiting());
        reporter.answered(&response(9, 204));
        assert!(reporter.is_waiting(), "another request");
        reporter.answered(&response(1, 204));
        assert!(!reporter.is_waiting());

        assert_eq!(patch(reporter.opened(true)), report, "a new session");
        let taken_back = r#"{"deviceStreams":{"session":null}}"#;
        assert_eq!(patch(reporter.closing(true)), taken_back);
        reporter.answered(&response(2, 204));
        assert!(reporter.is_waiting(), "the report's own answer, late");
        reporter.answered(&response(3, 204));
        assert!(!reporter.is_waiting());
    }

    #[test]
    fn never_takes_an_old_report_back_once() {
        let mut reporter = Reporter::new(SessionMode::Never, BOOT);
        let taken_back = r#"{"deviceStreams":{"session":null}}"#;
        assert_eq!(patch(reporter.opened(true)), taken_back);
        reporter.answered(&response(1, 500));
        assert_eq!(patch(reporter.opened(true)), taken_back, "it did not work");
        assert!(reporter.closing(true).is_none());
        reporter.answered(&response(2, 204));
        assert!(reporter.opened(true).is_none());
    }

    #[test]
    fn hubs_without_twins_are_left_in_peace() {
        for mode in [SessionMode::Auto, SessionMode::Always, SessionMode::Never] {
            let mut reporter = Reporter::new(mode, BOOT);
            assert!(reporter.opened(false).is_none());
            assert!(reporter.closing(false).is_none());
            assert!(!reporter.is_waiting());
        }
        let mut reporter = Reporter::new(SessionMode::Always, BOOT);
        assert!(reporter.opened(true).is_some());
        reporter.silence();
        assert!(!reporter.is_waiting());
    }
}
