//! What to do about a failure: errors have a method `verdict`.

/// What to do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Retry: the next attempt may succeed.
    Retry,
    /// A person must correct a key, a token or a clock. If that may happen while the program runs,
    /// it retries, but rarely.
    AskPerson,
    /// Give up: another attempt would fail in the same way.
    Never,
}
