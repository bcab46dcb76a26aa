//! Which end of a WebSocket this is.

/// Which rules an end follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Masks what it sends.
    Client,
    /// Expects masks.
    Server,
}
