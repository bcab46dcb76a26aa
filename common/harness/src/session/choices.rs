//! Where decisions come from.

use common::split_mix;

/// Decisions, out of a seed without end or out of bytes until they are used up.
#[derive(Debug)]
pub struct Choices<'a>(Source<'a>);

#[derive(Debug)]
enum Source<'a> {
    Seed(u64),
    Bytes(&'a [u8]),
}

impl<'a> Choices<'a> {
    /// The same decisions for the same seed, for ever.
    pub fn from_seed(seed: u64) -> Self {
        Self(Source::Seed(seed))
    }

    /// Decisions by these bytes; when they are used up, the first of all choices.
    pub fn from_bytes(bytes: &'a [u8]) -> Self {
        Self(Source::Bytes(bytes))
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        match &mut self.0 {
            Source::Seed(state) => {
                *state = state.wrapping_add(split_mix::STEP);
                split_mix::number(*state) % limit
            }
            Source::Bytes(bytes) => {
                let mut number: u64 = 0;
                let mut most = limit - 1;
                while most > 0 {
                    let Some((first, rest)) = bytes.split_first() else {
                        break;
                    };
                    *bytes = rest;
                    number = number << 8 | u64::from(*first);
                    most >>= 8;
                }
                number % limit
            }
        }
    }

    /// Once in so many times.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == times - 1
    }

    /// Nothing, little or much: each with a fair chance, but a fuzzer is better served by
    /// many stories that are short.
    pub fn volume(&mut self, most: u64) -> u64 {
        let kind = match self.0 {
            Source::Seed(_) => self.below(4),
            Source::Bytes(_) => [0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2, 3]
                .get(self.below(16) as usize)
                .map_or(0, |kind| *kind),
        };
        match kind {
            0 => 0,
            1 => self.below(100.min(most)),
            2 => self.below(5_000.min(most)),
            _ => self.below(most),
        }
    }

    /// So many bytes.
    pub fn bytes(&mut self, count: u64) -> Vec<u8> {
        (0..count).map(|_| self.below(256) as u8).collect()
    }

    /// Whether nothing is left to decide by.
    pub fn is_used_up(&self) -> bool {
        matches!(self.0, Source::Bytes([]))
    }
}
