//! The bytes that are sent, and the check of those that arrive. Both are cheap, since a slice of
//! the stream is always a slice of one small table.
//!
//! The pattern repeats after a prime number of bytes, so that a lost, doubled or swapped block of
//! 2^n bytes is detected. Each connection starts at its own phase, so that bytes of another
//! connection are detected too.

use super::LoadError;

/// Length of the pattern: a prime.
const PERIOD: usize = 4093;
/// Largest piece that is written or read at once.
pub const PIECE: usize = 256 << 10;
/// Bytes that are compared at once: this part of the table then stays in the L1 cache.
const COMPARED: usize = 16 << 10;

/// The pattern, repeated several times.
#[derive(Debug)]
pub struct Pattern {
    table: Vec<u8>,
}

impl Default for Pattern {
    fn default() -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let once: Vec<u8> = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .take(PERIOD)
        .collect();
        let table = once.iter().copied().cycle().take(PERIOD + PIECE).collect();
        Self { table }
    }
}

impl Pattern {
    /// The bytes from this position on: at most [`PIECE`] of them.
    pub fn at(&self, phase: u32, position: u64, most: u64) -> &[u8] {
        let from = start(phase, position);
        let count = usize::try_from(most).map_or(PIECE, |most| most.min(PIECE));
        self.table.get(from..from + count).unwrap_or_default()
    }

    /// Whether these are the bytes from this position on.
    ///
    /// # Errors
    /// [`LoadError::Wrong`] names the first that is not.
    pub fn check(&self, phase: u32, position: u64, bytes: &[u8]) -> Result<(), LoadError> {
        let mut at = position;
        for piece in bytes.chunks(COMPARED) {
            let expected = self.at(phase, at, piece.len() as u64);
            if piece != expected {
                let same = piece.iter().zip(expected).take_while(|(a, b)| a == b);
                return Err(LoadError::Wrong {
                    at: at + same.count() as u64,
                });
            }
            at += piece.len() as u64;
        }
        Ok(())
    }
}

fn start(phase: u32, position: u64) -> usize {
    let period = PERIOD as u64;
    // Below the period, so the conversion cannot fail.
    usize::try_from((position % period + u64::from(phase)) % period).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn sent_bytes_are_accepted_in_pieces_of_any_size() {
        let pattern = Pattern::default();
        let mut sent = Vec::new();
        while sent.len() < 600_000 {
            sent.extend_from_slice(pattern.at(7, sent.len() as u64, 100_001));
        }
        let mut position = 0;
        for piece in sent.chunks(33_333) {
            pattern.check(7, position, piece).unwrap();
            position += piece.len() as u64;
        }
    }

    #[test]
    fn a_wrong_byte_a_lost_block_and_another_connection_are_detected() {
        let pattern = Pattern::default();
        let mut bytes = pattern.at(0, 0, 100_000).to_vec();
        bytes[70_000] ^= 1;
        let error = pattern.check(0, 0, &bytes).unwrap_err();
        assert!(matches!(error, LoadError::Wrong { at: 70_000 }));
        for lost in (9..22).map(|bit| 1_u64 << bit) {
            assert!(pattern.check(0, lost, pattern.at(0, 0, 1000)).is_err());
        }
        assert!(pattern.check(1, 0, pattern.at(0, 0, 1000)).is_err());
    }

    #[test]
    fn no_piece_is_larger_than_the_table() {
        let pattern = Pattern::default();
        for position in [0, 1, 4092, 4093, u64::MAX] {
            assert_eq!(pattern.at(u32::MAX, position, u64::MAX).len(), PIECE);
        }
    }
}
