//! How many bytes: what the streams of the hub, of a policy or of a device may move in a second and
//! in a day. All of it is atomic numbers, so that streams that share an account never wait for each
//! other.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::limits::{Limit, Share};

/// So long an account may be ahead of its rate.
const AHEAD: Duration = Duration::from_secs(1);

/// What the streams of one have moved, and may.
#[derive(Debug, Default)]
pub(super) struct Account {
    /// Bytes per second; zero: no limit.
    rate: AtomicU64,
    /// Bytes per day; zero: no limit.
    day: AtomicU64,
    /// When all that was taken is there by the rate, nanoseconds of the hub's clock.
    due: AtomicU64,
    /// Bytes of this day,
    used: AtomicU64,
    /// and so many of them are stored.
    stored: AtomicU64,
    /// Somebody was refused the rest of the day: what others have taken and give back is not spent.
    is_over: AtomicBool,
}

impl Account {
    /// From now on it may have so much.
    pub(super) fn set(&self, share: &Share) {
        self.rate.store(share.get(Limit::BytesPerSecond), Relaxed);
        let day = share.get(Limit::BytesPerDay);
        if self.day.swap(day, Relaxed) != day {
            self.is_over.store(false, Relaxed);
        }
    }

    /// Bytes per second, if that is limited.
    pub(super) fn rate(&self) -> Option<u64> {
        Some(self.rate.load(Relaxed)).filter(|rate| *rate > 0)
    }

    /// Whether there is any limit.
    pub(super) fn is_limited(&self) -> bool {
        self.rate().is_some() || self.day.load(Relaxed) > 0
    }

    /// Takes bytes by the rate, at this time of the hub's clock: so long they wait for their turn.
    pub(super) fn take(&self, bytes: u64, now: Duration) -> Duration {
        let Some(rate) = self.rate() else {
            return Duration::ZERO;
        };
        let cost = u128::from(bytes) * 1_000_000_000 / u128::from(rate);
        let cost = u64::try_from(cost).unwrap_or(u64::MAX);
        let now = nanos(now);
        let next = |due: u64| due.max(now).saturating_add(cost);
        let before = self
            .due
            .fetch_update(Relaxed, Relaxed, |due| Some(next(due)));
        let due = next(before.unwrap_or_else(|due| due));
        Duration::from_nanos(due - now).saturating_sub(AHEAD)
    }

    /// Takes bytes of the day; `false`: there are none left, and none were taken.
    pub(super) fn take_of_day(&self, bytes: u64) -> bool {
        let most = self.day.load(Relaxed);
        if most == 0 {
            return true;
        }
        let before = self.used.fetch_add(bytes, Relaxed);
        if before < most {
            return true;
        }
        self.give_back(bytes);
        self.is_over.store(true, Relaxed);
        self.used.fetch_max(most, Relaxed);
        false
    }

    /// What was taken of the day and not moved.
    pub(super) fn give_back(&self, bytes: u64) {
        if self.is_over.load(Relaxed) {
            return;
        }
        // It may have been another day.
        let less = |used: u64| Some(used.saturating_sub(bytes));
        let _ = self.used.fetch_update(Relaxed, Relaxed, less);
    }

    /// Whether nothing is left of the day.
    pub(super) fn is_used_up(&self) -> bool {
        let most = self.day.load(Relaxed);
        most > 0 && self.used.load(Relaxed) >= most
    }

    /// What was moved before, on this day.
    pub(super) fn add_stored(&self, bytes: u64) {
        self.used.fetch_add(bytes, Relaxed);
        self.stored.fetch_add(bytes, Relaxed);
    }

    /// What was moved on this day, if it is not stored.
    pub(super) fn unstored(&self) -> Option<u64> {
        let used = self.used.load(Relaxed);
        (used != self.stored.load(Relaxed)).then_some(used)
    }

    /// So much is stored.
    pub(super) fn set_stored(&self, bytes: u64) {
        self.stored.store(bytes, Relaxed);
    }

    /// A day begins.
    pub(super) fn begin_day(&self) {
        self.is_over.store(false, Relaxed);
        self.used.store(0, Relaxed);
        self.stored.store(0, Relaxed);
    }

    /// Whether it is as a new one would be.
    pub(super) fn is_fresh(&self, now: Duration) -> bool {
        self.due.load(Relaxed) <= nanos(now) && self.used.load(Relaxed) == 0
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(share: Share) -> Account {
        let account = Account::default();
        account.set(&share);
        account
    }

    #[test]
    fn a_second_ahead_and_then_by_the_rate() {
        let account = account(Share::NONE.with(Limit::BytesPerSecond, 1_000));
        let now = Duration::from_secs(100);
        assert_eq!(account.take(1_000, now), Duration::ZERO);
        assert_eq!(account.take(500, now), Duration::from_millis(500));
        assert_eq!(account.take(500, now), Duration::from_secs(1));
        // What is not used is not saved up for longer than that.
        let later = now + Duration::from_secs(3600);
        assert_eq!(account.take(1_000, later), Duration::ZERO);
        assert_eq!(account.take(1, later), Duration::from_millis(1));
        account.set(&Share::NONE);
        assert_eq!(account.take(u64::MAX, later), Duration::ZERO);
        assert!(!account.is_limited());
    }

    #[test]
    fn the_sum_of_all_takers_keeps_the_rate() {
        let account = account(Share::NONE.with(Limit::BytesPerSecond, 1_000_000));
        let (mut now, mut moved) = (Duration::ZERO, 0);
        while now < Duration::from_secs(20) {
            now += account.take(10_000, now);
            moved += 10_000;
        }
        assert!((20_900_000..=21_100_000).contains(&moved), "{moved}");
    }

    #[test]
    fn a_day_has_its_bytes_and_a_new_one_has_them_again() {
        let account = account(Share::NONE.with(Limit::BytesPerDay, 1_000));
        assert!(account.take_of_day(600) && !account.is_used_up());
        assert!(account.take_of_day(600) && account.is_used_up());
        assert_eq!(account.unstored(), Some(1_200));
        account.set_stored(1_200);
        assert_eq!(account.unstored(), None);
        account.give_back(300);
        assert_eq!(account.unstored(), Some(900));
        assert!(account.take_of_day(300));
        // Who is refused ends, and so do the others that come for more.
        assert!(!account.take_of_day(1));
        account.give_back(300);
        assert!(!account.take_of_day(1) && account.is_used_up());
        account.set(&Share::NONE.with(Limit::BytesPerDay, 2_000));
        assert!(account.take_of_day(1));
        account.begin_day();
        assert_eq!(account.unstored(), None);
        account.give_back(300);
        assert!(account.is_fresh(Duration::ZERO));
        account.add_stored(2_000);
        assert!(account.is_used_up() && account.unstored().is_none());
    }
}
