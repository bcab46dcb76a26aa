//! Bytes of one connection on their way out, with room in front for every header, so
//! that what was read from a socket becomes a message without a copy.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use super::frame;
use super::inner::{self, ConnectionId};

/// Room for the headers of a carrier's frame and of an inner frame.
const HEADROOM: usize = frame::HEADER + frame::DATA_PREFIX + inner::HEADER;

/// Bytes to send, at most [`limits::SESSION_CHUNK`](crate::limits::SESSION_CHUNK).
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

    /// Where to append to: never touch what is in front.
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

    /// How much memory it keeps.
    pub(super) fn held(&self) -> u64 {
        self.0.capacity() as u64
    }

    /// The carrier's message that says these bytes at this place of the session's stream.
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

/// The carrier's message that says inner frames which are encoded already.
pub(super) fn control_message(frames: &[u8], offset: u64, wants_ack: bool) -> Bytes {
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
    use super::super::frame::{Decoder, Frame};
    use super::super::inner::{Inner, InnerDecoder};
    use super::*;

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
