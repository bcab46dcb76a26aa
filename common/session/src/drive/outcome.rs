//! The outcome of a local connection.

use std::time::Duration;

/// The outcome of a local connection; `E` is how it ended.
#[derive(Debug)]
pub struct Outcome<E> {
    /// Bytes from the local socket.
    pub sent: u64,
    /// Bytes to the local socket.
    pub received: u64,
    /// From the first moment at which bytes could be copied to the end.
    pub duration: Duration,
    /// How it ended.
    pub end: E,
}
