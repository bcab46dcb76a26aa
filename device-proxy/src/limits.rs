//! Timeouts, queue depths and size caps of a device-proxy, each with its reason; those that it
//! shares with others are `common`'s. Sizes are bytes.

use std::time::Duration;

pub use common::limits::*;

// --- Handshakes ---

/// CONNECT to CONNACK and SUBSCRIBE to SUBACK; the C SDK waits as long.
pub const MQTT_HANDSHAKE: Duration = Duration::from_secs(30);
/// TCP connect of device-proxy to a target: well inside the stream handshake, so
/// that an unreachable target is a reject and not a timeout.
pub const TARGET_CONNECT: Duration = Duration::from_secs(10);

/// How long a target that is examined may take for its first word: servers send theirs at once.
pub const TARGET_WORD: Duration = Duration::from_secs(3);

// --- Liveness ---

/// How often device-proxy pings its hub session.
pub const HUB_SESSION_PING: Duration = Duration::from_secs(10);
/// How long the answer to that ping may take.
pub const HUB_SESSION_PONG: Duration = Duration::from_secs(8);
/// MQTT keep-alive that device-proxy announces; the hub drops it after 1.5 times.
pub const MQTT_KEEP_ALIVE: Duration = Duration::from_secs(30);

// --- Session mode (`docs/session-protocol.md`) ---

/// Inner connections at once in all sessions of a device-proxy.
pub const DEVICE_CONNECTIONS: usize = 2 * SESSION_DETACHED_CONNECTIONS;

// --- Rules for targets ---

/// Approval commands that run at once: each is a process, and perhaps a question to a person.
pub const APPROVALS: usize = 8;
/// Approvals that are remembered; where there are more, somebody is asked again.
pub const APPROVALS_REMEMBERED: usize = 256;
/// How long an approval command may take, by default and at most: well inside the stream handshake,
/// so that a silent one is a reject and not a timeout.
pub const APPROVAL: Duration = Duration::from_secs(50);
/// How often the clock is looked at while hours may end: it may be set.
pub const HOURS_LOOK: Duration = Duration::from_secs(30);

// --- Twins (IoT Hub's limits, unless a reason stands there) ---

/// A device-proxy's wait for the hub's answer to its report, before it repeats it; C devices
/// wait 300 s.
pub const TWIN_ANSWER: Duration = Duration::from_secs(30);
/// The same when the program stops: its end is waited for.
pub const TWIN_WITHDRAWAL: Duration = Duration::from_secs(2);

// --- Numbers ---

/// Streams at once that a device-proxy serves; more are rejected.
pub const STREAMS_PER_DEVICE: usize = 512;
