//! Bytes that depend on their place, so that lost, doubled and swapped ones are noticed.

use bytes::{BufMut as _, Bytes, BytesMut};
use common::split_mix;

/// Bytes of one word of the pattern.
const WORD: u64 = 8;

/// An endless sequence of bytes, each of which follows from its place alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pattern {
    seed: u64,
}

impl Pattern {
    /// Another sequence for each seed.
    pub(super) fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The bytes from `start` on.
    pub(super) fn bytes(self, start: u64, length: usize) -> Bytes {
        let skip = usize::try_from(start % WORD).unwrap_or_default();
        let mut bytes = BytesMut::with_capacity(skip + length + WORD as usize);
        let mut index = start / WORD;
        while bytes.len() < skip + length {
            bytes.put_u64(self.word(index));
            index += 1;
        }
        bytes.freeze().slice(skip..skip + length)
    }

    /// The first of `bytes`, which begin at `start`, that is not right.
    pub(super) fn first_wrong(self, start: u64, bytes: &[u8]) -> Option<u64> {
        let right = self.bytes(start, bytes.len());
        if right == bytes {
            return None;
        }
        let wrong = right.iter().zip(bytes).take_while(|(a, b)| a == b).count();
        Some(start + wrong as u64)
    }

    /// Words do not repeat.
    fn word(self, index: u64) -> u64 {
        split_mix::number(index.wrapping_add(self.seed).wrapping_mul(split_mix::STEP))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_fit_together() {
        let pattern = Pattern::new(3);
        let whole = pattern.bytes(0, 1000);
        for (start, length) in [(0, 0), (0, 1), (1, 7), (7, 2), (8, 8), (13, 900)] {
            let piece = pattern.bytes(start as u64, length);
            assert_eq!(piece, whole.slice(start..start + length));
            assert_eq!(pattern.first_wrong(start as u64, &piece), None);
        }
        assert_ne!(whole, Pattern::new(4).bytes(0, 1000));
    }

    #[test]
    fn a_wrong_byte_is_found() {
        let pattern = Pattern::new(0);
        let mut bytes = pattern.bytes(5, 100).to_vec();
        bytes[42] ^= 1;
        assert_eq!(pattern.first_wrong(5, &bytes), Some(47));
        // A message that was left out.
        assert!(pattern.first_wrong(0, &pattern.bytes(65_536, 64)).is_some());
    }
}
