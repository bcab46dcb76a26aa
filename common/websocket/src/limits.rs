//! Sizes and times of every WebSocket, each with its reason. Sizes are bytes.

use std::time::Duration;

/// Largest message that is sent: the stated maximum of IoT Hub's gateway.
pub const STREAM_MESSAGE: usize = 65_536;
/// Largest message that a [`WebSocket`](crate::WebSocket) accepts: some SDKs join chunks.
pub const STREAM_MESSAGE_ACCEPTED: usize = 16 << 20;
/// Bytes a WebSocket gathers before it writes without being flushed: what is larger goes out by
/// itself, and a peer that takes nothing leaves little here.
pub const WRITE_BUFFER: usize = 32 << 10;
/// Read size while little comes, of whatever is read: keystrokes need no more.
pub const SMALL_READ: usize = 4 << 10;
/// Small reads in a row after which a large buffer is given back.
pub const SMALL_READS: u8 = 16;
/// How often a silent peer is pinged, by both ends.
pub const PING: Duration = Duration::from_secs(10);
/// How long the answer may take when nothing else is on its way to that peer.
pub const PONG: Duration = Duration::from_secs(10);
/// Delivering what is left, and the closing handshakes, once an end is decided.
pub const CLOSE: Duration = Duration::from_secs(5);
