//! Reproducible pseudo-random numbers (SplitMix64), for test patterns in which each byte depends on
//! its offset, and for simulations that can be repeated. Not for secrets.

/// The difference between consecutive states.
pub const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// The number for a state, usually a multiple of [`STEP`]. Different states have different numbers.
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
