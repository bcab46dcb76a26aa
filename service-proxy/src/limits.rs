//! Timeouts, queue depths and size caps of a service-proxy, each with its reason; those that it
//! shares with others are `common`'s. Sizes are bytes.

use std::time::Duration;

pub use common::limits::*;

// --- Session mode (`docs/session-protocol.md`) ---

/// How long a device is asked for plain streams only, after it was wrong about itself.
pub const SESSION_PLAIN: Duration = Duration::from_secs(3600);
/// A session without connections gives its stream back after this.
pub const SESSION_IDLE: Duration = Duration::from_secs(600);

// --- Twins (IoT Hub's limits, unless a reason stands there) ---

/// A service's read of a twin: it comes before a stream, which should not wait long.
pub const TWIN_READ: Duration = Duration::from_secs(5);
/// Largest twin document that a client reads: two sections and tags, with metadata of
/// some 50 bytes for each property.
pub const TWIN_DOCUMENT: usize = 256 << 10;

// --- HTTP ---

/// Largest answer body a client reads.
pub const HTTP_ANSWER: usize = 64 << 10;

// --- Numbers ---

/// Local connections at once that a service-proxy carries.
pub const LOCAL_CONNECTIONS: usize = 2_048;
