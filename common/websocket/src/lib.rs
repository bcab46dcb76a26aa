//! WebSockets for relays and proxies: non-empty data messages in both directions, pings that are
//! handled internally, and an end that states its cause. The framing is our own: memory is held
//! only while bytes flow, and payload is forwarded without copies. The upgrade is a library's.
//!
//! ```text
//! socket        WebSocket: data messages, and a keepalive that detects a dead peer
//! byte_stream   WebSocketBytes: a byte stream, without message boundaries
//! frames        sends and receives frames over an upgraded stream, and closes it
//! decoder       decodes bytes to messages, without I/O
//! outbox        encodes messages to bytes, without I/O
//! header, mask  the parts of a frame
//! keepalive     when to ping, and when silence means that the peer is gone
//! upgrade       the server's answer to an upgrade request
//! ```
//!
//! Everything is poll-based, and a caller may stop polling at any time: a message is either
//! returned or still there, so that one task can drive two sockets.

mod byte_stream;
mod decoder;
mod error;
mod frames;
mod header;
pub mod keepalive;
pub mod limits;
pub mod mask;
mod message;
mod outbox;
pub mod random;
mod role;
mod socket;
pub mod text;
mod upgrade;

pub use byte_stream::WebSocketBytes;
pub use decoder::{Decoder, Event};
pub use error::{ViolationError, WebSocketError};
pub use header::{Header, Opcode};
pub use message::{CloseFrame, Data, Incoming, Kind};
pub use outbox::Outbox;
pub use socket::WebSocket;
pub use upgrade::{offered_subprotocol, upgrade_answer};
