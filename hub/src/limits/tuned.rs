//! The limits that an operator may tune, and where they change while the hub runs.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::identity::DeviceIdentity;
use common::locks::lock;

use super::share::{self, Share};
use super::{
    CONNECTIONS, DRAIN, HTTP_BODY, HTTP_BODY_TIME, MQTT_PACKET, PENDING_PER_DEVICE, STRANGER,
    STREAMS_PER_HUB,
};

/// What an operator may tune.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once, on each listener, as far as there are descriptors for them.
    pub connections: usize,
    /// Connections at once that have not shown yet who they are, on all listeners: each may cost
    /// some 16 KiB, and so many handshakes are some seconds of work for two cores.
    pub strangers: usize,
    /// The same from one address (one /64 of IPv6), and half of them at most: behind it may be a
    /// whole site whose devices come back at once.
    pub strangers_per_address: usize,
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
    /// Streams at once; more are throttled (429), once none of them waits for its legs.
    pub streams: usize,
    /// Accepted streams at once whose legs have not met: each has at most a minute for that, and
    /// usually takes less than a second. When there are more, the oldest one ends of the policy
    /// that has most of them, and there of the identity that has most. So whoever never joins its
    /// streams shuts out nobody, and most places are left for streams that are used.
    pub unjoined: usize,
    /// The same for one identity: as many as may wait for its answer.
    pub unjoined_per_device: usize,
    /// The same for one shared access policy: half of all. Many services may share a policy; then
    /// the identity that has most of them gives way first.
    pub unjoined_per_policy: usize,
    /// Stream requests that wait for one device; more are throttled (429).
    pub pending_per_device: usize,
    /// What there may be of other things in the whole hub,
    pub hub: Share,
    /// of each shared access policy,
    pub each_policy: Share,
    /// and of each device or module.
    pub each_device: Share,
    /// Policies for which other numbers hold.
    pub policies: Vec<(String, Share)>,
    /// The same for devices, by a pattern: the first one that fits counts.
    pub devices: Vec<(String, Share)>,
    /// Bytes of a packet of MQTT from a device.
    pub packet: usize,
    /// Bytes of a request's body: a bulk request of 100 identities fits.
    pub body: usize,
    /// How long a request's body may take.
    pub body_time: Duration,
    /// Grace for open streams when the hub stops.
    pub drain: Duration,
}

impl Limits {
    /// What there may be of a policy.
    pub fn of_policy(&self, name: &str) -> &Share {
        let mut own = self.policies.iter().filter(|(of, _)| of == name);
        own.next().map_or(&self.each_policy, |(_, share)| share)
    }

    /// Which exception holds for a device or module, by its place in [`Self::devices`]. A module's
    /// own name counts, as `device/module`, and then its device's.
    pub fn exception_of(&self, identity: &DeviceIdentity) -> Option<usize> {
        if self.devices.is_empty() {
            return None;
        }
        let whole = identity.to_string();
        let names = [whole.as_str(), identity.device.as_str()];
        let mut patterns = self.devices.iter();
        patterns.position(|(pattern, _)| names.iter().any(|name| share::fits(pattern, name)))
    }

    /// What there may be of a device or module.
    pub fn of_device(&self, identity: &DeviceIdentity) -> &Share {
        let exception = self.exception_of(identity);
        let exception = exception.and_then(|place| self.devices.get(place));
        exception.map_or(&self.each_device, |(_, share)| share)
    }
}

/// The limits in force. They can change while the hub runs; clones are the same ones.
#[derive(Debug, Clone)]
pub struct LimitsInForce(Arc<Mutex<Arc<Limits>>>);

impl LimitsInForce {
    /// At first these.
    pub fn new(limits: Limits) -> Self {
        Self(Arc::new(Mutex::new(Arc::new(limits))))
    }

    /// What they are now.
    pub fn now(&self) -> Arc<Limits> {
        Arc::clone(&lock(&self.0))
    }

    pub(crate) fn set(&self, limits: Limits) {
        *lock(&self.0) = Arc::new(limits);
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: CONNECTIONS,
            strangers: 8_192,
            strangers_per_address: 4_096,
            strangers_share: 4,
            handshake: STRANGER,
            refusals: const { NonZeroU32::new(100).unwrap() },
            refusals_per_second: const { NonZeroU32::new(2).unwrap() },
            streams: STREAMS_PER_HUB,
            unjoined: 4_096,
            unjoined_per_device: PENDING_PER_DEVICE,
            unjoined_per_policy: 2_048,
            pending_per_device: PENDING_PER_DEVICE,
            hub: share::HUB,
            each_policy: share::EACH_POLICY,
            each_device: share::EACH_DEVICE,
            policies: Vec::new(),
            devices: Vec::new(),
            packet: MQTT_PACKET,
            body: HTTP_BODY,
            body_time: HTTP_BODY_TIME,
            drain: DRAIN,
        }
    }
}
