//! How often: rates of what is counted, each for keys of one kind (the hub, policies, devices).
//! A key that does nothing for some seconds is forgotten.

use std::hash::Hash;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use tokio::time::Instant;

use crate::limits::{Limit, Share};

/// For so long a key may do at once what it may do in the long run: a fleet comes back after an
/// outage all at once, and then is quiet.
const BURST: u32 = 10;
/// Keys of one rate. When there are more within seconds, only the limits of what is above them
/// count for the rest.
const KEYS: usize = 65_536;

/// The clock that timers go by.
#[derive(Debug, Clone, Copy)]
pub(super) struct TokioClock;

impl Clock for TokioClock {
    type Instant = std::time::Instant;

    fn now(&self) -> Self::Instant {
        Instant::now().into_std()
    }
}

type Limiter<K, C> = RateLimiter<K, HashMapStateStore<K>, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// The rates of one kind of key.
pub(super) struct Rates<K: Hash + Eq + Clone, C: Clock + Clone = TokioClock> {
    /// What they are by.
    share: Share,
    clock: C,
    limiters: Vec<(Limit, Limiter<K, C>)>,
}

impl<K: Hash + Eq + Clone> Rates<K> {
    /// These, and nothing has been so far.
    pub(super) fn new(share: Share) -> Self {
        Self::by(TokioClock, share)
    }
}

impl<K: Hash + Eq + Clone, C: Clock + Clone> Rates<K, C> {
    fn by(clock: C, share: Share) -> Self {
        let limiter = |limit: Limit| {
            let quota = quota(share.most(limit)?, limit.period()?)?;
            let limiter = RateLimiter::hashmap_with_clock(quota, clock.clone());
            Some((limit, limiter))
        };
        Self {
            limiters: Limit::ALL.into_iter().filter_map(limiter).collect(),
            share,
            clock,
        }
    }

    /// What they are by.
    pub(super) fn share(&self) -> &Share {
        &self.share
    }

    /// Counts one more of this key.
    ///
    /// # Errors
    /// After so long there may be another one; nothing is counted then.
    pub(super) fn check(&self, limit: Limit, key: &K) -> Result<(), Duration> {
        let mut limiters = self.limiters.iter();
        let Some((_, limiter)) = limiters.find(|(of, _)| *of == limit) else {
            return Ok(());
        };
        if limiter.len() >= KEYS {
            // In between they are trimmed every few seconds.
            return Ok(());
        }
        let checked = limiter.check_key(key);
        checked.map_err(|not_until| not_until.wait_time_from(self.clock.now()))
    }

    /// Forgets the keys that may do again all that they ever may.
    pub(super) fn trim(&self) {
        for (_, limiter) in &self.limiters {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
    }
}

/// So many in this time, and [`BURST`] seconds' of them at once; of what is counted by the minute,
/// a minute's.
fn quota(most: u64, period: Duration) -> Option<Quota> {
    let most = u32::try_from(most).unwrap_or(u32::MAX);
    let burst = match period.as_secs() {
        1 => most.saturating_mul(BURST),
        _ => most,
    };
    let one = period.checked_div(most)?.max(Duration::from_nanos(1));
    Some(Quota::with_period(one)?.allow_burst(NonZeroU32::new(burst)?))
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    fn rates(share: Share) -> (FakeRelativeClock, Rates<u32, FakeRelativeClock>) {
        let clock = FakeRelativeClock::default();
        (clock.clone(), Rates::by(clock, share))
    }

    fn free(rates: &Rates<u32, FakeRelativeClock>, limit: Limit, key: u32) -> usize {
        (0..10_000)
            .take_while(|_| rates.check(limit, &key).is_ok())
            .count()
    }

    #[test]
    fn a_burst_then_a_rate_and_others_are_not_disturbed() {
        let (clock, rates) = rates(Share::NONE.with(Limit::Initiations, 5));
        assert_eq!(free(&rates, Limit::Initiations, 1), 50);
        let wait = rates.check(Limit::Initiations, &1).unwrap_err();
        assert_eq!(wait, Duration::from_millis(200));
        assert_eq!(free(&rates, Limit::Initiations, 2), 50);
        clock.advance(Duration::from_secs(1));
        assert_eq!(free(&rates, Limit::Initiations, 1), 5);
        // Without a number there is no limit.
        assert_eq!(free(&rates, Limit::Methods, 1), 10_000);
    }

    #[test]
    fn what_is_counted_by_the_minute_comes_back_one_by_one() {
        let (clock, rates) = rates(Share::NONE.with(Limit::Connects, 6));
        assert_eq!(free(&rates, Limit::Connects, 1), 6);
        let wait = rates.check(Limit::Connects, &1).unwrap_err();
        assert_eq!(wait, Duration::from_secs(10));
        clock.advance(wait);
        assert_eq!(free(&rates, Limit::Connects, 1), 1);
    }

    #[test]
    fn keys_are_bounded_and_forgotten() {
        let (clock, rates) = rates(Share::NONE.with(Limit::Initiations, 1));
        let keys = u32::try_from(KEYS).unwrap();
        for key in 0..keys + 1_000 {
            rates.check(Limit::Initiations, &key).unwrap();
        }
        let len = |rates: &Rates<u32, FakeRelativeClock>| rates.limiters[0].1.len();
        assert_eq!(len(&rates), KEYS);
        rates.trim();
        assert_eq!(len(&rates), KEYS, "all of them are recent");
        clock.advance(Duration::from_secs(2));
        rates.trim();
        assert_eq!(len(&rates), 0);
    }

    #[test]
    fn any_number_is_a_rate() {
        for most in [1, 3, 1_000_000, u64::from(u32::MAX), u64::MAX] {
            assert!(quota(most, Duration::from_secs(1)).is_some(), "{most}");
            assert!(quota(most, Duration::from_secs(60)).is_some(), "{most}");
        }
        assert!(quota(0, Duration::from_secs(1)).is_none());
    }
}
