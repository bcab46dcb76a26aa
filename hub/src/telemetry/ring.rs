//! The latest telemetry of devices. No I/O, no clock: bounded for each identity, and in all.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;
use common::identity::{DeviceId, DeviceIdentity};

/// What is kept of one identity: enough to look at what it has done, and no store.
const MOST_OF_ONE: usize = 100;
/// Bytes of it, its topics included.
const MOST_BYTES_OF_ONE: usize = 512 << 10;
/// Bytes of all.
const MOST_BYTES: usize = 64 << 20;
/// What a message costs beside its content.
const OVERHEAD: usize = 256;

/// A message that a device has sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telemetry {
    /// Counts up from message to message, from 1.
    pub sequence: u64,
    /// When the hub got it, Unix microseconds.
    pub enqueued: u64,
    /// Who has sent it.
    pub identity: DeviceIdentity,
    /// Its properties, as they stand in the topic of MQTT: `name=value&name=value`, encoded.
    pub properties: String,
    /// Whatever the device has sent.
    pub payload: Bytes,
}

impl Telemetry {
    fn size(&self) -> usize {
        OVERHEAD + self.properties.len() + self.payload.len()
    }
}

/// What is kept of one identity.
#[derive(Debug, Default)]
struct Own {
    sequences: VecDeque<u64>,
    bytes: usize,
}

/// The latest messages of all identities.
#[derive(Debug)]
pub(super) struct Ring {
    messages: BTreeMap<u64, Telemetry>,
    identities: HashMap<DeviceIdentity, Own>,
    bytes: usize,
    last: u64,
    most_bytes: usize,
}

impl Default for Ring {
    fn default() -> Self {
        Self {
            messages: BTreeMap::new(),
            identities: HashMap::new(),
            bytes: 0,
            last: 0,
            most_bytes: MOST_BYTES,
        }
    }
}

impl Ring {
    /// The sequence of the last message.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// Adds a message; the oldest make room.
    pub(super) fn push(
        &mut self,
        identity: &DeviceIdentity,
        properties: String,
        payload: Bytes,
        now: u64,
    ) {
        self.last += 1;
        let message = Telemetry {
            sequence: self.last,
            enqueued: now,
            identity: identity.clone(),
            properties,
            payload,
        };
        let own = self.identities.entry(identity.clone()).or_default();
        own.sequences.push_back(self.last);
        own.bytes += message.size();
        self.bytes += message.size();
        self.messages.insert(self.last, message);
        while let Some(own) = self.identities.get(identity)
            && (own.sequences.len() > MOST_OF_ONE || own.bytes > MOST_BYTES_OF_ONE)
            && let Some(oldest) = own.sequences.front().copied()
        {
            self.remove(oldest);
        }
        while self.bytes > self.most_bytes
            && let Some(oldest) = self.messages.keys().next().copied()
        {
            self.remove(oldest);
        }
    }

    fn remove(&mut self, sequence: u64) {
        let Some(message) = self.messages.remove(&sequence) else {
            return;
        };
        self.bytes -= message.size();
        if let Some(own) = self.identities.get_mut(&message.identity) {
            own.bytes -= message.size();
            // The oldest of all is the oldest of its identity, too.
            own.sequences.pop_front();
            if own.sequences.is_empty() {
                self.identities.remove(&message.identity);
            }
        }
    }

    /// The messages behind this one, of one device and its modules or of all: at most `limit`.
    pub(super) fn after(
        &self,
        sequence: u64,
        device: Option<&DeviceId>,
        limit: usize,
    ) -> Vec<Telemetry> {
        let behind = self.messages.range(sequence.saturating_add(1)..);
        behind
            .map(|(_, message)| message)
            .filter(|message| device.is_none_or(|device| message.identity.device == *device))
            .take(limit)
            .cloned()
            .collect()
    }

    /// How many messages of all identities between two are no longer there, both excluded.
    pub(super) fn lost_between(&self, after: u64, before: u64) -> u64 {
        let between = before.saturating_sub(after).saturating_sub(1);
        let kept = self
            .messages
            .range(after.saturating_add(1)..before.max(after + 1));
        between.saturating_sub(kept.count() as u64)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn identity(number: u8) -> DeviceIdentity {
        DeviceIdentity::of_device(DeviceId::parse(&format!("d{number}")).unwrap())
    }

    #[test]
    fn the_latest_of_each_are_kept() {
        let mut ring = Ring::default();
        for _ in 0..2 {
            ring.push(&identity(1), "a=b".to_owned(), Bytes::new(), 7);
        }
        for _ in 0..MOST_OF_ONE + 10 {
            ring.push(&identity(0), String::new(), Bytes::from_static(b"x"), 8);
        }
        let of = |number: u8| ring.after(0, Some(&identity(number).device), 1_000);
        assert_eq!((of(0).len(), of(1).len()), (MOST_OF_ONE, 2));
        assert_eq!(of(0)[0].sequence, 13);
        assert_eq!(ring.after(13, None, 3).len(), 3);
        assert_eq!(ring.lost_between(0, 14), 10);
        assert_eq!(ring.lost_between(2, 13), 10);
        assert_eq!(ring.lost_between(13, 20), 0);
        assert_eq!(
            (ring.lost_between(5, 3), ring.lost_between(u64::MAX - 1, 0)),
            (0, 0)
        );
        ring.push(
            &identity(0),
            String::new(),
            vec![0; MOST_BYTES_OF_ONE].into(),
            9,
        );
        assert_eq!(
            ring.after(0, Some(&identity(0).device), 9),
            [],
            "too large to be kept"
        );
    }

    proptest! {
        #[test]
        fn never_more_than_there_is_room_for(
            sent in proptest::collection::vec((0..4u8, 0..2_000usize), 0..300),
        ) {
            let mut ring = Ring { most_bytes: 100_000, ..Ring::default() };
            for (number, size) in sent {
                ring.push(&identity(number), String::new(), vec![0; size].into(), 0);
                let bytes: usize = ring.messages.values().map(Telemetry::size).sum();
                prop_assert!(bytes == ring.bytes && bytes <= 100_000);
                let counted: usize = ring.identities.values().map(|own| own.sequences.len()).sum();
                prop_assert_eq!(counted, ring.messages.len());
                let own: usize = ring.identities.values().map(|own| own.bytes).sum();
                prop_assert_eq!(own, bytes);
            }
        }
    }
}
