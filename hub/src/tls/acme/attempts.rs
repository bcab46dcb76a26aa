//! When to ask the CA, and what of its failures is news. No I/O and no clock.

use std::time::Duration;

use common::backoff::Backoff;
use time::OffsetDateTime;

/// Attempts while the CA cannot be reached.
const AWAY: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(3600)];
/// Attempts after a refusal. Let's Encrypt allows 5 failed validations per hour.
const REFUSED: [Duration; 2] = [Duration::from_secs(150), Duration::from_secs(12 * 3600)];
/// A failure that lasts is news again after this long.
const REMINDER: time::Duration = time::Duration::days(1);

/// From when to when a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// Its begin.
    pub not_before: OffsetDateTime,
    /// Its end.
    pub not_after: OffsetDateTime,
}

impl Validity {
    /// When to renew: after two thirds of its life, or up to a 24th of it before; `spread`, 0 to
    /// 255, says how much, so that not all hubs of a CA come at once.
    pub fn renewal(&self, spread: u8) -> OffsetDateTime {
        let life = self.not_after - self.not_before;
        self.not_before + life * 2 / 3 - life * i32::from(spread) / (24 * 255)
    }

    /// How long it is valid.
    pub fn life(&self) -> Duration {
        Duration::try_from(self.not_after - self.not_before).unwrap_or_default()
    }

    /// The latest time at which to renew, whatever the CA says: after five sixths of its life.
    pub fn latest_renewal(&self) -> OffsetDateTime {
        self.not_after - (self.not_after - self.not_before) / 6
    }

    /// Whether clients refuse it for its age.
    pub fn is_over(&self, now: OffsetDateTime) -> bool {
        now >= self.not_after
    }
}

/// Attempts that have failed in a row.
#[derive(Debug)]
pub struct Attempts {
    away: Backoff,
    refused: Backoff,
    /// What the last one failed of, and when that was news.
    known: Option<(String, OffsetDateTime)>,
}

impl Default for Attempts {
    fn default() -> Self {
        let [away, refused] = [AWAY, REFUSED].map(|[first, last]| Backoff::new(first, last));
        Self {
            away,
            refused,
            known: None,
        }
    }
}

/// What to do after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Again {
    /// Try again after this long.
    pub delay: Duration,
    /// Report it: it is another failure than before, or it has lasted.
    pub is_news: bool,
}

impl Attempts {
    /// One has failed of `kind`; `pause` is what the CA wants us to wait.
    pub fn failed(
        &mut self,
        kind: &str,
        is_refusal: bool,
        pause: Option<Duration>,
        now: OffsetDateTime,
    ) -> Again {
        let backoff = if is_refusal {
            &mut self.refused
        } else {
            &mut self.away
        };
        let delay = backoff.next_delay().max(pause.unwrap_or_default());
        let is_news = match &self.known {
            Some((known, since)) => known != kind || now - *since >= REMINDER,
            None => true,
        };
        if is_news {
            self.known = Some((kind.to_owned(), now));
        }
        Again { delay, is_news }
    }

    /// Whether none has failed.
    pub fn is_first(&self) -> bool {
        self.known.is_none()
    }

    /// One has succeeded.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + time::Duration::seconds(seconds)
    }

    #[test]
    fn renewal_is_due_after_two_thirds_of_the_life_or_a_little_before() {
        for life in [24, 24 * 3600, 90 * 86_400] {
            let validity = Validity {
                not_before: at(1000),
                not_after: at(1000 + life),
            };
            let latest = validity.renewal(0);
            assert_eq!(latest, at(1000 + life * 2 / 3));
            assert_eq!(
                latest - validity.renewal(255),
                time::Duration::seconds(life / 24)
            );
            assert!(
                validity.renewal(100) < latest && validity.renewal(100) > validity.renewal(200)
            );
            assert!(!validity.is_over(at(999 + life)) && validity.is_over(at(1000 + life)));
        }
    }

    #[test]
    fn a_failure_is_news_once_until_it_changes_or_lasts() {
        let mut attempts = Attempts::default();
        let mut news = |kind, now| attempts.failed(kind, false, None, at(now)).is_news;
        assert!(news("away", 0));
        assert!(!news("away", 60));
        assert!(news("refused", 120));
        assert!(news("away", 180));
        assert!(!news("away", 180 + 86_399));
        assert!(news("away", 180 + 86_400));
        assert!(!news("away", 180 + 86_401));
        attempts.succeeded();
        assert!(attempts.failed("away", false, None, at(0)).is_news);
    }

    #[test]
    fn the_ca_says_how_long_to_wait_and_refusals_have_longer_pauses() {
        let mut attempts = Attempts::default();
        let mut delay = |is_refusal, pause: Option<u64>| {
            let pause = pause.map(Duration::from_secs);
            attempts.failed("f", is_refusal, pause, at(0)).delay
        };
        assert!(delay(false, None) < Duration::from_secs(11));
        assert!(delay(true, None) >= Duration::from_secs(150));
        assert_eq!(delay(false, Some(90_000)), Duration::from_secs(90_000));
        // Five refusals take more than an hour.
        let refusals = (0..4).map(|_| delay(true, Some(0))).sum::<Duration>();
        assert!(refusals >= Duration::from_secs(3600), "{refusals:?}");
    }
}
