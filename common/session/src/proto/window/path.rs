//! The delay of an idle path, and how much longer a message takes now.

use std::time::{Duration, Instant};

use super::{BASE_LIFE, TARGET_QUEUE};

/// What an acknowledgement says of the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// From a message to its acknowledgement, without the time for which that was held back.
    pub round_trip: Duration,
    /// From the message to its arrival, in microseconds, by two clocks: only differences between
    /// two of these mean something. `None` from a peer that does not tell it.
    pub one_way: Option<i64>,
}

/// A path.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Path {
    /// The shortest round trip.
    round_trip: Option<Duration>,
    /// The shortest way to the peer.
    one_way: Option<i64>,
    /// When a message last took hardly longer.
    seen: Option<Instant>,
    /// By how much messages took longer although the queue was drained, and how often in a row.
    longer: (Duration, u8),
}

impl Path {
    /// The round trip without a queue.
    pub(super) fn base(&self) -> Option<Duration> {
        self.round_trip
    }

    /// How long the message has waited on its way to the peer. Where the peer does not tell when it
    /// arrived, the queue of the way back counts as well.
    pub(super) fn queue(&mut self, sample: Sample, now: Instant) -> Duration {
        let trip = sample.round_trip;
        let base = self.round_trip.map_or(trip, |known| known.min(trip));
        self.round_trip = Some(base);
        let queue = match sample.one_way {
            Some(way) => {
                let base = self.one_way.map_or(way, |known| known.min(way));
                self.one_way = Some(base);
                // The times are the peer's, and may be any.
                Duration::from_micros(way.abs_diff(base)).min(trip)
            }
            None => trip - base,
        };
        if queue < TARGET_QUEUE / 4 {
            self.seen = Some(now);
        }
        queue
    }

    /// Whether the idle path has not been seen for long.
    pub(super) fn is_old(&self, now: Instant) -> bool {
        self.seen.is_none_or(|seen| now - seen >= BASE_LIFE)
    }

    /// The idle path is looked at now.
    pub(super) fn is_looked_at(&mut self, now: Instant) {
        self.seen = Some(now);
    }

    /// Our own queue was drained, and there was no other.
    pub(super) fn is_confirmed(&mut self) {
        self.longer = (Duration::ZERO, 0);
    }

    /// Our own queue was drained, and messages still take longer by this time. If it is the same so
    /// many times in a row, the path has changed, and is as long as that from now on: true.
    pub(super) fn drained(&mut self, queue: Duration, times: u8) -> bool {
        let (known, seen) = self.longer;
        let is_same = seen > 0 && known.abs_diff(queue) < TARGET_QUEUE / 2;
        self.longer = if is_same {
            (known.min(queue), seen + 1)
        } else {
            (queue, 1)
        };
        let (queue, seen) = self.longer;
        if seen < times {
            return false;
        }
        self.is_confirmed();
        let longer = i64::try_from(queue.as_micros()).unwrap_or(i64::MAX);
        self.round_trip = self.round_trip.map(|base| base + queue);
        self.one_way = self.one_way.map(|base| base.saturating_add(longer));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRIP: Duration = Duration::from_millis(50);

    fn queue(path: &mut Path, one_way: Option<i64>, trip: Duration) -> Duration {
        let sample = Sample {
            round_trip: trip,
            one_way,
        };
        path.queue(sample, Instant::now())
    }

    #[test]
    fn the_queue_of_the_way_back_counts_only_where_the_peer_tells_no_time() {
        let (mut timed, mut untimed) = (Path::default(), Path::default());
        let later = TRIP + Duration::from_millis(20);
        assert_eq!(queue(&mut timed, Some(-7_000), TRIP), Duration::ZERO);
        assert_eq!(
            queue(&mut timed, Some(-4_000), later),
            Duration::from_millis(3)
        );
        assert_eq!(queue(&mut untimed, None, TRIP), Duration::ZERO);
        assert_eq!(queue(&mut untimed, None, later), later - TRIP);
    }

    /// The times come from the peer, and may be any.
    #[test]
    fn no_queue_is_longer_than_the_round_trip() {
        let mut path = Path::default();
        for way in [0, i64::MAX, i64::MIN, i64::MAX, -1, i64::MIN] {
            assert!(queue(&mut path, Some(way), TRIP) <= TRIP, "{way}");
            // The next message corrects what this has made of the base.
            assert_eq!(path.base(), Some(TRIP), "{way}");
            path.drained(TRIP, 1);
        }
    }

    /// What others leave in the queue differs from time to time; a longer path does not.
    #[test]
    fn a_path_is_longer_when_it_is_drained_several_times_with_the_same_result() {
        let mut path = Path::default();
        queue(&mut path, None, TRIP);
        let ms = Duration::from_millis;
        for longer in [20, 21, 40, 20, 20] {
            assert!(!path.drained(ms(longer), 3), "{longer}");
        }
        assert_eq!(path.base(), Some(TRIP));
        assert!(path.drained(ms(21), 3));
        assert_eq!(path.base(), Some(TRIP + ms(20)));
        assert!(!path.drained(ms(20), 3));
        assert!(!path.drained(ms(20), 3));
        path.is_confirmed();
        assert!(!path.drained(ms(20), 3));
    }
}
