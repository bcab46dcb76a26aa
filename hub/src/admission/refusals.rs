//! Refusals cost their sender something: a connection that is refused again and again is
//! answered later and later and then closed, and an address that keeps coming back for more is
//! answered late from the start.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use common::network::Network;
use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};

/// So many refusals on one connection are answered at once: a token that has just expired, or
/// a program that tries its two keys.
const AT_ONCE: u32 = 3;
/// The answer after so many is the connection's last.
const LAST: u32 = 7;
/// The first delay; each further one is twice as long.
const FIRST_DELAY: Duration = Duration::from_millis(125);
/// How late an address is answered that is refused too often.
const DELAY: Duration = Duration::from_secs(1);
/// Addresses that are remembered; more share one memory.
const SOURCES: usize = 4_096;

/// What a refusal does to its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Keep,
    /// It ends with this answer.
    Close,
}

type Limiter<C> =
    RateLimiter<Network, HashMapStateStore<Network>, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// Whether an address may once more. Those that cannot be remembered share one memory.
fn may<C: Clock>(limiter: &Limiter<C>, source: Network) -> bool {
    if limiter.len() >= SOURCES {
        limiter.retain_recent();
    }
    let source = if limiter.len() >= SOURCES {
        Network::UNSPECIFIED
    } else {
        source
    };
    limiter.check_key(&source).is_ok()
}

/// How long the answer waits to a connection that was answered so before, so many times in a row.
pub(super) fn delay(before: u32) -> Duration {
    match before.checked_sub(AT_ONCE) {
        None => Duration::ZERO,
        Some(more) => FIRST_DELAY.saturating_mul(1 << more.min(8)).min(DELAY),
    }
}

/// The refusals of late, by address.
pub struct Refusals<C: Clock = MonotonicClock>(Limiter<C>);

impl Refusals {
    /// None yet. An address may have `burst` in a row, and so many a second in the long run.
    pub fn new(burst: NonZeroU32, per_second: NonZeroU32) -> Self {
        Self::by(MonotonicClock, burst, per_second)
    }
}

impl<C: Clock> Refusals<C> {
    fn by(clock: C, burst: NonZeroU32, per_second: NonZeroU32) -> Self {
        let quota = Quota::per_second(per_second).allow_burst(burst);
        Self(RateLimiter::hashmap_with_clock(quota, clock))
    }

    /// One more, on a connection that was refused so many times before: how long the answer
    /// waits, and what comes of the connection.
    pub fn judge(&self, source: Network, before: u32) -> (Duration, Verdict) {
        if !may(&self.0, source) {
            return (DELAY, Verdict::Close);
        }
        let delay = delay(before);
        let verdict = if before + 1 >= LAST {
            Verdict::Close
        } else {
            Verdict::Keep
        };
        (delay, verdict)
    }
}

impl<C: Clock> fmt::Debug for Refusals<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Refusals")
    }
}

/// Addresses that did something of late: it is worth a line once.
pub struct FirstTime<C: Clock = MonotonicClock>(Limiter<C>);

impl FirstTime {
    /// None yet.
    pub fn new() -> Self {
        Self::by(MonotonicClock)
    }
}

impl<C: Clock> FirstTime<C> {
    fn by(clock: C) -> Self {
        let once = Quota::per_hour(NonZeroU32::MIN);
        Self(RateLimiter::hashmap_with_clock(once, clock))
    }

    /// Whether it does so for the first time within an hour.
    pub fn is_first(&self, source: Network) -> bool {
        may(&self.0, source)
    }
}

impl<C: Clock> fmt::Debug for FirstTime<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FirstTime")
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use governor::clock::FakeRelativeClock;

    use super::*;

    const BURST: NonZeroU32 = NonZeroU32::new(100).unwrap();
    const PER_SECOND: NonZeroU32 = NonZeroU32::new(2).unwrap();

    fn source(number: u32) -> Network {
        Network::of(IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + number)))
    }

    #[test]
    fn a_connection_is_answered_later_and_later_and_then_closed() {
        let refusals = Refusals::by(FakeRelativeClock::default(), BURST, PER_SECOND);
        let all: Vec<_> = (0..LAST)
            .map(|before| refusals.judge(source(1), before))
            .collect();
        let delays: Vec<_> = all.iter().map(|(delay, _)| delay.as_millis()).collect();
        assert_eq!(delays, [0, 0, 0, 125, 250, 500, 1000]);
        let (last, others) = all.split_last().unwrap();
        assert!(others.iter().all(|(_, verdict)| *verdict == Verdict::Keep));
        assert_eq!(last.1, Verdict::Close);
    }

    #[test]
    fn an_address_that_comes_again_and_again_waits_and_others_do_not() {
        let clock = FakeRelativeClock::default();
        let refusals = Refusals::by(clock.clone(), BURST, PER_SECOND);
        let free = (0..1000)
            .filter(|_| refusals.judge(source(1), 0) == (Duration::ZERO, Verdict::Keep))
            .count();
        assert_eq!(free, BURST.get() as usize);
        assert_eq!(refusals.judge(source(1), 0), (DELAY, Verdict::Close));
        assert_eq!(
            refusals.judge(source(2), 0),
            (Duration::ZERO, Verdict::Keep)
        );
        clock.advance(Duration::from_secs(1));
        let free = (0..10)
            .filter(|_| refusals.judge(source(1), 0).0.is_zero())
            .count();
        assert_eq!(free, PER_SECOND.get() as usize);
    }

    #[test]
    fn so_many_addresses_are_remembered_and_no_more() {
        let clock = FakeRelativeClock::default();
        let refusals = Refusals::by(clock.clone(), BURST, PER_SECOND);
        for number in 0..100_000 {
            let _ = refusals.judge(source(number), 0);
        }
        assert!(refusals.0.len() <= SOURCES + 1);
        // What is long ago makes room.
        clock.advance(Duration::from_secs(60));
        let _ = refusals.judge(source(1), 0);
        assert!(refusals.0.len() <= 2);
    }

    #[test]
    fn the_first_time_is_once_an_hour() {
        let clock = FakeRelativeClock::default();
        let first = FirstTime::by(clock.clone());
        assert!(first.is_first(source(1)));
        assert!(!first.is_first(source(1)));
        assert!(first.is_first(source(2)));
        clock.advance(Duration::from_secs(3600));
        assert!(first.is_first(source(1)));
    }
}
