//! Messages that were sent and not yet acknowledged: they are sent again on the next carrier.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::proto::chunk::{Chunk, Spare, stream_length};

/// One message of the carrier.
#[derive(Debug)]
struct Segment {
    /// Offset of its first byte.
    offset: u64,
    message: Bytes,
    /// Its memory, in bytes.
    memory: u64,
    /// When it was sent on this carrier.
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
    /// How many of them were sent on this carrier.
    sent: usize,
    acknowledged: u64,
    end: u64,
    bytes: u64,
    /// Buffers of acknowledged messages, for reuse.
    spare: Spare,
}

impl Replay {
    /// Offset of the next byte that was never sent.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// All bytes before this offset were acknowledged.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Offset of the next byte to be sent on this carrier.
    pub(super) fn next(&self) -> u64 {
        self.segments
            .get(self.sent)
            .map_or(self.end, |segment| segment.offset)
    }

    /// Bytes in flight on this carrier.
    pub(super) fn in_flight(&self) -> u64 {
        self.next().saturating_sub(self.acknowledged)
    }

    /// Its memory, in bytes.
    pub(super) fn held(&self) -> u64 {
        self.bytes + self.spare.held()
    }

    /// A chunk with room for so many bytes.
    pub(super) fn chunk(&mut self, bytes: usize) -> Chunk {
        self.spare.chunk(bytes)
    }

    /// Takes back an unused one.
    pub(super) fn give_back(&mut self, chunk: Chunk) {
        self.spare.give_back(chunk);
    }

    /// Frees the spare buffers: little is sent from now on.
    pub(super) fn shrink(&mut self) {
        self.spare = Spare::default();
    }

    /// Keeps a message that is sent now, and that takes so much memory.
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

    /// The next message of an earlier carrier to send again.
    pub(super) fn again(&mut self, now: Instant) -> Option<Bytes> {
        let segment = self.segments.get_mut(self.sent)?;
        segment.sent_at = Some(now);
        self.sent += 1;
        Some(segment.message.clone())
    }

    /// Whether messages of earlier carriers wait to be sent again.
    pub(super) fn has_more(&self) -> bool {
        self.sent < self.segments.len()
    }

    /// All bytes before `place` have arrived. Returns how many of them are newly acknowledged, and
    /// the round trip of the last whole message; `None` if these bytes were never sent.
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

    /// A new carrier: everything that is left is sent again.
    pub(super) fn rewind(&mut self) {
        self.sent = 0;
        for segment in &mut self.segments {
            segment.sent_at = None;
        }
    }

    /// Discards everything.
    pub(super) fn clear(&mut self) {
        *self = Self {
            acknowledged: self.end,
            end: self.end,
            ..Self::default()
        };
    }
}
