//! A WebSocket as relays and proxies need one: non-empty data messages in and out, pings kept to
//! itself, and an end that says how it came. Frames are our own, for memory that is held only while
//! bytes flow, and for payload that is passed on without copies; the upgrade is a library's.
//!
//! ```text
//! socket        WebSocket: data messages, and a keepalive that notices a dead peer
//! byte_stream   WebSocketBytes: a byte stream, where message borders mean nothing
//! frames        events in and frames out over an upgraded stream, and the closing handshake
//! decoder       bytes in, messages out, without I/O
//! outbox        messages in, bytes out, without I/O
//! header, mask  the parts of a frame
//! keepalive     when to ping, and when silence is death
//! upgrade       the server's answer to a client's wish
//! ```
//!
//! Everything is poll-based and cancel-safe: a message is either taken or still there, so that one
//! task can drive two sockets.

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
