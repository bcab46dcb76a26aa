//! What became of a local connection.

use std::time::Duration;

/// What became of a local connection, with `E` for how it ended.
#[derive(Debug)]
pub struct Outcome<E> {
    /// Bytes from the local socket.
    pub sent: u64,
    /// Bytes to the local socket.
    pub received: u64,
    /// From the first moment at which bytes could be copied to the last.
    pub duration: Duration,
    /// How it ended.
    pub end: E,
}
