//! Random bytes from the system, through the one crypto provider.

/// Fills an array with random bytes.
///
/// # Panics
/// When the operating system has no random source: no secret could be generated.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut buffer = [0u8; N];
    #[expect(
        clippy::expect_used,
        reason = "not reachable from input: the system has no entropy"
    )]
    aws_lc_rs::rand::fill(&mut buffer).expect("the operating system gives no random bytes");
    buffer
}
