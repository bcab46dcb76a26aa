//! How many bytes of a session may be in flight (`docs/session-protocol.md`, "Window"). No I/O and
//! no clock.
//!
//! The carrier's TCP and the hub would buffer far more than the path holds, and a keystroke would
//! wait behind all of it. So the window keeps the path full and little more: it grows while
//! acknowledgements arrive as fast as on an idle path, and settles where they arrive
//! [`TARGET_QUEUE`] later (the rule of FAST TCP: `window × (base + target) / round trip`, once a
//! round trip). While the delivery rate still grows, the delay is due to TCP's own window, and the
//! window does not settle.

use std::time::{Duration, Instant};

use crate::limits;

/// How much longer than on an idle path a byte may take in the steady state.
pub const TARGET_QUEUE: Duration = Duration::from_millis(5);
/// A measured round trip that is older than this no longer represents the idle path.
const BASE_LIFE: Duration = Duration::from_secs(10);
/// Round trips in a row that show a queue, at which the fast growth pauses.
const LATEST: usize = 4;
/// Rounds without a queue after which the path is considered wider, and the window grows.
const QUICK_ROUNDS: u8 = 3;
/// The part of the path's capacity that is used while the idle round trip is measured.
const DRAINED: f64 = 0.8;
/// Largest growth in one round, once the path was full.
const QUICK_GROWTH: f64 = 1.25;
/// Growth of the delivery rate from one round to the next that shows that TCP grows and the path is
/// not full (BBR uses the same number to detect the end of its startup).
const RISING: f64 = 1.25;

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
    /// The latest round trips, newest first.
    latest: [Option<Duration>; LATEST],
    /// When the round began.
    round_begin: Option<Instant>,
    /// The offset whose acknowledgement ends the round.
    round_end: u64,
    /// Bytes that were acknowledged in this round.
    delivered: u64,
    /// Bytes per second that were acknowledged in the last one.
    rate: f64,
    /// The window limited the sender in this round.
    limited: bool,
    /// In this round the queue is drained, to measure the idle path.
    probing: bool,
    /// Limit of the window while the queue is drained; afterwards it grows step by step, since a
    /// jump would cause a burst.
    ceiling: u64,
    /// The window was changed: the bytes that are acknowledged in this round were sent before.
    settling: bool,
}

impl Window {
    /// For a new carrier, on which the next byte has this offset.
    pub fn new(next: u64) -> Self {
        Self {
            size: limits::WINDOW_FIRST,
            fast: true,
            quick_rounds: 0,
            base: None,
            shortest: None,
            latest: [None; LATEST],
            round_begin: None,
            round_end: next,
            delivered: 0,
            rate: 0.0,
            limited: false,
            probing: false,
            ceiling: u64::MAX,
            settling: false,
        }
    }

    /// Bytes that may be in flight.
    pub fn size(&self) -> u64 {
        self.size.min(self.ceiling)
    }

    /// Bytes of one connection that may be sent in one piece: a small part of the window, so that
    /// others wait only briefly.
    pub fn chunk(&self) -> usize {
        let share = usize::try_from(self.size / 16).unwrap_or(usize::MAX);
        share.clamp(limits::CHUNK_LEAST, limits::CHUNK)
    }

    /// After how many bytes an acknowledgement is requested.
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

    /// `newly` bytes were acknowledged, up to the offset `acked`; `next` is the offset of the next
    /// byte to send; `round_trip` was measured with them.
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
            self.latest.rotate_right(1);
            if let Some(latest) = self.latest.first_mut() {
                *latest = Some(sample);
            }
            let is_base = |(base, at): (Duration, Instant)| {
                sample <= base || (self.probing && now - at >= BASE_LIFE)
            };
            if self.base.is_none_or(is_base) {
                self.base = Some((sample, now));
            }
        }
        self.delivered = self.delivered.saturating_add(newly);
        if !self.probing && self.ceiling < self.size {
            self.ceiling = self.ceiling.saturating_add(newly / 4);
            self.settling = true;
        } else if self.fast && self.limited && !self.has_recent_queue() {
            self.set(self.size.saturating_add(newly / 2));
        }
        if acked >= self.round_end && self.is_whole_round(now) {
            self.end_round(now);
            self.round_end = next;
        }
    }

    /// Whether the latest round trips all show a queue: longer than the burst that the growth
    /// itself causes.
    fn has_recent_queue(&self) -> bool {
        let Some((base, _)) = self.base else {
            return false;
        };
        let long = base + base / 4 + TARGET_QUEUE;
        self.latest
            .iter()
            .all(|sample| sample.is_some_and(|sample| sample >= long))
    }

    fn end_round(&mut self, now: Instant) {
        let was_limited = std::mem::take(&mut self.limited);
        let was_used = was_limited || self.delivered >= self.size / 2;
        let is_rising = self.rate_has_grown(now);
        let was_probing = std::mem::take(&mut self.probing);
        let (Some(shortest), Some((base, at))) = (self.shortest.take(), self.base) else {
            return;
        };
        if was_probing || std::mem::take(&mut self.settling) {
            return;
        }
        let queue = shortest.saturating_sub(base);
        // While the rate rises, TCP's window grows: bytes wait for that and not on the path, and
        // TCP grows no further than it is used. A window that was hardly used causes no queue.
        if queue >= TARGET_QUEUE && (is_rising || !was_used) {
            return;
        }
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
            // Drains the queue, but little of the path: refilling an empty path would cause a
            // burst, and thus a queue for all others.
            let share = base.as_secs_f64() / shortest.as_secs_f64().max(1e-6);
            let drained = (self.size as f64 * share.min(1.0) * DRAINED) as u64;
            drained
                .max(self.size / 4)
                .max(2 * limits::CHUNK_LEAST as u64)
        } else {
            u64::MAX
        };
    }

    /// Whether the round has lasted for a round trip. After a pause, as while waiting for credit,
    /// its end is acknowledged earlier, and a burst would look like a high rate.
    fn is_whole_round(&self, now: Instant) -> bool {
        match (self.round_begin, self.base) {
            (Some(begin), Some((base, _))) => now - begin >= base,
            _ => true,
        }
    }

    /// Whether the delivery rate has grown by [`RISING`] since the round before; begins the next
    /// round.
    fn rate_has_grown(&mut self, now: Instant) -> bool {
        let delivered = std::mem::take(&mut self.delivered);
        let Some(begin) = self.round_begin.replace(now) else {
            return true;
        };
        let rate = delivered as f64 / (now - begin).as_secs_f64().max(1e-6);
        let before = std::mem::replace(&mut self.rate, rate);
        rate >= RISING * before
    }

    fn set(&mut self, size: u64) {
        self.size = size.clamp(limits::WINDOW_LEAST, limits::WINDOW_MOST);
    }
}

#[cfg(test)]
mod tests;
