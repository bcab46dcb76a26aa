//! Rounds, each from an acknowledgement to that of what was sent next, and how much was delivered in
//! them.

use std::time::{Duration, Instant};

use super::RISING;

/// Rounds that are remembered.
const ROUNDS: usize = 8;

/// What was delivered in this round and in the last ones.
#[derive(Debug, Clone, Default)]
pub(super) struct Rates {
    /// When the round began.
    begin: Option<Instant>,
    /// Bytes that were acknowledged in it.
    delivered: u64,
    /// Bytes per second that were acknowledged in the last ones, newest first.
    last: [f64; ROUNDS],
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
        (delivered, rate >= RISING * before)
    }

    /// Bytes per second of the last round.
    pub(super) fn latest(&self) -> f64 {
        self.last.first().copied().unwrap_or_default()
    }

    /// Bytes per second of the fastest of the last rounds.
    pub(super) fn best(&self) -> f64 {
        self.last.iter().copied().fold(0.0, f64::max)
    }
}
