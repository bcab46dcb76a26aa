//! The mask that clients apply to their payloads (RFC 6455, 5.3).

use std::cell::RefCell;

use crate::random;

/// Masks that are generated at once.
const DRAW: usize = 32;

thread_local! {
    /// For all connections of a thread: most are idle, and need none.
    static MASKS: RefCell<Masks> = const { RefCell::new(Masks::NONE) };
}

/// A mask that was not used before, as clients need for every frame: unpredictable.
pub fn draw() -> [u8; 4] {
    MASKS.with_borrow_mut(Masks::draw)
}

/// Masks that are generated at once, since a call of the generator for each would cost about as
/// much as a small frame.
struct Masks {
    drawn: [[u8; 4]; DRAW],
    left: usize,
}

impl Masks {
    const NONE: Self = Self {
        drawn: [[0; 4]; DRAW],
        left: 0,
    };

    fn draw(&mut self) -> [u8; 4] {
        if let Some(mask) = self.take() {
            return mask;
        }
        let fresh: [u8; 4 * DRAW] = random::bytes();
        let (fresh, _) = fresh.as_chunks();
        self.drawn.copy_from_slice(fresh);
        self.left = DRAW;
        self.take().unwrap_or_else(random::bytes)
    }

    fn take(&mut self) -> Option<[u8; 4]> {
        self.left = self.left.checked_sub(1)?;
        self.drawn.get(self.left).copied()
    }
}

/// Bytes per step: a width that the compiler vectorises.
const STEP: usize = 32;

/// Applies the mask to `bytes`, or removes it. For the bytes after them, use the mask [`turned`] by
/// their number.
pub fn apply(bytes: &mut [u8], mask: [u8; 4]) {
    let mut wide = [0u8; STEP];
    for (place, byte) in wide.chunks_exact_mut(4).zip(std::iter::repeat(mask)) {
        place.copy_from_slice(&byte);
    }
    let (steps, rest) = bytes.as_chunks_mut::<STEP>();
    for step in steps {
        for (byte, mask) in step.iter_mut().zip(wide) {
            *byte ^= mask;
        }
    }
    for (byte, mask) in rest.iter_mut().zip(wide) {
        *byte ^= mask;
    }
}

/// The mask as it continues after so many bytes.
pub fn turned(mut mask: [u8; 4], bytes: usize) -> [u8; 4] {
    mask.rotate_left(bytes % 4);
    mask
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 6455, 5.7: a masked "Hello".
    #[test]
    fn the_example_of_the_standard() {
        let mut bytes = [0x7f, 0x9f, 0x4d, 0x51, 0x58];
        apply(&mut bytes, [0x37, 0xfa, 0x21, 0x3d]);
        assert_eq!(&bytes, b"Hello");
    }

    #[test]
    fn masks_are_not_repeated() {
        let drawn: std::collections::HashSet<_> = (0..3 * DRAW).map(|_| draw()).collect();
        // Of 96 numbers of 32 bits, two are alike once in a million runs; three never are.
        assert!(drawn.len() >= 3 * DRAW - 1, "{drawn:?}");
    }

    proptest! {
        #[test]
        fn masking_in_two_parts_is_the_same_as_the_definition(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            mask: [u8; 4],
            cut in 0usize..300,
        ) {
            let expected: Vec<u8> = bytes.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m).collect();
            let mut seen = bytes;
            let cut = cut.min(seen.len());
            let (front, back) = seen.split_at_mut(cut);
            apply(front, mask);
            apply(back, turned(mask, cut));
            prop_assert_eq!(seen, expected);
        }
    }
}
