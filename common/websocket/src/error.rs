//! How a WebSocket fails.

use std::io;

use crate::message::CloseFrame;

/// How a WebSocket was lost.
#[derive(Debug, thiserror::Error)]
pub enum WebSocketError {
    /// TCP or TLS broke without a Close.
    #[error("the connection was lost")]
    Lost(#[source] io::Error),
    /// The peer ended the connection in order, TLS included, but without a Close. A program that
    /// was killed does not do that.
    #[error("the connection was ended without a Close")]
    Ended,
    /// The peer did not answer a ping.
    #[error("the peer does not answer")]
    Dead,
    /// A message is larger than allowed.
    #[error("the peer sent a message larger than {limit} bytes")]
    TooLarge {
        /// The largest that is accepted.
        limit: usize,
    },
    /// The peer broke the protocol.
    #[error("the peer broke the WebSocket protocol")]
    Protocol(#[source] ViolationError),
}

impl From<ViolationError> for WebSocketError {
    fn from(violation: ViolationError) -> Self {
        match violation {
            ViolationError::TooLarge { limit } => Self::TooLarge { limit },
            violation => Self::Protocol(violation),
        }
    }
}

/// A rule of RFC 6455 that a peer broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ViolationError {
    /// A reserved bit is set, and no extension was agreed on (5.2).
    #[error("a frame has reserved bits set")]
    ReservedBits,
    /// A reserved opcode (5.2).
    #[error("a frame has the reserved opcode {0}")]
    Opcode(u8),
    /// A control frame in fragments or above 125 bytes (5.5).
    #[error("a control frame is fragmented or longer than 125 bytes")]
    Control,
    /// A length with the highest bit set (5.2).
    #[error("a frame's length is out of range")]
    Length,
    /// A client that does not mask (5.1).
    #[error("a client's frame is not masked")]
    Unmasked,
    /// A server that masks (5.1).
    #[error("a server's frame is masked")]
    Masked,
    /// A continuation of nothing (5.4).
    #[error("a continuation has no beginning")]
    Continuation,
    /// A new message before the last was over (5.4).
    #[error("a message begins within another")]
    Interrupted,
    /// Text that is not UTF-8 (8.1).
    #[error("a text is not UTF-8")]
    Text,
    /// A Close with half a code, or one that may not be sent (5.5.1).
    #[error("a Close frame is malformed")]
    Close,
    /// A Close whose reason is not UTF-8 (5.5.1).
    #[error("the reason in a Close frame is not UTF-8")]
    Reason,
    /// A message above what is accepted here.
    #[error("a message is larger than {limit} bytes")]
    TooLarge {
        /// The largest that is accepted.
        limit: usize,
    },
}

impl ViolationError {
    /// The close code, and a reason, for the peer (7.4.1).
    pub fn close(self) -> (u16, &'static str) {
        match self {
            Self::TooLarge { .. } => (CloseFrame::TOO_LARGE, "message too large"),
            Self::Text | Self::Reason => (CloseFrame::NOT_UTF8, "not UTF-8"),
            _ => (CloseFrame::PROTOCOL, "protocol error"),
        }
    }
}
