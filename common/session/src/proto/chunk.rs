//! Outgoing bytes of one connection, with room in front for all headers, so that bytes read from a
//! socket become a message without a copy.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use crate::limits;
use crate::proto::frame;
use crate::proto::inner::{self, ConnectionId};

/// Room for the headers of a carrier's frame and of an inner frame.
const HEADROOM: usize = frame::HEADER + frame::DATA_PREFIX + inner::HEADER;

/// Bytes to send, at most [`limits::CHUNK`].
#[derive(Debug)]
pub struct Chunk(BytesMut);

impl Chunk {
    /// An empty one with room for so many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        let mut buffer = BytesMut::with_capacity(HEADROOM + bytes);
        buffer.put_bytes(0, HEADROOM);
        Self(buffer)
    }

    /// A copy of these bytes.
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut chunk = Self::with_capacity(bytes.len());
        chunk.0.put_slice(bytes);
        chunk
    }

    /// The buffer to append to; the bytes that it has must not be changed.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.0
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        self.0.get(HEADROOM..).unwrap_or_default()
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.0.len().saturating_sub(HEADROOM)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its memory, in bytes.
    pub fn held(&self) -> u64 {
        self.0.capacity() as u64
    }

    /// The carrier's message with these bytes at this offset of the session's stream.
    pub(super) fn into_message(
        mut self,
        connection: ConnectionId,
        offset: u64,
        wants_ack: bool,
    ) -> Bytes {
        let length = self.len();
        let outer = frame::data_header(offset, inner::HEADER + length, wants_ack);
        let inner = inner::data_header(connection, length);
        if let Some((front, rest)) = self.0.split_first_chunk_mut() {
            *front = outer;
            if let Some(back) = rest.first_chunk_mut() {
                *back = inner;
            }
        }
        self.0.freeze()
    }
}

/// Large buffers that are reused after their bytes were acknowledged. During bulk transfers the
/// allocator would otherwise return them to the system and map new pages, several hundred times a
/// second.
#[derive(Debug, Default)]
pub(super) struct Spare(Vec<BytesMut>);

impl Spare {
    /// 2 MiB: an acknowledgement covers a part of the window, and the connections' tasks fill the
    /// same memory again while the next part is on its way.
    const MOST: usize = 32;

    /// An empty chunk with room for so many bytes.
    pub(super) fn chunk(&mut self, bytes: usize) -> Chunk {
        if Self::is_worth_it(bytes)
            && let Some(mut buffer) = self.0.pop()
        {
            buffer.put_bytes(0, HEADROOM);
            return Chunk(buffer);
        }
        Chunk::with_capacity(bytes)
    }

    /// Keeps the memory of an acknowledged message if it is large; returns whether it is.
    pub(super) fn keep(&mut self, message: Bytes) -> bool {
        let is_worth_it = Self::is_worth_it(message.len());
        // A buffer that another owner still holds cannot be reused.
        if is_worth_it && let Ok(buffer) = message.try_into_mut() {
            self.keep_buffer(buffer);
        }
        is_worth_it
    }

    /// Its memory, in bytes.
    pub(super) fn held(&self) -> u64 {
        self.0.iter().map(|buffer| buffer.capacity() as u64).sum()
    }

    /// Takes an unused chunk back.
    pub(super) fn give_back(&mut self, chunk: Chunk) {
        self.keep_buffer(chunk.0);
    }

    fn keep_buffer(&mut self, mut buffer: BytesMut) {
        buffer.clear();
        if self.0.len() < Self::MOST && buffer.capacity() >= HEADROOM + limits::CHUNK {
            self.0.push(buffer);
        }
    }

    fn is_worth_it(bytes: usize) -> bool {
        bytes > limits::CHUNK / 2
    }
}

/// The carrier's message with inner frames that are encoded already.
pub(crate) fn control_message(frames: &[u8], offset: u64, wants_ack: bool) -> Bytes {
    let mut out = BytesMut::with_capacity(frame::HEADER + frame::DATA_PREFIX + frames.len());
    out.put_slice(&frame::data_header(offset, frames.len(), wants_ack));
    out.put_slice(frames);
    out.freeze()
}

/// How many bytes of the session's stream such a message carries.
pub(super) fn stream_length(message: &Bytes) -> u64 {
    let prefix = frame::HEADER + frame::DATA_PREFIX;
    message.remaining().saturating_sub(prefix) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::frame::{Decoder, Frame};
    use crate::proto::inner::{Inner, InnerDecoder};

    #[test]
    fn buffers_of_acknowledged_messages_are_reused() {
        let mut spare = Spare::default();
        let full = |spare: &mut Spare| {
            let mut chunk = spare.chunk(limits::CHUNK);
            chunk.buffer().put_bytes(7, limits::CHUNK);
            chunk.into_message(ConnectionId(7), 99, false)
        };
        let first = full(&mut spare);
        let place = first.as_ptr();
        let shared = first.clone();
        spare.keep(first);
        assert!(spare.0.is_empty(), "it has another owner");
        spare.keep(shared);
        let second = full(&mut spare);
        assert_eq!(second.as_ptr(), place);
        let unused = spare.chunk(limits::CHUNK);
        spare.give_back(unused);
        for _ in 0..2 * Spare::MOST {
            let message =
                Chunk::copy_of(&[1; limits::CHUNK]).into_message(ConnectionId(7), 0, false);
            spare.keep(message);
        }
        assert_eq!(spare.0.len(), Spare::MOST);
        spare.keep(Chunk::copy_of(b"few").into_message(ConnectionId(7), 0, false));
        let few = spare.chunk(3);
        assert!(few.0.capacity() < 1000 && few.is_empty());
    }

    #[test]
    fn headers_are_put_in_front_in_place() {
        let chunk = Chunk::copy_of(b"hello");
        let place = chunk.bytes().as_ptr();
        let mut message = chunk.into_message(ConnectionId(7), 99, true);
        assert_eq!(stream_length(&message), inner::HEADER as u64 + 5);
        let frame = Decoder::default().next(&mut message).unwrap().unwrap();
        let Frame::Data {
            offset: 99,
            mut bytes,
            wants_ack: true,
        } = frame
        else {
            panic!("{frame:?}")
        };
        let (id, inner) = InnerDecoder::default().next(&mut bytes).unwrap().unwrap();
        let Inner::Data(bytes) = inner else {
            panic!("{inner:?}")
        };
        assert_eq!((id, &bytes[..]), (ConnectionId(7), &b"hello"[..]));
        assert_eq!(bytes.as_ptr(), place, "no copy was made");
    }
}
