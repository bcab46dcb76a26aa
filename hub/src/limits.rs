//! What an operator may tune, with the numbers that hold otherwise. What belongs to the protocol,
//! or what nobody has a reason to change, is a constant where it is used.

use std::num::NonZeroU32;

use common::limits;
use tokio::time::Duration;

/// What an operator may tune.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once, on each listener, as far as there are descriptors for them.
    pub connections: usize,
    /// Connections at once that have not shown yet who they are, on all listeners: each may cost
    /// some 16 KiB, and so many handshakes are some seconds of work for two cores.
    pub strangers: usize,
    /// They have one in so many descriptors: a device needs one for a moment as a stranger, and
    /// then for days as a device.
    pub strangers_share: usize,
    /// How long they may take for each step: TLS, then a request's head or an MQTT CONNECT.
    pub handshake: Duration,
    /// So many refusals in a row an address may have, a site whose devices all have an old key
    /// included,
    pub refusals: NonZeroU32,
    /// and so many a second in the long run.
    pub refusals_per_second: NonZeroU32,
    /// Streams at once; more are throttled (429).
    pub streams: usize,
    /// Stream requests that wait for one device; more are throttled (429).
    pub pending_per_device: usize,
    /// Bytes of a request's body: a bulk request of 100 identities fits.
    pub body: usize,
    /// How long a request's body may take.
    pub body_time: Duration,
    /// Grace for open streams when the hub stops.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: limits::CONNECTIONS,
            strangers: 8_192,
            strangers_share: 4,
            handshake: limits::STRANGER,
            refusals: const { NonZeroU32::new(100).unwrap() },
            refusals_per_second: const { NonZeroU32::new(2).unwrap() },
            streams: limits::STREAMS_PER_HUB,
            pending_per_device: limits::PENDING_PER_DEVICE,
            body: limits::HTTP_BODY,
            body_time: limits::HTTP_BODY_TIME,
            drain: limits::DRAIN,
        }
    }
}
