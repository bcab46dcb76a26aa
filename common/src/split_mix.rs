//! Numbers that follow from their place and look like chance (SplitMix64): for bytes that are to
//! tell where they belong, and for tests that can be played again. Not for secrets.

/// How far one state is from the next.
pub const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// The number that belongs to this state, a multiple of [`STEP`] or any other. No two states have
/// the same.
#[inline]
pub fn number(state: u64) -> u64 {
    let mut z = state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first numbers of seed 1234567, as the algorithm's author publishes them.
    #[test]
    fn the_vector() {
        let state = |count: u64| 1_234_567u64.wrapping_add(STEP.wrapping_mul(count));
        let first = [1, 2, 3].map(|count| number(state(count)));
        let expected = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
        ];
        assert_eq!(first, expected);
    }
}
