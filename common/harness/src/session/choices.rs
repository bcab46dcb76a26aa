//! The source of random decisions.

use common::split_mix;

/// Decisions from a seed, without end, or from bytes, until they are used up.
#[derive(Debug)]
pub struct Choices<'a>(Source<'a>);

#[derive(Debug)]
enum Source<'a> {
    Seed(u64),
    Bytes(&'a [u8]),
}

impl<'a> Choices<'a> {
    /// Decisions from a seed: always the same for the same seed.
    pub fn from_seed(seed: u64) -> Self {
        Self(Source::Seed(seed))
    }

    /// Decisions from these bytes; when they are used up, always the first choice.
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

    /// True once in so many times.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == times - 1
    }

    /// Nothing, little or much, with equal chances from a seed. From bytes mostly little, since a
    /// fuzzer needs many short runs.
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

    /// Whether all bytes are used up.
    pub fn is_used_up(&self) -> bool {
        matches!(self.0, Source::Bytes([]))
    }
}
