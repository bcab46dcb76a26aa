//! A WebSocket as our programs see one: non-empty data messages in and out, pings kept to itself,
//! and an end that says how it came. Frames are our own, for memory that is held only while bytes
//! flow, and for payload that is passed on without copies (`docs/performance.md`); the upgrade is a
//! library's, which is named in this folder only.
//!
//! Everything here is poll-based and cancel-safe: a message is either taken or still
//! there, so that one task can drive two sockets.

#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench_access;
mod bytes;
mod connect;
mod decoder;
mod frames;
#[cfg(any(test, feature = "fuzzing"))]
#[allow(
    clippy::indexing_slicing,
    clippy::panic,
    reason = "no part of any program: panics are its findings"
)]
#[doc(hidden)]
pub mod fuzzing;
mod head;
mod header;
mod mask;
mod outbox;
mod socket;
mod upgrade;

pub use bytes::WebSocketBytes;
pub use connect::{ConnectError, Endpoint, connect, connect_over};
pub use head::{ExchangeError, exchange};
pub use socket::WebSocket;
pub use upgrade::{offered_subprotocol, upgrade_answer};

use std::io;

use ::bytes::Bytes;

/// The type of a data message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Opcode 2.
    Binary,
    /// Opcode 1: valid UTF-8.
    Text,
}

/// One data message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data {
    kind: Kind,
    bytes: Bytes,
}

impl Data {
    fn new(kind: Kind, bytes: Bytes) -> Self {
        Self { kind, bytes }
    }

    /// A binary message.
    pub fn binary(bytes: Bytes) -> Self {
        Self {
            kind: Kind::Binary,
            bytes,
        }
    }

    /// A text message.
    pub fn text(text: String) -> Self {
        Self {
            kind: Kind::Text,
            bytes: Bytes::from(text),
        }
    }

    /// Binary or text.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Payload length in bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether the payload is empty.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The payload, whatever the type.
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }
}

/// The peer's Close.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseFrame {
    /// The close code; [`Self::NO_CODE`] when the peer gave none.
    pub code: u16,
    /// The peer's reason, cleaned for logs.
    pub reason: String,
}

impl CloseFrame {
    /// What stands for a Close without a code (RFC 6455, 7.1.5); never sent.
    pub const NO_CODE: u16 = 1005;
    /// Close code of a normal end.
    pub const NORMAL: u16 = 1000;
    /// Close code of a peer that goes away.
    pub const AWAY: u16 = 1001;
    /// Close code for a peer that broke the protocol.
    pub const PROTOCOL: u16 = 1002;
    /// Close code for a peer whose text is not UTF-8.
    pub const NOT_UTF8: u16 = 1007;
    /// Close code for a peer that sent too large a message.
    pub const TOO_LARGE: u16 = 1009;
    /// Close code of an end that is not normal.
    pub const ERROR: u16 = 1011;

    /// Whether the peer ended in order. A Close without a code is such an end: official
    /// clients send no other (RFC 6455, 7.1.5).
    pub fn is_normal(&self) -> bool {
        matches!(self.code, Self::NORMAL | Self::NO_CODE)
    }
}

/// What comes from the peer.
#[derive(Debug)]
pub enum Incoming {
    /// A non-empty data message.
    Data(Data),
    /// The peer closed in order; nothing more will come.
    Closed(CloseFrame),
}

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
