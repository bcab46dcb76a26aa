//! Every timeout, queue depth and size cap, each with its reason. Sizes are bytes.

use std::time::Duration;

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
/// How often a silent leg is pinged, at the hub and at both proxies.
pub const LEG_PING: Duration = Duration::from_secs(10);
/// How long the answer may take when nothing else is on its way to that peer.
pub const LEG_PONG: Duration = Duration::from_secs(10);

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
/// Delivering what is left, and the closing handshakes, once an end is decided.
pub const CLOSE: Duration = Duration::from_secs(5);
/// Grace for open tunnels when a program has to stop.
pub const DRAIN: Duration = Duration::from_secs(5);

// --- Sizes on the data path ---

/// Largest WebSocket message that is sent: the gateway's stated maximum.
pub const STREAM_MESSAGE: usize = 65_536;
/// Largest WebSocket message that is accepted on a leg: some SDKs join chunks.
pub const STREAM_MESSAGE_ACCEPTED: usize = 16 << 20;
/// Bytes a WebSocket gathers before it writes without being flushed: what is larger goes out by
/// itself, and a peer that takes nothing leaves little here.
pub const WEBSOCKET_WRITE_BUFFER: usize = 32 << 10;
/// What TLS takes at once from a WebSocket: all that this may have gathered, and so in one write to
/// the system, and nothing that stays behind and keeps a whole message in memory.
pub const TLS_WRITE_BUFFER: usize = WEBSOCKET_WRITE_BUFFER + STREAM_MESSAGE + 64;

// --- Session mode (`docs/session-protocol.md`) ---

/// How often a session's end is sent to its peer, whatever else is sent.
pub const SESSION_PING: Duration = Duration::from_secs(10);
/// A carrier on which nothing came for this long is dead: known within 20 s.
pub const SESSION_SILENCE: Duration = Duration::from_secs(19);
/// From an open leg to the peer's greeting: it has reported that it speaks session mode, and
/// may be at the end of a bad path.
pub const SESSION_HANDSHAKE: Duration = Duration::from_secs(10);
/// The answer to a resume, and a device's wait for hello or resume: the peer is known to
/// support session mode, and may be at the end of a bad path.
pub const SESSION_RESUME: Duration = Duration::from_secs(10);
/// How long a device is asked for plain streams only, after it was wrong about itself.
pub const SESSION_PLAIN: Duration = Duration::from_secs(3600);
/// How long both ends keep a detached session, unless configured otherwise: a lid that is
/// closed on Friday is opened on Monday.
pub const SESSION_GRACE: Duration = Duration::from_secs(72 * 3600);
/// A session without connections gives its stream back after this.
pub const SESSION_IDLE: Duration = Duration::from_secs(600);
/// How long a held-back acknowledgement waits for company.
pub const SESSION_ACK_DELAY: Duration = Duration::from_millis(25);
/// Bytes received after which an acknowledgement is not held back, wanted or not.
pub const SESSION_ACK_BYTES: u64 = 512 << 10;
/// First window of a carrier: TCP's slow start is below it anyway.
pub const SESSION_WINDOW_FIRST: u64 = 256 << 10;
/// Smallest window: a few chunks.
pub const SESSION_WINDOW_LEAST: u64 = 64 << 10;
/// Largest window, and so the most that is kept for a replay: 120 ms at 1 Gbit/s.
pub const SESSION_WINDOW_MOST: u64 = 16 << 20;
/// By so much what is small may exceed a full window: keystrokes do not wait for bulk.
pub const SESSION_WINDOW_SMALL: u64 = 64 << 10;
/// Connections that a device has ready for sessions that are about to be opened again.
pub const SESSION_AHEAD: usize = 4;
/// How long after its loss such a session is expected back any moment.
pub const SESSION_AHEAD_TIME: Duration = Duration::from_secs(120);
/// A hub waits 30 s for the first words on a connection; it is made anew before that.
pub const SESSION_AHEAD_LIFE: Duration = Duration::from_secs(20);
/// The most that is waited for an answer on one: it may be dead.
pub const SESSION_AHEAD_ANSWER: Duration = Duration::from_secs(3);
/// Between attempts to make one.
pub const SESSION_AHEAD_RETRY: Duration = Duration::from_secs(1);
/// Largest chunk of a connection: with its headers one message of the streaming endpoint.
pub const SESSION_CHUNK: usize = STREAM_MESSAGE - 32;
/// Smallest limit of a chunk, on slow paths.
pub const SESSION_CHUNK_LEAST: usize = 4 << 10;
/// What each end may send on a new connection before it is given credit (protocol).
pub const SESSION_CREDIT_FIRST: u64 = 64 << 10;
/// Most that is buffered for one connection whose reader is slow.
pub const SESSION_CREDIT_MOST: u64 = 16 << 20;
/// Credit beyond the first that all connections of a session share.
pub const SESSION_CREDIT_SHARED: u64 = 32 << 20;
/// A round trip that is shorter is taken for this long when credit grows.
pub const SESSION_ROUND_TRIP_LEAST: Duration = Duration::from_millis(2);
/// Connections at once in one session.
pub const SESSION_CONNECTIONS: usize = 4_096;
/// Inner connections at once in all sessions of a device-proxy.
pub const DEVICE_CONNECTIONS: usize = 8_192;
/// Sessions at once, detached ones included.
pub const SESSIONS: usize = 1_024;
/// Bytes that all detached sessions of a process may hold.
pub const SESSION_DETACHED_BYTES: u64 = 64 << 20;
/// Connections that all detached sessions of a process may have: half of what a device-proxy
/// has, so that there is room for those who are there.
pub const SESSION_DETACHED_CONNECTIONS: usize = DEVICE_CONNECTIONS / 2;
/// Longest text of a peer that is repeated to a person, in bytes: fits in a short frame.
pub const SESSION_TEXT: usize = 200;

// --- MQTT ---

/// Largest MQTT packet of a device: 256 KiB of telemetry and its topic.
pub const MQTT_PACKET: usize = (256 << 10) + (4 << 10);
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
/// Twin writes of one hub in one transaction: the database has one writer, and the disk's
/// time for one is its time for many.
pub const TWIN_WRITES: usize = 256;
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
