//! Bytes that are cheap to make and to check: a byte's value follows from its place and its stream's seed.

use std::io;
use std::sync::LazyLock;

/// A prime, so that a frame too many or too few is noticed.
const PERIOD: usize = 251;
/// The longest piece that is made or checked at once, in bytes.
pub const PIECE: usize = 64 * 1024;

static TABLE: LazyLock<Vec<u8>> =
    LazyLock::new(|| (0..=250u8).cycle().take(PIECE + PERIOD).collect());

/// Where a stream of the pattern is.
pub struct Pattern(usize);

impl Pattern {
    /// The pattern from its start; streams with other seeds differ.
    pub fn new(seed: u8) -> Self {
        Self(usize::from(seed) * 31 % PERIOD)
    }

    /// The next bytes: `most` of them, or [`PIECE`] where that is less.
    pub fn next(&self, most: usize) -> &'static [u8] {
        TABLE
            .get(self.0..self.0 + most.min(PIECE))
            .unwrap_or_default()
    }

    /// Goes on by `bytes`.
    pub fn advance(&mut self, bytes: usize) {
        self.0 = (self.0 + bytes) % PERIOD;
    }

    /// Checks that `data` is what comes next, and goes on.
    ///
    /// # Errors
    /// When it is not.
    pub fn check(&mut self, data: &[u8]) -> io::Result<()> {
        for piece in data.chunks(PIECE) {
            if piece != self.next(piece.len()) {
                return Err(io::Error::other("a byte is not the one that was sent"));
            }
            self.advance(piece.len());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_byte_is_noticed() {
        let mut pattern = Pattern::new(3);
        let first = pattern.next(100);
        pattern.advance(100);
        let second = pattern.next(100);
        let mut check = Pattern::new(3);
        check.check(first).unwrap();
        assert!(check.check(second.get(1..).unwrap()).is_err());
    }
}
