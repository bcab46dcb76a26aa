//! Sizes and times of session mode (`docs/session-protocol.md`), each with its reason. Sizes are
//! bytes.

use std::time::Duration;

pub use device_stream_websocket::limits::{CLOSE, STREAM_MESSAGE};

/// How long an end may send nothing before it sends a PING.
pub const PING: Duration = Duration::from_secs(10);
/// A carrier on which nothing arrives for this long is dead: detected within 20 s.
pub const SILENCE: Duration = Duration::from_secs(19);
/// From an open leg to the peer's greeting: the peer has reported that it supports session mode,
/// and the path may be bad.
pub const HANDSHAKE: Duration = Duration::from_secs(10);
/// The wait for the answer to a resume, and a device's wait for HELLO or RESUME: the peer is known
/// to support session mode, and the path may be bad.
pub const RESUME: Duration = Duration::from_secs(10);
/// How long an acknowledgement is held back, so that it covers more bytes.
pub const ACK_DELAY: Duration = Duration::from_millis(25);
/// Bytes received after which an acknowledgement is sent at once, even if it was not requested.
pub const ACK_BYTES: u64 = 512 << 10;
/// First window of a carrier: TCP's slow start allows less at first.
pub const WINDOW_FIRST: u64 = 256 << 10;
/// Smallest window: a few chunks.
pub const WINDOW_LEAST: u64 = 16 << 10;
/// Largest window, and so the most that is kept for a replay: 1 Gbit/s at 400 ms.
pub const WINDOW_MOST: u64 = 48 << 20;
/// Bytes of a carrier that its socket may hold before they are sent: enough to keep TCP busy, and
/// little for a keystroke to wait behind.
pub const CARRIER_UNSENT: u32 = 32 << 10;
/// How far small messages may exceed a full window: keystrokes do not wait for bulk.
pub const WINDOW_SMALL: u64 = 64 << 10;
/// Largest chunk of a connection: with its headers one message of the streaming endpoint.
pub const CHUNK: usize = STREAM_MESSAGE - 32;
/// Smallest limit of a chunk, on slow paths.
pub const CHUNK_LEAST: usize = 4 << 10;
/// Bytes that each end may send on a new connection before it gets credit (part of the protocol).
pub const CREDIT_FIRST: u64 = 64 << 10;
/// Most that is buffered for one connection whose reader is slow: a window and a third, since credit
/// comes in quarters.
pub const CREDIT_MOST: u64 = 64 << 20;
/// Credit beyond the first that all connections of a session share, if the program has the memory.
pub const CREDIT_SHARED: u64 = 96 << 20;
/// Shorter round trips count as this long for the growth of credit.
pub const ROUND_TRIP_LEAST: Duration = Duration::from_millis(2);
/// Connections at once in one session.
pub const CONNECTIONS: usize = 4_096;
/// Sessions at once, detached ones included.
pub const SESSIONS: usize = 1_024;
/// Bytes that all detached sessions of a process may hold.
pub const DETACHED_BYTES: u64 = 64 << 20;
/// Connections that all detached sessions of a process may have: half of a device-proxy's limit, so
/// that attached sessions have room.
pub const DETACHED_CONNECTIONS: usize = 4_096;
/// Longest text of a peer that is displayed, in bytes: it fits in a control frame.
pub const TEXT: usize = 200;
