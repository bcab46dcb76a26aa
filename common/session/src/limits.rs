//! Sizes and times of session mode (`docs/session-protocol.md`), each with its reason. Sizes are
//! bytes.

use std::time::Duration;

pub use device_stream_websocket::limits::{CLOSE, STREAM_MESSAGE};

/// How often a session's end is sent to its peer, whatever else is sent.
pub const PING: Duration = Duration::from_secs(10);
/// A carrier on which nothing came for this long is dead: known within 20 s.
pub const SILENCE: Duration = Duration::from_secs(19);
/// From an open leg to the peer's greeting: it has reported that it speaks session mode, and
/// may be at the end of a bad path.
pub const HANDSHAKE: Duration = Duration::from_secs(10);
/// The answer to a resume, and a device's wait for hello or resume: the peer is known to
/// support session mode, and may be at the end of a bad path.
pub const RESUME: Duration = Duration::from_secs(10);
/// How long a held-back acknowledgement waits for company.
pub const ACK_DELAY: Duration = Duration::from_millis(25);
/// Bytes received after which an acknowledgement is not held back, wanted or not.
pub const ACK_BYTES: u64 = 512 << 10;
/// First window of a carrier: TCP's slow start is below it anyway.
pub const WINDOW_FIRST: u64 = 256 << 10;
/// Smallest window: a few chunks.
pub const WINDOW_LEAST: u64 = 64 << 10;
/// Largest window, and so the most that is kept for a replay: 120 ms at 1 Gbit/s.
pub const WINDOW_MOST: u64 = 16 << 20;
/// By so much what is small may exceed a full window: keystrokes do not wait for bulk.
pub const WINDOW_SMALL: u64 = 64 << 10;
/// Largest chunk of a connection: with its headers one message of the streaming endpoint.
pub const CHUNK: usize = STREAM_MESSAGE - 32;
/// Smallest limit of a chunk, on slow paths.
pub const CHUNK_LEAST: usize = 4 << 10;
/// What each end may send on a new connection before it is given credit (protocol).
pub const CREDIT_FIRST: u64 = 64 << 10;
/// Most that is buffered for one connection whose reader is slow.
pub const CREDIT_MOST: u64 = 16 << 20;
/// Credit beyond the first that all connections of a session share.
pub const CREDIT_SHARED: u64 = 32 << 20;
/// A round trip that is shorter is taken for this long when credit grows.
pub const ROUND_TRIP_LEAST: Duration = Duration::from_millis(2);
/// Connections at once in one session.
pub const CONNECTIONS: usize = 4_096;
/// Sessions at once, detached ones included.
pub const SESSIONS: usize = 1_024;
/// Bytes that all detached sessions of a process may hold.
pub const DETACHED_BYTES: u64 = 64 << 20;
/// Connections that all detached sessions of a process may have: half of what a device-proxy
/// has, so that there is room for those who are there.
pub const DETACHED_CONNECTIONS: usize = 4_096;
/// Longest text of a peer that is repeated to a person, in bytes: fits in a short frame.
pub const TEXT: usize = 200;
