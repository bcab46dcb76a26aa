//! The states of streams and the rules between them. No I/O and no clock: `T` is
//! whatever the caller keeps of a stream, and moments are arguments.

use std::collections::{BTreeMap, HashMap, HashSet};

use common::identity::{DeviceId, DeviceIdentity, Leg, StreamId};
use common::limits;
use tokio::time::Instant;

use crate::presence::HubSessionId;

/// There are too many streams, at the hub or for this device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Busy {
    /// The hub's limit.
    #[error("the hub has too many streams at once")]
    Hub,
    /// The device's limit of unanswered requests.
    #[error("too many stream requests wait for this device")]
    Device,
    /// The hub is going down.
    #[error("the hub is stopping")]
    Stopping,
}

/// A leg comes to a stream that does not wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stream is over or does not wait for this leg")]
pub struct LegRefused;

/// Which of the two legs brought its socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// The other is not here yet.
    First,
    /// Both are here now.
    Second,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The device has not answered.
    Requested { sent_on: Option<HubSessionId> },
    /// The device takes the stream; both legs must come by then.
    Accepted { legs_by: Instant },
}

struct Entry<T> {
    identity: DeviceIdentity,
    number: u64,
    phase: Phase,
    device_claimed: bool,
    service_claimed: bool,
    arrived: u8,
    value: T,
}

/// The streams of one identity. Those that wait are looked through at each request, so
/// they are not among the thousands that may be open.
#[derive(Default)]
struct OfIdentity {
    /// Without an answer, by request number.
    waiting: BTreeMap<u64, StreamId>,
    accepted: HashSet<StreamId>,
}

impl OfIdentity {
    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.accepted.is_empty()
    }
}

/// All streams of a hub.
pub struct Table<T> {
    streams: HashMap<StreamId, Entry<T>>,
    identities: HashMap<DeviceIdentity, OfIdentity>,
    next_number: u64,
    closed: bool,
}

impl<T> Table<T> {
    /// An empty table; request ids count up from `first_number`, which should differ
    /// from start to start, so that a late answer meets no stranger's request.
    pub fn new(first_number: u64) -> Self {
        Self {
            streams: HashMap::new(),
            identities: HashMap::new(),
            next_number: first_number,
            closed: false,
        }
    }

    /// Number of streams in any state.
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// What the caller keeps of a stream.
    pub fn get(&self, stream: StreamId) -> Option<&T> {
        self.streams.get(&stream).map(|entry| &entry.value)
    }

    /// What the caller keeps of a stream, to change it.
    pub fn get_mut(&mut self, stream: StreamId) -> Option<&mut T> {
        self.streams.get_mut(&stream).map(|entry| &mut entry.value)
    }

    /// Enters a stream; `make` is given its request number.
    pub fn open(
        &mut self,
        stream: StreamId,
        identity: DeviceIdentity,
        make: impl FnOnce(u64) -> T,
    ) -> Result<(), Busy> {
        if self.closed {
            return Err(Busy::Stopping);
        }
        if self.streams.len() >= limits::STREAMS_PER_HUB {
            return Err(Busy::Hub);
        }
        let own = self.identities.entry(identity.clone()).or_default();
        if own.waiting.len() >= limits::PENDING_PER_DEVICE {
            return Err(Busy::Device);
        }
        self.next_number += 1;
        let number = self.next_number;
        own.waiting.insert(number, stream);
        let entry = Entry {
            identity,
            number,
            phase: Phase::Requested { sent_on: None },
            device_claimed: false,
            service_claimed: false,
            arrived: 0,
            value: make(number),
        };
        self.streams.insert(stream, entry);
        Ok(())
    }

    /// The unanswered requests that have not gone to this connection, oldest first;
    /// from now on they have.
    pub fn undelivered(
        &mut self,
        identity: &DeviceIdentity,
        connection: HubSessionId,
    ) -> Vec<StreamId> {
        let Some(own) = self.identities.get(identity) else {
            return Vec::new();
        };
        let mut taken = Vec::new();
        for stream in own.waiting.values() {
            if let Some(Entry {
                phase: Phase::Requested { sent_on },
                ..
            }) = self.streams.get_mut(stream)
                && *sent_on != Some(connection)
            {
                *sent_on = Some(connection);
                taken.push(*stream);
            }
        }
        taken
    }

    /// Takes a device's answer; the stream it belongs to, or `None` when no such
    /// request waits for an answer of this identity.
    pub fn answer(
        &mut self,
        identity: &DeviceIdentity,
        number: u64,
        accepted: bool,
        legs_by: Instant,
    ) -> Option<StreamId> {
        let own = self.identities.get_mut(identity)?;
        let stream = *own.waiting.get(&number)?;
        let entry = self.streams.get_mut(&stream)?;
        match entry.phase {
            // A request that was never sent cannot have been answered.
            Phase::Requested { sent_on: Some(_) } => {
                if accepted {
                    entry.phase = Phase::Accepted { legs_by };
                    own.waiting.remove(&number);
                    own.accepted.insert(stream);
                }
                Some(stream)
            }
            _ => None,
        }
    }

    /// Uses up a leg's one right to come. The device's leg may come before its accept,
    /// the service's cannot: it learns of the stream by the accept.
    pub fn claim(&mut self, stream: StreamId, leg: Leg) -> Result<DeviceIdentity, LegRefused> {
        let entry = self.streams.get_mut(&stream).ok_or(LegRefused)?;
        let accepted = matches!(entry.phase, Phase::Accepted { .. });
        let claimed = match leg {
            Leg::Device => &mut entry.device_claimed,
            Leg::Service if accepted => &mut entry.service_claimed,
            Leg::Service => return Err(LegRefused),
        };
        if std::mem::replace(claimed, true) {
            return Err(LegRefused);
        }
        Ok(entry.identity.clone())
    }

    /// A claimed leg brings its socket.
    pub fn arrive(&mut self, stream: StreamId) -> Option<Arrival> {
        let entry = self.streams.get_mut(&stream)?;
        entry.arrived += 1;
        match entry.arrived {
            1 => Some(Arrival::First),
            2 => Some(Arrival::Second),
            _ => None,
        }
    }

    /// Removes a stream, whatever its state.
    pub fn remove(&mut self, stream: StreamId) -> Option<T> {
        let entry = self.streams.remove(&stream)?;
        if let Some(own) = self.identities.get_mut(&entry.identity) {
            own.waiting.remove(&entry.number);
            own.accepted.remove(&stream);
            if own.is_empty() {
                self.identities.remove(&entry.identity);
            }
        }
        Some(entry.value)
    }

    /// Removes a stream that its service waits for no longer, unless it was accepted.
    pub fn give_up(&mut self, stream: StreamId) -> Option<T> {
        let entry = self.streams.get(&stream)?;
        if matches!(entry.phase, Phase::Accepted { .. }) {
            return None;
        }
        self.remove(stream)
    }

    fn remove_where(&mut self, condition: impl Fn(&Entry<T>) -> bool) -> Vec<T> {
        let found: Vec<StreamId> = self
            .streams
            .iter()
            .filter(|(_, entry)| condition(entry))
            .map(|(stream, _)| *stream)
            .collect();
        found
            .into_iter()
            .filter_map(|stream| self.remove(stream))
            .collect()
    }

    /// The identities of a device, itself and its modules, that have streams.
    pub fn identities_of(&self, device: &DeviceId) -> Vec<DeviceIdentity> {
        let own = |identity: &&DeviceIdentity| identity.device == *device;
        self.identities.keys().filter(own).cloned().collect()
    }

    /// The devices that have streams, themselves or by a module.
    pub fn devices(&self) -> Vec<DeviceId> {
        let keys = self.identities.keys();
        keys.map(|identity| identity.device.clone()).collect()
    }

    /// Removes all streams of all identities.
    pub fn remove_everything(&mut self) -> Vec<T> {
        self.remove_where(|_| true)
    }

    /// Removes all streams of an identity.
    pub fn remove_all(&mut self, identity: &DeviceIdentity) -> Vec<T> {
        let streams: Vec<StreamId> = self
            .identities
            .get(identity)
            .map(|own| own.waiting.values().chain(&own.accepted).copied().collect())
            .unwrap_or_default();
        streams
            .into_iter()
            .filter_map(|stream| self.remove(stream))
            .collect()
    }

    /// Removes the accepted streams whose legs have not met in time.
    pub fn remove_expired(&mut self, now: Instant) -> Vec<T> {
        self.remove_where(|entry| {
            entry.arrived < 2
                && matches!(entry.phase, Phase::Accepted { legs_by } if legs_by <= now)
        })
    }

    /// Takes no more streams, and removes those whose legs have not met.
    pub fn close(&mut self) -> Vec<T> {
        self.closed = true;
        self.remove_where(|entry| entry.arrived < 2)
    }
}

#[cfg(test)]
mod tests;
