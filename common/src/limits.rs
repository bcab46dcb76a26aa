//! Timeouts, queue depths and size limits that several crates share, each with its reason. Sizes
//! are bytes. Limits of a single program are in its own `limits.rs`.

use std::time::Duration;

pub use device_stream_session::limits::{
    CHUNK as SESSION_CHUNK, CONNECTIONS as SESSION_CONNECTIONS,
    DETACHED_BYTES as SESSION_DETACHED_BYTES, DETACHED_CONNECTIONS as SESSION_DETACHED_CONNECTIONS,
    HANDSHAKE as SESSION_HANDSHAKE, RESUME as SESSION_RESUME, SESSIONS, SILENCE as SESSION_SILENCE,
};
use device_stream_websocket::limits::WRITE_BUFFER;
pub use device_stream_websocket::limits::{CLOSE, STREAM_MESSAGE, STREAM_MESSAGE_ACCEPTED};

// --- Names ---

/// Longest device id, module id, stream name or request id (IoT Hub's limit).
pub const ID_LENGTH: usize = 128;

// --- Handshakes ---

/// Whole stream handshake, from the service's POST to its answer; also the maximum of each time
/// limit header (`docs/protocol.md`, "Time limits").
pub const STREAM_HANDSHAKE: Duration = Duration::from_secs(60);
/// TCP connect to a hub or a streaming endpoint.
pub const TCP_CONNECT: Duration = Duration::from_secs(10);
/// Answer of a proxy to one request: it connects to the hub meanwhile.
pub const PROXY_ANSWER: Duration = Duration::from_secs(15);
/// TCP connect, TLS and upgrade to a hub or streaming endpoint, together.
pub const DIAL: Duration = Duration::from_secs(20);
/// Writing to a device's hub session: a device that does not read is gone.
pub const SESSION_WRITE: Duration = Duration::from_secs(15);

// --- Credentials ---

/// Clock difference that a hub tolerates in a SAS token, as the C# SDK's checker does.
pub const CLOCK_SKEW: Duration = Duration::from_secs(300);
/// Lifetime of the SAS tokens that our clients mint; the SDKs' usual value.
pub const SAS_TOKEN_LIFE: Duration = Duration::from_secs(3600);

// --- Endings ---

/// After the end of local input: how long the peer may stay silent before a plain stream, which has
/// no half-close, is closed.
pub const HALF_CLOSE_LINGER: Duration = Duration::from_secs(5);
/// Bytes that were received before an end are delivered, however slowly the reader takes them.
/// After this long without progress the connection is closed, since the peer may have vanished.
pub const LEG_DELIVER: Duration = Duration::from_secs(25);
/// Grace for open tunnels when a program has to stop.
pub const DRAIN: Duration = Duration::from_secs(5);

// --- Sizes on the data path ---

/// What TLS takes at once from a WebSocket: all that may be queued there. So it is one write to the
/// system, and no rest keeps a whole message in memory.
pub const TLS_WRITE_BUFFER: usize = WRITE_BUFFER + STREAM_MESSAGE + 64;

// --- Session mode (`docs/session-protocol.md`) ---

/// How long both ends keep a detached session by default: a laptop that is closed on Friday may be
/// opened on Monday.
pub const SESSION_GRACE: Duration = Duration::from_secs(72 * 3600);

// --- MQTT ---

/// Largest MQTT packet of a device: 256 KiB of telemetry and its topic.
pub const MQTT_PACKET: usize = (256 << 10) + (4 << 10);
/// Largest WebSocket message with MQTT: SDKs send one packet in each, or some small ones.
pub const MQTT_WEBSOCKET_MESSAGE: usize = MQTT_PACKET + MQTT_WEBSOCKET_ROOM;
/// What such a message may have beside its largest packet.
pub const MQTT_WEBSOCKET_ROOM: usize = 4 << 10;
/// Read size of an MQTT session.
pub const MQTT_READ: usize = 4 << 10;

// --- HTTP ---

/// Largest request head at the hub.
pub const HTTP_HEAD: usize = 16 << 10;

// --- Numbers ---

/// Stream requests waiting for one device; more are throttled (429).
pub const PENDING_PER_DEVICE: usize = 512;
/// Streams at once per hub; more are throttled (429).
pub const STREAMS_PER_HUB: usize = 20_000;
