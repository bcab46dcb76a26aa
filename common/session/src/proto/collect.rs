//! Collects a known number of bytes from pieces of any size.

use bytes::{Buf as _, Bytes, BytesMut};

/// A small part of a frame that may arrive in pieces. Nothing is allocated if one piece contains
/// all of it.
#[derive(Debug, Default)]
pub(super) struct Collect {
    kept: BytesMut,
}

impl Collect {
    /// Takes bytes from the front of `piece` until there are `wanted`; `None` when more pieces are
    /// needed. `wanted` must stay the same until then.
    pub(super) fn take(&mut self, wanted: usize, piece: &mut Bytes) -> Option<Bytes> {
        if self.kept.is_empty() && piece.len() >= wanted {
            return Some(piece.split_to(wanted));
        }
        let missing = wanted.saturating_sub(self.kept.len()).min(piece.len());
        self.kept.extend_from_slice(&piece.split_to(missing));
        (self.kept.len() >= wanted).then(|| std::mem::take(&mut self.kept).freeze())
    }
}

/// Reads big-endian numbers from the front of a payload; `None` when it is too short.
pub(super) trait Fields {
    fn u8(&mut self) -> Option<u8>;
    fn u32(&mut self) -> Option<u32>;
    fn u64(&mut self) -> Option<u64>;
    fn array<const N: usize>(&mut self) -> Option<[u8; N]>;
}

impl Fields for Bytes {
    fn u8(&mut self) -> Option<u8> {
        self.try_get_u8().ok()
    }

    fn u32(&mut self) -> Option<u32> {
        self.try_get_u32().ok()
    }

    fn u64(&mut self) -> Option<u64> {
        self.try_get_u64().ok()
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let mut array = [0; N];
        self.try_copy_to_slice(&mut array).ok()?;
        Some(array)
    }
}

/// The rest of a payload as text for display: without control characters, and limited in bytes, so
/// that it fits into a frame again.
pub(super) fn text(rest: &[u8]) -> String {
    let mut length = 0;
    String::from_utf8_lossy(rest)
        .chars()
        .filter(|c| !device_stream_websocket::text::is_unprintable(*c))
        .take_while(|c| {
            length += c.len_utf8();
            length <= crate::limits::TEXT
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_any_size() {
        let mut collect = Collect::default();
        let mut whole = Bytes::from_static(b"abcdef");
        assert_eq!(collect.take(4, &mut whole).unwrap(), "abcd");
        for byte in ["e", "f", "g"] {
            assert!(
                collect
                    .take(4, &mut Bytes::from_static(byte.as_bytes()))
                    .is_none()
            );
        }
        let mut last = Bytes::from_static(b"hi");
        assert_eq!(collect.take(4, &mut last).unwrap(), "efgh");
        assert_eq!(last, "i");
    }

    #[test]
    fn text_is_limited_and_printable() {
        assert_eq!(text(b"a\x1b[2Jb\n"), "a[2Jb");
        assert_eq!(text(&[b'x'; 9999]).len(), crate::limits::TEXT);
        // An invalid byte becomes three.
        assert!(text(&[0xFF; 9999]).len() <= crate::limits::TEXT);
    }
}
