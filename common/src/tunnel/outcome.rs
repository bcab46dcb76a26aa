//! How a tunnel ended.

use std::io;

use device_stream_websocket::{CloseFrame, WebSocketError};

/// What ended a tunnel.
#[derive(Debug, thiserror::Error)]
pub enum End {
    /// The local side ended, and the peer sent nothing more.
    #[error("closed by the local side")]
    LocalClosed,
    /// The peer ended.
    #[error("closed by the other side")]
    PeerClosed,
    /// The peer ended the stream in a way that is not normal.
    #[error("ended by the other side ({}{})", .0.code, if .0.reason.is_empty() { String::new() } else { format!(", {}", .0.reason) })]
    PeerAborted(CloseFrame),
    /// The local connection failed.
    #[error("the local connection broke")]
    LocalFailed(#[source] io::Error),
    /// The stream's WebSocket was lost.
    #[error("the stream was lost")]
    StreamLost(#[source] WebSocketError),
    /// The device no longer offers the target.
    #[error("ended because the target was withdrawn")]
    Withdrawn,
    /// The hours at which the device offers the target are over.
    #[error("ended because the hours of the target are over")]
    OutOfHours,
    /// An operator has asked for its end.
    #[error("ended because an operator has closed it")]
    ByOperator,
    /// This program is stopping.
    #[error("ended because the program stops")]
    Stopped,
}

impl End {
    /// Whether both sides had sent everything.
    pub fn is_normal(&self) -> bool {
        matches!(self, Self::LocalClosed | Self::PeerClosed)
    }
}

/// The outcome of a tunnel, or, with another type of end, of a connection in a session.
pub type Outcome<E = End> = device_stream_session::Outcome<E>;
