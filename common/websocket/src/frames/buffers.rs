//! The memory for bytes that arrive in bulk: one buffer for each message, and their reuse.

use bytes::BytesMut;

use crate::{header, limits};

/// Read buffer while much arrives: one whole message and the header of the next.
pub(super) const LARGE_BUFFER: usize = limits::STREAM_MESSAGE + header::LONGEST;
/// Payload of a full TLS record, which is what TLS returns at once.
const RECORD: usize = 16 << 10;

/// Buffers that messages were cut from. One is reused once these messages are dropped: otherwise
/// the allocator would return the memory to the system and map new pages for most messages.
#[derive(Default)]
pub(super) struct Buffers {
    /// The ends of full ones, each of which still owns its whole memory.
    full: Vec<BytesMut>,
    /// How many of them are kept at most.
    most: usize,
    /// The buffer that is in use is a large one.
    is_large: bool,
}

impl Buffers {
    /// Keeps at most so many.
    pub(super) fn keep(&mut self, most: usize) {
        self.most = most;
    }

    /// Frees all of them.
    pub(super) fn shrink(&mut self) {
        self.full = Vec::new();
        self.is_large = false;
    }

    /// Whether there are any.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.full.len()
    }

    /// Makes room in `buffer` for the next read while much arrives, and returns how much to read:
    /// to the end of the message and the header of the next. So each message has a buffer of its
    /// own, and almost nothing is copied between buffers. `missing` is unknown between frames;
    /// `most` is the size of a buffer.
    pub(super) fn make_room(
        &mut self,
        buffer: &mut BytesMut,
        missing: Option<usize>,
        most: usize,
    ) -> usize {
        let spare = buffer.capacity() - buffer.len();
        let record = RECORD.min(most);
        let (least, room) = match missing {
            Some(missing) => (missing, (missing + header::LONGEST).max(record)),
            None if spare > 0 => (0, record),
            None => (1, most.saturating_sub(buffer.len()).max(record)),
        };
        if spare >= least {
            return room.min(spare);
        }
        // Not by `reserve`, which would make it twice as large.
        if !buffer.try_reclaim(room) {
            let mut fresh = self.fresh(buffer.len() + room);
            fresh.extend_from_slice(buffer);
            let is_large =
                std::mem::replace(&mut self.is_large, fresh.capacity() > LARGE_BUFFER / 2);
            let mut full = std::mem::replace(buffer, fresh);
            if is_large && self.full.len() < self.most {
                full.clear();
                self.full.push(full);
            }
        }
        room
    }

    /// A buffer of at least this size; the one that was in use last, if possible, since it is the
    /// most likely to be in the processor's caches.
    fn fresh(&mut self, size: usize) -> BytesMut {
        if size > LARGE_BUFFER / 2 {
            let reusable = self
                .full
                .iter_mut()
                .rposition(|full| full.try_reclaim(size));
            if let Some(place) = reusable {
                return self.full.remove(place);
            }
        }
        BytesMut::with_capacity(size)
    }
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut as _, Bytes};

    use super::*;

    #[test]
    fn the_memory_of_dropped_messages_is_reused() {
        let mut buffers = Buffers::default();
        buffers.keep(2);
        let mut buffer = BytesMut::new();
        let mut message = |buffers: &mut Buffers| -> Bytes {
            let room = buffers.make_room(&mut buffer, None, LARGE_BUFFER);
            buffer.put_bytes(7, room);
            buffer.split().freeze()
        };
        let first = message(&mut buffers);
        let second = message(&mut buffers);
        let places = [first.as_ptr(), second.as_ptr()];
        assert_ne!(places[0], places[1], "the first is still held");
        drop(first);
        let third = message(&mut buffers);
        assert_eq!(third.as_ptr(), places[0]);
        let held: Vec<Bytes> = (0..5).map(|_| message(&mut buffers)).collect();
        assert_eq!(buffers.len(), 2, "no more are kept");
        assert!(held.iter().all(|bytes| bytes.len() >= RECORD));
        buffers.shrink();
        assert_eq!(buffers.len(), 0);
    }
}
