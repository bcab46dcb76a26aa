//! One direction of a simulated carrier. Times are microseconds.

use std::collections::VecDeque;

use bytes::Bytes;

use super::Choices;

/// Delivers bytes with a delay, in other pieces than they were sent, until it breaks.
#[derive(Debug)]
pub(super) struct Link {
    latency: u64,
    /// Bytes per millisecond.
    rate: u64,
    /// The longest queue before the bottleneck, as in a socket's buffer.
    buffer: u64,
    busy_until: u64,
    pieces: VecDeque<(u64, Bytes)>,
    lost_at: Option<u64>,
    is_dead: bool,
}

impl Link {
    /// A link that never delivers anything.
    pub(super) fn dead() -> Self {
        Self {
            latency: 0,
            rate: 1_000,
            buffer: 1_000_000,
            busy_until: 0,
            pieces: VecDeque::new(),
            lost_at: None,
            is_dead: true,
        }
    }

    pub(super) fn new(choices: &mut Choices<'_>) -> Self {
        Self {
            latency: [0, 500, 5_000, 40_000, 300_000][choices.below(5) as usize],
            rate: [100_000, 10_000, 1_000, 100][choices.below(4) as usize],
            buffer: [1_000, 0, 20_000, 300_000][choices.below(4) as usize],
            is_dead: false,
            ..Self::dead()
        }
    }

    pub(super) fn has_room(&self, now: u64) -> bool {
        self.busy_until <= now + self.buffer
    }

    /// When something happens next: a piece arrives, the link ends, or a sender has room.
    pub(super) fn next_event(&self, now: u64) -> Option<u64> {
        let room = (!self.has_room(now)).then(|| self.busy_until - self.buffer);
        let piece = self.pieces.front().map(|(at, _)| *at);
        [room, piece, self.lost_at].into_iter().flatten().min()
    }

    pub(super) fn push(&mut self, mut message: Bytes, now: u64, choices: &mut Choices<'_>) {
        let bytes = message.len() as u64;
        self.busy_until = self.busy_until.max(now) + 1 + bytes * 1_000 / self.rate;
        if self.is_dead || self.lost_at.is_some() {
            return;
        }
        let arrival = self.busy_until + self.latency;
        for _ in 0..choices.below(3) {
            let place = choices.below(message.len() as u64 + 1) as usize;
            self.pieces.push_back((arrival, message.split_to(place)));
        }
        self.pieces.push_back((arrival, message));
    }

    /// The next piece that has arrived.
    pub(super) fn pop(&mut self, now: u64) -> Option<Bytes> {
        if self.pieces.front()?.0 > now {
            return None;
        }
        self.pieces.pop_front().map(|(_, piece)| piece)
    }

    /// Whether the receiver knows by now that the carrier is lost.
    pub(super) fn is_lost(&self, now: u64) -> bool {
        self.pieces.is_empty() && self.lost_at.is_some_and(|at| at <= now)
    }

    /// Breaks the link: a random tail of the bytes in flight is lost. The receiver does not notice
    /// it if `is_silent`.
    pub(super) fn cut(&mut self, now: u64, is_silent: bool, choices: &mut Choices<'_>) {
        let total: usize = self.pieces.iter().map(|(_, piece)| piece.len()).sum();
        let mut kept = choices.below(total as u64 + 1) as usize;
        for (_, piece) in &mut self.pieces {
            piece.truncate(kept);
            kept -= piece.len();
        }
        self.is_dead = true;
        if !is_silent {
            let last = self.pieces.back().map_or(now, |(at, _)| *at);
            self.lost_at = Some(last.max(now));
        }
    }
}
