//! Which end of a WebSocket this is.

/// The end of a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Masks its frames.
    Client,
    /// Expects masked frames.
    Server,
}
