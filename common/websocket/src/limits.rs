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
/// A client pings a server that has sent nothing for this long.
pub const PING: Duration = Duration::from_secs(10);
/// How long the answer may take when no other data is in flight to that server.
pub const PONG: Duration = Duration::from_secs(10);
/// The same for a server: its clients' pings come first, also on a slow path, and it need not send
/// its own. Official clients send none.
pub const SERVER_PING: Duration = Duration::from_secs(12);
/// The rest of the 20 s in which either end detects that the other one is gone. Lost packets are
/// sent again several times within it.
pub const SERVER_PONG: Duration = Duration::from_secs(8);
/// All pings of a process that are due within this time are sent together: a turn of the timer, and
/// of a task that was asleep, costs more than a ping. Of 20,000 streams some 500 have their turn
/// together then, which takes 10 ms.
pub const PING_TICK: Duration = Duration::from_millis(250);
/// A keepalive's timer is postponed by this much at least: not at each message.
pub const PING_TIMER: Duration = Duration::from_secs(1);
/// Time for delivering the rest and for the closing handshakes, once a connection ends.
pub const CLOSE: Duration = Duration::from_secs(5);
