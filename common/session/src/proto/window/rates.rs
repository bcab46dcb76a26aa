//! Rounds, each from an acknowledgement to that of what was sent next, and how much was delivered in
//! them.

use std::time::{Duration, Instant};

use super::RISING;

/// Rounds that are remembered.
const ROUNDS: usize = 8;
/// The time after which the highest rate counts half.
const FADES: Duration = Duration::from_secs(10);

/// What was delivered in this round and in the last ones.
#[derive(Debug, Clone, Default)]
pub(super) struct Rates {
    /// When the round began.
    begin: Option<Instant>,
    /// Bytes that were acknowledged in it.
    delivered: u64,
    /// Bytes per second that were acknowledged in the last ones, newest first.
    last: [f64; ROUNDS],
    /// The most of what was usual.
    most: f64,
}

impl Rates {
    /// Bytes were acknowledged.
    pub(super) fn deliver(&mut self, bytes: u64) {
        self.delivered = self.delivered.saturating_add(bytes);
    }

    /// Whether the round has lasted for a round trip, if it is known. After a pause, as while
    /// waiting for credit, its end is acknowledged earlier, and a burst would look like a high rate.
    pub(super) fn is_whole_round(&self, round_trip: Option<Duration>, now: Instant) -> bool {
        match (self.begin, round_trip) {
            (Some(begin), Some(round_trip)) => now - begin >= round_trip,
            _ => true,
        }
    }

    /// Ends a round and begins the next: the bytes that were delivered, and whether the rate has
    /// grown by [`RISING`] since the round before.
    pub(super) fn end_round(&mut self, now: Instant) -> (u64, bool) {
        let delivered = std::mem::take(&mut self.delivered);
        let Some(begin) = self.begin.replace(now) else {
            return (delivered, true);
        };
        let rate = delivered as f64 / (now - begin).as_secs_f64().max(1e-6);
        let before = self.latest();
        self.last.rotate_right(1);
        if let Some(latest) = self.last.first_mut() {
            *latest = rate;
        }
        let faded = self.most * 0.5_f64.powf((now - begin).as_secs_f64() / FADES.as_secs_f64());
        self.most = faded.max(self.usual());
        (delivered, rate >= RISING * before)
    }

    /// The highest usual rate, of which half is forgotten in [`FADES`].
    pub(super) fn most(&self) -> f64 {
        self.most
    }

    /// Bytes per second of the last round.
    pub(super) fn latest(&self) -> f64 {
        self.last.first().copied().unwrap_or_default()
    }

    /// Bytes per second of the fastest of the last rounds but one.
    pub(super) fn best(&self) -> f64 {
        self.fastest_first().get(1).copied().unwrap_or_default()
    }

    /// Bytes per second of a usual one of the last rounds: after a loss nothing is acknowledged for
    /// a while, and then much at once.
    pub(super) fn usual(&self) -> f64 {
        let last = self.fastest_first();
        let known = last.iter().filter(|rate| **rate > 0.0).count();
        last.get(known / 2).copied().unwrap_or_default()
    }

    fn fastest_first(&self) -> [f64; ROUNDS] {
        let mut last = self.last;
        last.sort_unstable_by(|a, b| b.total_cmp(a));
        last
    }
}
