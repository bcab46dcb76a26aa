//! What crosses a simulated path, and when. Times are nanoseconds since the start, sizes bytes.

/// A time, or a duration, in nanoseconds.
pub type Nanos = u64;

/// A millisecond.
pub const MS: Nanos = 1_000_000;
/// A second.
pub const SECOND: Nanos = 1_000_000_000;

/// Payload of a full TCP segment on Ethernet, with timestamps.
pub const SEGMENT: u64 = 1448;
/// Bytes of headers of a segment, below its payload: Ethernet, IP, TCP with timestamps.
pub const HEADERS: u64 = 66;

/// A TCP segment, or the acknowledgement of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Which TCP half-connection it belongs to.
    pub half: usize,
    /// The segment's number.
    pub number: u64,
    /// How often the segment had been sent before.
    pub attempt: u32,
    /// It acknowledges the segment, instead of carrying it.
    pub is_ack: bool,
    /// Bytes on the wire.
    pub size: u64,
    /// When its TCP sent the segment.
    pub sent: Nanos,
    /// When it entered the queue.
    pub queued: Nanos,
}
