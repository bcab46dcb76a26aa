//! Whether the device knows sessions: what its twin says, for a while, and what was
//! learnt when that was wrong.

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

/// What is known of one device.
#[derive(Debug, Default)]
pub(super) struct Ability(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    report: Option<(Option<SessionReport>, Instant)>,
    plain_until: Option<Instant>,
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
}
