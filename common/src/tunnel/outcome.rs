//! How a tunnel ended: counts for the log, and whether it was a normal end.

use std::io;
use std::time::Duration;

use crate::websocket::{CloseFrame, WebSocketError};

/// Who or what ended a tunnel.
#[derive(Debug, thiserror::Error)]
pub enum End {
    /// The local side was done, and the peer had nothing more to say.
    #[error("closed by the local side")]
    LocalClosed,
    /// The peer was done.
    #[error("closed by the other side")]
    PeerClosed,
    /// The peer ended the stream in a way that is not normal.
    #[error("ended by the other side ({}{})", .0.code, if .0.reason.is_empty() { String::new() } else { format!(", {}", .0.reason) })]
    PeerAborted(CloseFrame),
    /// The local connection broke.
    #[error("the local connection broke")]
    LocalFailed(#[source] io::Error),
    /// The stream's WebSocket was lost.
    #[error("the stream was lost")]
    StreamLost(#[source] WebSocketError),
    /// This program is stopping.
    #[error("ended because the program stops")]
    Stopped,
}

impl End {
    /// Whether both sides had sent all they wanted.
    pub fn is_normal(&self) -> bool {
        matches!(self, Self::LocalClosed | Self::PeerClosed)
    }
}

/// What became of a local connection: of a tunnel, or with another kind of end of a connection in a
/// session.
#[derive(Debug)]
pub struct Outcome<E = End> {
    /// Bytes from the local socket.
    pub sent: u64,
    /// Bytes to the local socket.
    pub received: u64,
    /// From the first moment at which bytes could be copied to the last.
    pub duration: Duration,
    /// How it ended.
    pub end: E,
}
