//! Whether the device supports session mode: what its twin reports, for a while, and what was
//! observed when the report was wrong. Also whether the device is disabled, when it is not connected.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use common::identity::{DeviceIdentity, StreamName};
use common::locks::lock;
use common::session::handshake::HandshakeError;
use common::session::proof::VERSION;
use common::telemetry::About;
use common::wire::twin::{BootId, SessionReport};
use common::{log_about, report};
use tokio::time::{Duration, Instant};

use crate::hub_api::HubApi;
use crate::limits;

/// How long a report of support is used; a stale one is noticed.
const YES: Duration = Duration::from_secs(300);
/// How long its absence counts: the device may be about to start.
const NO: Duration = Duration::from_secs(10);
/// How long the device is asked for plain streams only after it has sent nothing, which may be
/// the path's fault; doubled each time.
const DOUBT: Duration = Duration::from_secs(5);
/// The longest such time. A report may be a stale one, of a program that runs no more: then one
/// connection in five minutes has to wait.
const DOUBT_MOST: Duration = Duration::from_secs(300);
/// Between two checks of whether a device that is not connected is disabled: a share of the time
/// since it was lost, within bounds.
const STATUS_SHARE: u32 = 4;
const STATUS_SHORTEST: Duration = Duration::from_secs(5);
const STATUS_LONGEST: Duration = Duration::from_secs(60);

/// What is known of one device.
#[derive(Debug, Default)]
pub(super) struct SessionSupport(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    report: Option<(Option<SessionReport>, Instant)>,
    /// The device was there when its twin reported no support, and had accepted a stream: until
    /// then it is believed. The twin of a device that is not there, or was not a moment ago, proves
    /// nothing.
    no_until: Option<Instant>,
    plain_until: Option<Instant>,
    /// Of what this run of the device's program has not answered.
    doubts: Option<Doubts>,
    /// Targets for which the device has taken no session.
    names: HashMap<StreamName, Instant>,
    /// Whether it is disabled, as far as is known, and when that was looked up.
    disabled: Option<(bool, Instant)>,
}

#[derive(Debug)]
struct Doubts {
    boot_id: Option<BootId>,
    until: Instant,
    next: Duration,
}

impl Known {
    fn boot_id(&self) -> Option<BootId> {
        self.report
            .and_then(|(report, _)| report)
            .map(|report| report.boot_id)
    }
}

impl SessionSupport {
    fn known(&self) -> MutexGuard<'_, Known> {
        lock(&self.0)
    }

    /// Whether the device is known to take plain streams only to this target.
    pub(super) fn is_plain(&self, name: &StreamName) -> bool {
        let known = self.known();
        let now = Instant::now();
        let doubts = known.doubts.as_ref().map(|doubts| doubts.until);
        let until = [known.no_until, known.plain_until, doubts];
        let of_name = known.names.get(name).map(|at| *at + NO);
        until
            .into_iter()
            .chain([of_name])
            .flatten()
            .any(|until| now < until)
    }

    /// The device's report was wrong: plain streams only, for an hour.
    fn mark_plain(&self) {
        self.known().plain_until = Some(Instant::now() + limits::SESSION_PLAIN);
    }

    /// The device has sent nothing: plain streams only, for a time that is returned. It grows
    /// with each such silence of the same run of the device's program.
    fn silent(&self) -> Duration {
        let mut known = self.known();
        let boot_id = known.boot_id();
        let before = known.doubts.as_ref().filter(|it| it.boot_id == boot_id);
        let time = before.map_or(DOUBT, |doubts| doubts.next);
        known.doubts = Some(Doubts {
            boot_id,
            until: Instant::now() + time,
            next: (2 * time).min(DOUBT_MOST),
        });
        // It may be another program's by now.
        known.report = None;
        time
    }

    /// The device takes sessions.
    pub(super) fn proven(&self) {
        let mut known = self.known();
        known.doubts = None;
        known.plain_until = None;
    }

    /// The device does not take a session to this target for now, whatever its twin reports.
    pub(super) fn doubt(&self, name: &StreamName) {
        let mut known = self.known();
        known.names.retain(|_, at| at.elapsed() < NO);
        known.names.insert(name.clone(), Instant::now());
        known.report = None;
    }

    /// Records why no session could be begun on a stream. Returns for how long connections use plain
    /// streams, if the twin's report was wrong.
    pub(super) fn judge(&self, name: &StreamName, error: &HandshakeError) -> Option<Duration> {
        match error {
            HandshakeError::Lost(_) | HandshakeError::Refused { .. } => self.doubt(name),
            HandshakeError::Closed(close_frame) if !close_frame.is_normal() => self.doubt(name),
            HandshakeError::Silent(_) => return Some(self.silent()),
            HandshakeError::Malformed(_)
            | HandshakeError::OutOfTurn
            | HandshakeError::Version { .. }
            | HandshakeError::Proof
            | HandshakeError::Closed(_) => {
                self.mark_plain();
                return Some(limits::SESSION_PLAIN);
            }
        }
        None
    }

    /// The device's report of session mode, if there is one. It is read from the hub, unless it was
    /// read lately; a twin that cannot be read counts as none. May be dropped.
    pub(super) async fn ask(
        &self,
        api: &HubApi,
        identity: &DeviceIdentity,
    ) -> Option<SessionReport> {
        if let Some((Some(report), at)) = self.known().report
            && at.elapsed() < YES
        {
            return Some(report);
        }
        self.read(api, identity).await.ok().flatten()
    }

    /// The report as it is now that the device has answered a stream request: its absence counts for
    /// a while. May be dropped.
    pub(super) async fn ask_again(
        &self,
        api: &HubApi,
        identity: &DeviceIdentity,
    ) -> Option<SessionReport> {
        let report = self.read(api, identity).await.ok()?;
        if report.is_none() {
            self.known().no_until = Some(Instant::now() + NO);
        }
        report
    }

    async fn read(
        &self,
        api: &HubApi,
        identity: &DeviceIdentity,
    ) -> Result<Option<SessionReport>, ()> {
        let report = match api.session_report(identity).await {
            Ok(report) => report.filter(|report| report.version >= u32::from(VERSION)),
            Err(error) => {
                log_about!(
                    debug,
                    About::device(identity),
                    "plain streams, since the twin cannot be read: {}",
                    report::chain(&error)
                );
                // Not remembered: the next connection may find a hub that answers.
                return Err(());
            }
        };
        self.known().report = Some((report, Instant::now()));
        Ok(report)
    }

    /// Whether the device, which could not be reached for so long, is disabled. The hub is asked from
    /// time to time, once for all sessions with the device; a twin that cannot be read means no. May
    /// be dropped.
    pub(super) async fn is_disabled(
        &self,
        api: &HubApi,
        identity: &DeviceIdentity,
        away_for: Duration,
    ) -> bool {
        if let Some(known) = self.known_status(away_for) {
            return known;
        }
        let is_disabled = match api.is_disabled(identity).await {
            Ok(is_disabled) => is_disabled,
            Err(error) => {
                log_about!(
                    debug,
                    About::device(identity),
                    "whether it is disabled is not known, since the twin cannot be read: {}",
                    report::chain(&error)
                );
                false
            }
        };
        self.known().disabled = Some((is_disabled, Instant::now()));
        is_disabled
    }

    /// What is known of the device's status; `None` if it is due to be read, which is then this
    /// caller's task alone.
    fn known_status(&self, away_for: Duration) -> Option<bool> {
        let pause = (away_for / STATUS_SHARE).clamp(STATUS_SHORTEST, STATUS_LONGEST);
        let mut known = self.known();
        if let Some((is_disabled, at)) = known.disabled
            && at.elapsed() < pause
        {
            return Some(is_disabled);
        }
        known.disabled = Some((false, Instant::now()));
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> StreamName {
        StreamName::parse(text).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_device_that_was_wrong_is_plain_for_an_hour() {
        let support = SessionSupport::default();
        let ssh = name("ssh");
        assert!(!support.is_plain(&ssh));
        support.mark_plain();
        tokio::time::advance(Duration::from_secs(3599)).await;
        assert!(support.is_plain(&ssh));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(!support.is_plain(&ssh));
        // What one target's session has met does not count for others.
        support.doubt(&ssh);
        assert!(support.is_plain(&ssh) && !support.is_plain(&name("rdp")));
        tokio::time::advance(NO).await;
        assert!(!support.is_plain(&ssh));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_a_doubt_that_passes_in_seconds_and_grows() {
        let support = SessionSupport::default();
        let ssh = name("ssh");
        let report = SessionReport {
            version: 1,
            boot_id: BootId::random(),
        };
        let reported = |report| support.known().report = Some((Some(report), Instant::now()));
        let mut times = Vec::new();
        for _ in 0..8 {
            reported(report);
            let time = support.silent();
            tokio::time::advance(time - Duration::from_millis(1)).await;
            assert!(support.is_plain(&ssh));
            tokio::time::advance(Duration::from_millis(1)).await;
            assert!(!support.is_plain(&ssh));
            times.push(time.as_secs());
        }
        assert_eq!(times, [5, 10, 20, 40, 80, 160, 300, 300]);
        // Another run of the program has not been silent yet; nor has one that answered.
        reported(SessionReport {
            boot_id: BootId::random(),
            ..report
        });
        assert_eq!(support.silent(), DOUBT);
        support.proven();
        assert!(!support.is_plain(&ssh));
        reported(report);
        assert_eq!(support.silent(), DOUBT);
    }

    #[tokio::test(start_paused = true)]
    async fn the_status_is_looked_at_ever_less_often() {
        let support = SessionSupport::default();
        let begun = Instant::now();
        let mut looks = Vec::new();
        // A request each second, for half an hour.
        while begun.elapsed() < Duration::from_secs(30 * 60) {
            if support.known_status(begun.elapsed()).is_none() {
                looks.push(Instant::now());
            }
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        let pauses: Vec<_> = looks.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!((looks[0], pauses[0]), (begun, STATUS_SHORTEST));
        assert!(pauses.is_sorted(), "{pauses:?}");
        assert_eq!(pauses.last(), Some(&STATUS_LONGEST));
        assert!(looks.len() < 50, "{}", looks.len());
        // What was read holds for all sessions, until the next read.
        support.known().disabled = Some((true, Instant::now()));
        assert_eq!(support.known_status(Duration::ZERO), Some(true));
        tokio::time::advance(STATUS_SHORTEST).await;
        assert_eq!(support.known_status(Duration::ZERO), None);
    }
}
