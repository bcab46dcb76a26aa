//! How many bytes of a session may be on their way at once (`docs/session-protocol.md`,
//! "Window"). No I/O and no clock.
//!
//! The carrier's TCP would take far more than the path holds, and so would the hub: all of
//! it would stand between a keystroke and the other end. So the window is sized to keep
//! the path full and little more: it grows while acknowledgements come as fast as on an
//! idle path, and settles where they come [`TARGET_QUEUE`] later (the rule of FAST TCP:
//! `window × (base + target) / round trip`, once a round trip).

use std::time::Duration;

use tokio::time::Instant;

use crate::limits;

/// How much longer than on an idle path a byte may be under way in the steady state.
pub const TARGET_QUEUE: Duration = Duration::from_millis(5);
/// A round trip that is older than this is no proof of what an idle path takes.
const BASE_LIFE: Duration = Duration::from_secs(10);
/// Rounds without a queue after which the path has become wider, and the window follows.
const QUICK_ROUNDS: u8 = 3;
/// Growth in one round at most, once the path was full.
const QUICK_GROWTH: f64 = 1.25;

/// How much of what the path itself holds is left on it to see it idle.
const DRAINED: f64 = 0.8;

/// The window of one direction of a session.
#[derive(Debug, Clone)]
pub struct Window {
    size: u64,
    /// Grows by all that is acknowledged.
    fast: bool,
    quick_rounds: u8,
    /// Shortest round trip, and when it was measured.
    base: Option<(Duration, Instant)>,
    /// Shortest round trip of this round.
    shortest: Option<Duration>,
    /// Place whose acknowledgement ends the round.
    round_end: u64,
    /// The window was what held the sender back in this round.
    limited: bool,
    /// In this round the queue is drained, to see the idle path.
    probing: bool,
    /// What is left of the window while it is drained, and until it is full again: not
    /// at once, which would be a burst.
    ceiling: u64,
    /// The window was changed: what is acknowledged in this round was sent before.
    settling: bool,
}

impl Window {
    /// For a fresh carrier, on which the next byte has this place.
    pub fn new(next: u64) -> Self {
        Self {
            size: limits::SESSION_WINDOW_FIRST,
            fast: true,
            quick_rounds: 0,
            base: None,
            shortest: None,
            round_end: next,
            limited: false,
            probing: false,
            ceiling: u64::MAX,
            settling: false,
        }
    }

    /// Bytes that may be on their way.
    pub fn size(&self) -> u64 {
        self.size.min(self.ceiling)
    }

    /// Bytes of one connection that may be sent at once: small against the window, so that
    /// others need not wait long.
    pub fn chunk(&self) -> usize {
        let share = usize::try_from(self.size / 16).unwrap_or(usize::MAX);
        share.clamp(limits::SESSION_CHUNK_LEAST, limits::SESSION_CHUNK)
    }

    /// After how many bytes an acknowledgement is wanted.
    pub fn ack_every(&self) -> u64 {
        self.size() / 16
    }

    /// The shortest round trip that was measured on this carrier.
    pub fn round_trip(&self) -> Option<Duration> {
        self.base.map(|(base, _)| base)
    }

    /// The sender has more, and the window is full.
    pub fn is_limiting(&mut self) {
        self.limited = true;
    }

    /// `newly` bytes were acknowledged, up to the place `acked`; `next` is the place of the
    /// next byte to send; `round_trip` was measured with them.
    pub fn acknowledged(
        &mut self,
        newly: u64,
        acked: u64,
        next: u64,
        round_trip: Option<Duration>,
        now: Instant,
    ) {
        if let Some(sample) = round_trip {
            self.shortest = Some(self.shortest.map_or(sample, |known| known.min(sample)));
            let is_base = |(base, at): (Duration, Instant)| {
                sample <= base || (self.probing && now - at >= BASE_LIFE)
            };
            if self.base.is_none_or(is_base) {
                self.base = Some((sample, now));
            }
        }
        if !self.probing && self.ceiling < self.size {
            self.ceiling = self.ceiling.saturating_add(newly / 4);
            self.settling = true;
        } else if self.fast && self.limited {
            self.set(self.size.saturating_add(newly));
        }
        if acked >= self.round_end {
            self.end_round(now);
            self.round_end = next;
        }
    }

    fn end_round(&mut self, now: Instant) {
        let was_limited = std::mem::take(&mut self.limited);
        let was_probing = std::mem::take(&mut self.probing);
        let (Some(shortest), Some((base, at))) = (self.shortest.take(), self.base) else {
            return;
        };
        if was_probing || std::mem::take(&mut self.settling) {
            return;
        }
        let queue = shortest.saturating_sub(base);
        if queue >= TARGET_QUEUE {
            self.fast = false;
            self.quick_rounds = 0;
        } else if queue < TARGET_QUEUE / 4 && was_limited && !self.fast {
            self.quick_rounds = self.quick_rounds.saturating_add(1);
        } else {
            self.quick_rounds = 0;
        }
        if !self.fast && (was_limited || queue > TARGET_QUEUE) {
            let wanted = (base + TARGET_QUEUE).as_secs_f64();
            let steady = wanted / shortest.as_secs_f64().max(1e-6);
            let factor = if self.quick_rounds >= QUICK_ROUNDS {
                self.quick_rounds = 0;
                steady.max(QUICK_GROWTH)
            } else {
                steady
            };
            // Exact to a byte in a window of 16 MiB.
            self.set((self.size as f64 * factor.clamp(0.5, QUICK_GROWTH)) as u64);
            self.settling = true;
        }
        self.probing = was_limited && now - at >= BASE_LIFE;
        self.ceiling = if self.probing {
            // Empties the queue and little of the path: the hole is a burst when it is
            // filled, and stands as a queue in front of all others then.
            let share = base.as_secs_f64() / shortest.as_secs_f64().max(1e-6);
            let drained = (self.size as f64 * share.min(1.0) * DRAINED) as u64;
            drained
                .max(self.size / 4)
                .max(2 * limits::SESSION_CHUNK_LEAST as u64)
        } else {
            u64::MAX
        };
    }

    fn set(&mut self, size: u64) {
        self.size = size.clamp(limits::SESSION_WINDOW_LEAST, limits::SESSION_WINDOW_MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sender that always has more, on a path with a bottleneck: times in microseconds.
    struct Path {
        window: Window,
        rate: f64,
        idle: f64,
        free_at: f64,
        next: u64,
        acked: u64,
        under_way: std::collections::VecDeque<(f64, f64, u64)>,
        now: f64,
        start: Instant,
    }

    impl Path {
        fn new(mbit: f64, idle_ms: f64) -> Self {
            Self {
                window: Window::new(0),
                rate: mbit / 8.0,
                idle: idle_ms * 1000.0,
                free_at: 0.0,
                next: 0,
                acked: 0,
                under_way: Default::default(),
                now: 0.0,
                start: Instant::now(),
            }
        }

        /// Runs for some seconds; bytes per microsecond, and the longest queue in ms seen
        /// in the last half.
        fn run(&mut self, seconds: f64) -> (f64, f64) {
            let (begin, first) = (self.now, self.acked);
            let mut longest: f64 = 0.0;
            while self.now < begin + seconds * 1e6 {
                while self.next - self.acked < self.window.size() {
                    let chunk = self.window.chunk() as u64;
                    self.free_at = self.free_at.max(self.now) + chunk as f64 / self.rate;
                    self.next += chunk;
                    self.under_way
                        .push_back((self.free_at + self.idle, self.now, self.next));
                }
                self.window.is_limiting();
                let (at, sent, place) = self.under_way.pop_front().unwrap();
                self.now = at;
                let newly = place - self.acked;
                self.acked = place;
                let trip = Duration::from_micros((at - sent) as u64);
                if self.now > begin + seconds * 5e5 {
                    longest = longest.max((at - sent - self.idle) / 1000.0);
                }
                let now = self.start + Duration::from_micros(self.now as u64);
                self.window
                    .acknowledged(newly, place, self.next, Some(trip), now);
            }
            let rate = (self.acked - first) as f64 / (self.now - begin);
            (rate, longest)
        }
    }

    #[test]
    fn fills_the_path_and_not_its_queues() {
        for (mbit, idle) in [(10.0, 50.0), (100.0, 50.0), (100.0, 5.0), (1000.0, 50.0)] {
            let mut path = Path::new(mbit, idle);
            path.run(3.0);
            let (rate, queue) = path.run(30.0);
            assert!(rate > 0.9 * path.rate, "{mbit} Mbit/s, {idle} ms: {rate}");
            assert!(queue < 25.0, "{mbit} Mbit/s, {idle} ms: {queue} ms");
        }
    }

    #[test]
    fn a_long_fat_path_is_filled_within_the_limit() {
        let mut path = Path::new(1000.0, 120.0);
        path.run(5.0);
        let (rate, _) = path.run(10.0);
        assert!(rate > 0.8 * path.rate, "{rate}");
        assert!(path.window.size() <= limits::SESSION_WINDOW_MOST);
    }

    #[test]
    fn a_slow_path_keeps_the_least_window() {
        let mut path = Path::new(1.0, 20.0);
        path.run(20.0);
        assert_eq!(path.window.size, limits::SESSION_WINDOW_LEAST);
        assert!(path.window.chunk() < 8192);
    }

    #[test]
    fn a_path_that_becomes_longer_is_learnt() {
        let mut path = Path::new(100.0, 10.0);
        path.run(5.0);
        path.idle = 80_000.0;
        path.run(60.0);
        let (rate, _) = path.run(10.0);
        assert!(rate > 0.8 * path.rate, "{rate}");
    }

    #[test]
    fn an_idle_sender_learns_nothing_from_its_silence() {
        let start = Instant::now();
        let mut window = Window::new(0);
        let before = window.size();
        for place in 1..100 {
            let trip = Some(Duration::from_millis(1));
            window.acknowledged(1, place, place, trip, start);
        }
        assert_eq!(window.size(), before);
    }
}
