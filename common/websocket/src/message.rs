//! The messages of a WebSocket: data, and a Close.

use bytes::Bytes;

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
    pub(crate) kind: Kind,
    pub(crate) bytes: Bytes,
}

impl Data {
    /// A message of this type. A text must be UTF-8.
    #[inline]
    pub(crate) fn new(kind: Kind, bytes: Bytes) -> Self {
        Self { kind, bytes }
    }

    /// A binary message.
    #[inline]
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
    #[inline]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Payload length in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether the payload is empty.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The payload, whatever the type.
    #[inline]
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
    /// Represents a Close without a code (RFC 6455, 7.1.5); never sent.
    pub const NO_CODE: u16 = 1005;
    /// Close code of a normal end.
    pub const NORMAL: u16 = 1000;
    /// Close code of a peer that goes away.
    pub const AWAY: u16 = 1001;
    /// The receiver does not permit what the peer wants.
    pub const POLICY: u16 = 1008;
    /// Close code for a peer that violated the protocol.
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

/// What is received from the peer.
#[derive(Debug)]
pub enum Incoming {
    /// A non-empty data message.
    Data(Data),
    /// The peer sent a Close; nothing follows.
    Closed(CloseFrame),
}
