//! Sizes and times of every WebSocket, each with its reason. Sizes are bytes.

use std::time::Duration;

/// Largest message that is sent: the documented maximum of IoT Hub's gateway.
pub const STREAM_MESSAGE: usize = 65_536;
/// Largest message that a [`WebSocket`](crate::WebSocket) accepts: some SDKs join chunks.
pub const STREAM_MESSAGE_ACCEPTED: usize = 16 << 20;
/// Bytes that a WebSocket queues before it writes without being flushed: enough for efficient
/// writes, and little memory when a peer takes nothing.
pub const WRITE_BUFFER: usize = 32 << 10;
/// Read size while little arrives: keystrokes need no more.
pub const SMALL_READ: usize = 4 << 10;
/// Small reads in a row after which a large buffer is freed.
pub const SMALL_READS: u8 = 16;
/// Buffers of a connection on which only a few bytes move for this long are freed.
pub const IDLE: Duration = Duration::from_millis(500);
/// How often a silent peer is pinged, by both ends.
pub const PING: Duration = Duration::from_secs(10);
/// How long the answer may take when no other data is in flight to that peer.
pub const PONG: Duration = Duration::from_secs(10);
/// Time for delivering the rest and for the closing handshakes, once a connection ends.
pub const CLOSE: Duration = Duration::from_secs(5);
