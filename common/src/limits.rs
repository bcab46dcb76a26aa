//! Every timeout, queue depth and size cap, each with its reason. Sizes are bytes.

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

/// Whole stream handshake, from the service's POST to its answer; also the most
/// that each time limit header may ask for (`docs/protocol.md`, "Time limits").
pub const STREAM_HANDSHAKE: Duration = Duration::from_secs(60);
/// How long an accepted stream waits for both of its legs, counted from the accept.
pub const LEG_ARRIVAL: Duration = Duration::from_secs(60);
/// TCP connect to a hub or a streaming endpoint.
pub const TCP_CONNECT: Duration = Duration::from_secs(10);
/// TCP connect, TLS and upgrade to a hub or streaming endpoint, together.
pub const DIAL: Duration = Duration::from_secs(20);
/// CONNECT to CONNACK and SUBSCRIBE to SUBACK; the C SDK waits as long.
pub const MQTT_HANDSHAKE: Duration = Duration::from_secs(30);
/// TCP connect of device-proxy to a target: well inside the stream handshake, so
/// that an unreachable target is a reject and not a timeout.
pub const TARGET_CONNECT: Duration = Duration::from_secs(10);
/// TLS at the hub, then again a request head or MQTT CONNECT, or a stalled answer:
/// strangers that say nothing, or read nothing, are gone after this.
pub const STRANGER: Duration = Duration::from_secs(30);
/// Writing to a device's hub session: a device that does not read is gone.
pub const SESSION_WRITE: Duration = Duration::from_secs(15);

// --- Credentials ---

/// Clock difference that a hub forgives a SAS token, as the C# SDK's checker does.
pub const CLOCK_SKEW: Duration = Duration::from_secs(300);
/// Life of the SAS tokens that our clients mint; the SDKs' usual value.
pub const SAS_TOKEN_LIFE: Duration = Duration::from_secs(3600);
/// Longest streaming token: the C sample copies `Bearer <token>` into 1,024 bytes.
pub const STREAM_TOKEN_LENGTH: usize = 1016;

// --- Liveness ---

/// How often device-proxy pings its hub session.
pub const HUB_SESSION_PING: Duration = Duration::from_secs(10);
/// How long the answer to that ping may take.
pub const HUB_SESSION_PONG: Duration = Duration::from_secs(8);
/// MQTT keep-alive that device-proxy announces; the hub drops it after 1.5 times.
pub const MQTT_KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Longest keep-alive a hub honours: 1.5 times IoT Hub's largest client value.
pub const MQTT_KEEP_ALIVE_MAX: Duration = Duration::from_secs(1767);

// --- Endings ---

/// After the local end of input: how long the peer may stay silent before a plain
/// stream, which has no half-close, is closed.
pub const HALF_CLOSE_LINGER: Duration = Duration::from_secs(5);
/// What was received before an end is delivered, however slowly it is taken; after so long without
/// a byte that moved the reader is given up, and a connection of a peer that has vanished with it.
pub const LEG_DELIVER: Duration = Duration::from_secs(25);
/// So long the hub keeps back its answer to a leg's Close until the other leg has all that was
/// sent before it: an answered Close shall mean that nothing was lost.
pub const LEG_CONFIRM: Duration = Duration::from_secs(10);
/// The surviving leg's answer to our Close, at the hub.
pub const LEG_CLOSE: Duration = Duration::from_secs(10);
/// Grace for open tunnels when a program has to stop.
pub const DRAIN: Duration = Duration::from_secs(5);

// --- Sizes on the data path ---

/// What TLS takes at once from a WebSocket: all that this may have gathered, and so in one write to
/// the system, and nothing that stays behind and keeps a whole message in memory.
pub const TLS_WRITE_BUFFER: usize = WRITE_BUFFER + STREAM_MESSAGE + 64;

// --- Session mode (`docs/session-protocol.md`) ---

/// How long a device is asked for plain streams only, after it was wrong about itself.
pub const SESSION_PLAIN: Duration = Duration::from_secs(3600);
/// How long both ends keep a detached session, unless configured otherwise: a lid that is
/// closed on Friday is opened on Monday.
pub const SESSION_GRACE: Duration = Duration::from_secs(72 * 3600);
/// A session without connections gives its stream back after this.
pub const SESSION_IDLE: Duration = Duration::from_secs(600);
/// Inner connections at once in all sessions of a device-proxy.
pub const DEVICE_CONNECTIONS: usize = 2 * SESSION_DETACHED_CONNECTIONS;

// --- MQTT ---

/// Largest MQTT packet of a device: 256 KiB of telemetry and its topic.
pub const MQTT_PACKET: usize = (256 << 10) + (4 << 10);
/// Largest WebSocket message under MQTT: SDKs send one packet in each, or some small ones.
pub const MQTT_WEBSOCKET_MESSAGE: usize = MQTT_PACKET + (4 << 10);
/// Largest first packet: CONNECT with user name, SAS token and a small will. Strangers get no
/// more: with TLS, 16 KiB is what each makes a hub hold. With the head of a WebSocket message
/// it fits into 4 KiB.
pub const MQTT_CONNECT_PACKET: usize = 4000;
/// Read chunk of an MQTT session.
pub const MQTT_READ: usize = 4 << 10;

// --- Twins (IoT Hub's limits, unless a reason stands there) ---

/// Desired properties, or reported ones, as compact JSON without metadata.
pub const TWIN_SECTION: usize = 32 << 10;
/// One patch as it comes in: a whole section, with room for blanks and nulls.
pub const TWIN_PATCH: usize = 2 * TWIN_SECTION;
/// A property's name.
pub const TWIN_KEY: usize = 1 << 10;
/// A property's text.
pub const TWIN_STRING: usize = 4 << 10;
/// Objects and arrays within each other, the section itself not counted.
pub const TWIN_DEPTH: usize = 10;
/// Smallest whole number.
pub const TWIN_INTEGER_MIN: i64 = -(1 << 52);
/// Largest whole number.
pub const TWIN_INTEGER_MAX: i64 = (1 << 52) - 1;
/// Requests about its twin that a hub keeps of one session, the one it is at included. A
/// device that asks for more meanwhile is not read from.
pub const TWIN_REQUESTS: usize = 8;
/// Twin writes of one hub in one transaction: the database has one writer, and the disk's
/// time for one is its time for many.
pub const TWIN_WRITES: usize = 256;
/// How long what a device has asked for before it left is still carried out.
pub const TWIN_FINISH: Duration = Duration::from_secs(30);
/// A device-proxy's wait for the hub's answer to its report, before it repeats it; C devices
/// wait 300 s.
pub const TWIN_ANSWER: Duration = Duration::from_secs(30);
/// The same when the program stops: its end is waited for.
pub const TWIN_WITHDRAWAL: Duration = Duration::from_secs(2);
/// A service's read of a twin: it comes before a stream, which should not wait long.
pub const TWIN_READ: Duration = Duration::from_secs(5);
/// Largest twin document that a client reads: two sections and tags, with metadata of
/// some 50 bytes for each property.
pub const TWIN_DOCUMENT: usize = 256 << 10;

// --- HTTP ---

/// Largest request head at the hub.
pub const HTTP_HEAD: usize = 16 << 10;
/// Largest request body at the hub: a bulk request of 100 identities fits.
pub const HTTP_BODY: usize = 512 << 10;
/// How long a request's body may take.
pub const HTTP_BODY_TIME: Duration = Duration::from_secs(30);
/// Largest answer body a client reads.
pub const HTTP_ANSWER: usize = 64 << 10;

// --- Registry ---

/// Identities in one bulk request (IoT Hub's limit).
pub const BULK_ITEMS: usize = 100;
/// Devices in one list, unless fewer are asked for (IoT Hub's limit).
pub const DEVICES_PER_LIST: usize = 1_000;
/// Changes the registry remembers: far more than happen between two looks at them.
pub const CHANGES_KEPT: u64 = 10_000;
/// Longest text that explains a status (IoT Hub's limit).
pub const STATUS_REASON_LENGTH: usize = 128;
/// How long a write to the registry waits for another process's.
pub const REGISTRY_BUSY: Duration = Duration::from_secs(10);

// --- Numbers ---

/// Connections in all, per listener of the hub.
pub const CONNECTIONS: usize = 100_000;
/// Stream requests waiting for one device; more are throttled (429).
pub const PENDING_PER_DEVICE: usize = 512;
/// Streams at once per hub; more are throttled (429).
pub const STREAMS_PER_HUB: usize = 20_000;
/// Streams at once that a device-proxy serves; more are rejected.
pub const STREAMS_PER_DEVICE: usize = 512;
/// Local connections at once that a service-proxy carries.
pub const LOCAL_CONNECTIONS: usize = 2_048;
