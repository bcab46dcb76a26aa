//! Timeouts, queue depths and size caps of a service-proxy, each with its reason; those that it
//! shares with others are `common`'s. Sizes are bytes.

use std::time::Duration;

pub use common::limits::*;

// --- Session mode (`docs/session-protocol.md`) ---

/// How long a device is asked for plain streams only, after it was wrong about itself.
pub const SESSION_PLAIN: Duration = Duration::from_secs(3600);
/// A session without connections gives its stream back after this.
pub const SESSION_IDLE: Duration = Duration::from_secs(600);

// --- Approvals ---

/// How long a connection waits for somebody to approve it, unless the configuration says otherwise.
pub const APPROVAL_WAIT: Duration = Duration::from_secs(600);

// --- Twins (IoT Hub's limits, unless a reason stands there) ---

/// A service's read of a twin: it comes before a stream, which should not wait long.
pub const TWIN_READ: Duration = Duration::from_secs(5);
/// Largest twin document that a client reads: two sections and tags, with metadata of
/// some 50 bytes for each property.
pub const TWIN_DOCUMENT: usize = 256 << 10;

// --- Direct methods ---

/// The shortest time that hubs let a device have for its answer to a direct method.
pub const METHOD_SHORTEST: Duration = Duration::from_secs(5);

// --- HTTP ---

/// Largest answer body a client reads.
pub const HTTP_ANSWER: usize = 64 << 10;
/// How long the hub may take for an answer that it gives by itself: a query may scan all twins.
pub const CALL: Duration = Duration::from_secs(60);
/// What an answer may take beyond the time that the hub waits for a device or a message.
pub const CALL_GRACE: Duration = Duration::from_secs(15);
/// How long a call is repeated while the hub throttles.
pub const THROTTLED: Duration = Duration::from_secs(120);

// --- Clients of the proxy port ---

/// How long a client may take for its request: programs send it at once, people may type it.
pub const PROXY_REQUEST: Duration = Duration::from_secs(30);
/// How long a client may take to read its answer, which its socket has room for.
pub const PROXY_ANSWER: Duration = Duration::from_secs(5);

// --- Fleets ---

/// Items of one page of a query or a list: IoT Hub's most.
pub const PAGE_ITEMS: usize = 100;
/// Largest page that is read: every twin in it may be as large as a twin can be.
pub const PAGE: usize = PAGE_ITEMS * TWIN_DOCUMENT;
/// Largest answer of a direct method: 128 KiB of payload, and what surrounds it.
pub const METHOD_ANSWER: usize = 256 << 10;
/// Largest page of telemetry that is read: stream-hub's have 100 messages of 256 KiB, in base64.
pub const TELEMETRY_PAGE: usize = 48 << 20;
/// Longest line of a command's output that is printed as one.
pub const OUTPUT_LINE: usize = 16 << 10;
/// Largest input document of a command: larger ones are refused by every hub.
pub const INPUT_DOCUMENT: u64 = 1 << 20;

// --- Numbers ---

/// Devices that a service-proxy has sessions with at once: each session is a connection to the hub.
pub const DEVICES: usize = 512;
/// Local connections at once that a service-proxy carries.
pub const LOCAL_CONNECTIONS: usize = 2_048;
