//! What an echo test sends, as the command line asks for it.

use std::time::Duration;

/// What an echo test sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EchoPlan {
    /// Messages one after the other, each timed.
    Pings {
        /// How many; `None`: until stopped.
        count: Option<u64>,
        /// What is in them.
        payload: Payload,
        /// From the start of one to the start of the next.
        interval: Duration,
    },
    /// So many bytes, both ways at once.
    Throughput {
        /// How many bytes.
        total: u64,
    },
}

/// What is in a ping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// So many bytes of a pattern that is another one in each message; at most
    /// [`common::limits::STREAM_MESSAGE`].
    Pattern(usize),
    /// A text, not empty.
    Text(String),
}
