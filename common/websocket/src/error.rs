//! Errors of a WebSocket.

use std::io;

use crate::message::CloseFrame;

/// Why a WebSocket was lost.
#[derive(Debug, thiserror::Error)]
pub enum WebSocketError {
    /// TCP or TLS failed, without a Close.
    #[error("the connection was lost")]
    Lost(#[source] io::Error),
    /// The peer ended the connection in order, TLS included, but without a Close. The connection of
    /// a killed program does not end this way.
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
    /// The peer violated the protocol.
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

/// A rule of RFC 6455 that a peer violated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ViolationError {
    /// A reserved bit is set, and no extension was negotiated (5.2).
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
    /// A frame of a client is not masked (5.1).
    #[error("a client's frame is not masked")]
    Unmasked,
    /// A frame of a server is masked (5.1).
    #[error("a server's frame is masked")]
    Masked,
    /// A continuation without a first frame (5.4).
    #[error("a continuation has no beginning")]
    Continuation,
    /// A new message before the last one ended (5.4).
    #[error("a message begins within another")]
    Interrupted,
    /// Text that is not UTF-8 (8.1).
    #[error("a text is not UTF-8")]
    Text,
    /// A Close with half a code, or with a code that is not allowed (5.5.1).
    #[error("a Close frame is malformed")]
    Close,
    /// A Close whose reason is not UTF-8 (5.5.1).
    #[error("the reason in a Close frame is not UTF-8")]
    Reason,
    /// A message above the limit.
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
