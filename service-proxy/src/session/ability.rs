//! Whether the device knows sessions: what its twin says, for a while, and what was
//! learnt when that was wrong. And whether it is disabled, when it is not there.

use std::sync::{Mutex, MutexGuard, PoisonError};

use common::identity::DeviceIdentity;
use common::limits;
use common::session::handshake::VERSION;
use common::wire::twin::SessionReport;
use tokio::time::{Duration, Instant};

use crate::hub_api::HubApi;

/// How long a yes is believed; if it is stale, that is noticed.
const YES: Duration = Duration::from_secs(300);
/// How long a no is: the device may be about to start.
const NO: Duration = Duration::from_secs(10);
/// Between two looks at whether a device that is away is disabled: a share of the time
/// that it was away already, within bounds.
const STATUS_SHARE: u32 = 4;
const STATUS_SHORTEST: Duration = Duration::from_secs(5);
const STATUS_LONGEST: Duration = Duration::from_secs(60);

/// What is known of one device.
#[derive(Debug, Default)]
pub(super) struct Ability(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    report: Option<(Option<SessionReport>, Instant)>,
    plain_until: Option<Instant>,
    /// Whether it is disabled, as far as is known, and when somebody looked.
    disabled: Option<(bool, Instant)>,
}

impl Ability {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the device is known to take plain streams only.
    pub(super) fn is_plain(&self) -> bool {
        let known = self.known();
        let now = Instant::now();
        let says_no = matches!(known.report, Some((None, at)) if now < at + NO);
        says_no || known.plain_until.is_some_and(|until| now < until)
    }

    /// The device was wrong about itself: plain streams only, for an hour.
    pub(super) fn mark_plain(&self) {
        self.known().plain_until = Some(Instant::now() + limits::SESSION_PLAIN);
    }

    /// The device does not take a session for now, whatever its twin says.
    pub(super) fn doubt(&self) {
        self.known().report = Some((None, Instant::now()));
    }

    /// What the device says of itself, if it says that it can. Asks the hub, unless it was
    /// asked lately. A twin that cannot be read means no.
    pub(super) async fn ask(
        &self,
        api: &HubApi,
        identity: &DeviceIdentity,
    ) -> Option<SessionReport> {
        if let Some((report, at)) = self.known().report {
            let life = if report.is_some() { YES } else { NO };
            if at.elapsed() < life {
                return report;
            }
        }
        let report = match api.session_report(identity).await {
            Ok(report) => report.filter(|report| report.version >= u32::from(VERSION)),
            Err(error) => {
                tracing::debug!(%identity, "plain streams, since the twin cannot be read: {}", common::report::chain(&error));
                // Not remembered: the next connection may find a hub that answers.
                return None;
            }
        };
        self.known().report = Some((report, Instant::now()));
        report
    }

    /// Whether the device, which was not to be reached for so long, is disabled. Asks the
    /// hub from time to time, whoever of the device's sessions comes first; a twin that
    /// cannot be read means no.
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
                tracing::debug!(%identity, "whether it is disabled is not known, since the twin cannot be read: {}", common::report::chain(&error));
                false
            }
        };
        self.known().disabled = Some((is_disabled, Instant::now()));
        is_disabled
    }

    /// What is known of the device's status; `None` when somebody shall look, which is
    /// the caller from then on.
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

    #[tokio::test(start_paused = true)]
    async fn a_device_that_was_wrong_is_plain_for_an_hour() {
        let ability = Ability::default();
        assert!(!ability.is_plain());
        ability.mark_plain();
        tokio::time::advance(Duration::from_secs(3599)).await;
        assert!(ability.is_plain());
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(!ability.is_plain());
        ability.doubt();
        assert!(ability.is_plain());
        tokio::time::advance(NO).await;
        assert!(!ability.is_plain());
    }

    #[tokio::test(start_paused = true)]
    async fn the_status_is_looked_at_ever_less_often() {
        let ability = Ability::default();
        let begun = Instant::now();
        let mut looks = Vec::new();
        // A request each second, for the usual grace of a session.
        while begun.elapsed() < limits::SESSION_GRACE {
            if ability.known_status(begun.elapsed()).is_none() {
                looks.push(Instant::now());
            }
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        let pauses: Vec<_> = looks.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!((looks[0], pauses[0]), (begun, STATUS_SHORTEST));
        assert!(pauses.is_sorted(), "{pauses:?}");
        assert_eq!(pauses.last(), Some(&STATUS_LONGEST));
        assert!(looks.len() < 50, "{}", looks.len());
        // What was found out holds for everybody, until the next look.
        ability.known().disabled = Some((true, Instant::now()));
        assert_eq!(ability.known_status(Duration::ZERO), Some(true));
        tokio::time::advance(STATUS_SHORTEST).await;
        assert_eq!(ability.known_status(Duration::ZERO), None);
    }
}
