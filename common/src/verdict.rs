//! What to do about a failure that stands in the way: errors say so by a method `verdict`.

/// What can cure a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Time: the next attempt may succeed.
    Retry,
    /// A person: a key, a token or a clock is wrong. Attempts go on where somebody may set it right
    /// meanwhile, but rarely.
    AskPerson,
    /// Nothing: another attempt comes to the same end.
    Never,
}
