//! What was sent and not yet acknowledged: sent again on the next carrier.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::proto::chunk::{Chunk, Spare, stream_length};

/// One message of the carrier.
#[derive(Debug)]
struct Segment {
    /// Place of its first byte.
    offset: u64,
    message: Bytes,
    /// Bytes of memory that it keeps.
    memory: u64,
    /// When it went out on this carrier.
    sent_at: Option<Instant>,
}

impl Segment {
    fn end(&self) -> u64 {
        self.offset + stream_length(&self.message)
    }
}

/// The unacknowledged part of one direction's stream.
#[derive(Debug, Default)]
pub(super) struct Replay {
    segments: VecDeque<Segment>,
    /// How many of them went out on this carrier.
    sent: usize,
    acknowledged: u64,
    end: u64,
    bytes: u64,
    /// What was acknowledged, to be filled again.
    spare: Spare,
}

impl Replay {
    /// Place of the next byte that was never sent.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// All before this place was acknowledged.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Place of the next byte to go out on this carrier.
    pub(super) fn next(&self) -> u64 {
        self.segments
            .get(self.sent)
            .map_or(self.end, |segment| segment.offset)
    }

    /// Bytes on their way on this carrier.
    pub(super) fn in_flight(&self) -> u64 {
        self.next().saturating_sub(self.acknowledged)
    }

    /// Bytes of memory.
    pub(super) fn held(&self) -> u64 {
        self.bytes + self.spare.held()
    }

    /// A chunk to be filled with so many bytes.
    pub(super) fn chunk(&mut self, bytes: usize) -> Chunk {
        self.spare.chunk(bytes)
    }

    /// Takes back one that was not filled.
    pub(super) fn give_back(&mut self, chunk: Chunk) {
        self.spare.give_back(chunk);
    }

    /// Little is sent from now on: only what waits is held in memory.
    pub(super) fn shrink(&mut self) {
        self.spare = Spare::default();
    }

    /// Keeps a message that goes out now, in so much memory.
    pub(super) fn push(&mut self, message: Bytes, memory: u64, now: Instant) {
        debug_assert_eq!(self.sent, self.segments.len(), "nothing overtakes a replay");
        let segment = Segment {
            offset: self.end,
            sent_at: Some(now),
            message,
            memory,
        };
        self.end = segment.end();
        self.bytes += memory;
        self.segments.push_back(segment);
        self.sent = self.segments.len();
    }

    /// The next message that an earlier carrier was to bring.
    pub(super) fn again(&mut self, now: Instant) -> Option<Bytes> {
        let segment = self.segments.get_mut(self.sent)?;
        segment.sent_at = Some(now);
        self.sent += 1;
        Some(segment.message.clone())
    }

    /// Whether messages of earlier carriers wait.
    pub(super) fn has_more(&self) -> bool {
        self.sent < self.segments.len()
    }

    /// All before `place` has arrived: how many bytes that is more than before, and the
    /// time that the last whole message of them took. `None`: nobody can have received
    /// that.
    pub(super) fn acknowledge(
        &mut self,
        place: u64,
        now: Instant,
    ) -> Option<(u64, Option<Duration>)> {
        if place > self.end {
            return None;
        }
        let newly = place.saturating_sub(self.acknowledged);
        self.acknowledged += newly;
        let mut trip = None;
        let mut is_bulk = true;
        while let Some(segment) = self.segments.front() {
            if segment.end() > place {
                break;
            }
            trip = segment.sent_at.map(|at| now.saturating_duration_since(at));
            self.bytes = self.bytes.saturating_sub(segment.memory);
            self.sent = self.sent.saturating_sub(1);
            if let Some(segment) = self.segments.pop_front() {
                is_bulk = self.spare.keep(segment.message);
            }
        }
        if self.segments.is_empty() && !is_bulk {
            self.shrink();
        }
        Some((newly, trip))
    }

    /// A new carrier: everything that is left goes out again.
    pub(super) fn rewind(&mut self) {
        self.sent = 0;
        for segment in &mut self.segments {
            segment.sent_at = None;
        }
    }

    /// Nothing of it will be needed.
    pub(super) fn clear(&mut self) {
        *self = Self {
            acknowledged: self.end,
            end: self.end,
            ..Self::default()
        };
    }
}
