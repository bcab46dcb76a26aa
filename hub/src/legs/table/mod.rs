//! Streams and their two legs, and the rules between them. No I/O, no clock, no task: `T` is
//! whatever the caller keeps of a stream, and moments are arguments.

mod unjoined;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use common::identity::{DeviceIdentity, Leg, StreamId};
use common::room::spare;

use unjoined::{Holder, Unjoined};

use crate::limits::{Limit, Over, Whose};

/// Why a stream cannot be entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ExpectRefused {
    /// There are as many as there may be.
    #[error("too many streams at once: {0}")]
    TooMany(Over),
    /// The hub is going down.
    #[error("the hub is stopping")]
    Stopping,
}

/// When one whose streams are too many may ask again: some end at any time.
const RETRY: Duration = Duration::from_secs(1);

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

/// How many streams there may be at once.
#[derive(Debug, Clone, Copy)]
pub struct Most {
    /// In any state.
    pub streams: usize,
    /// That are accepted, and whose legs have not met,
    pub unjoined: usize,
    /// of one identity,
    pub unjoined_per_identity: usize,
    /// and asked for with one policy.
    pub unjoined_per_policy: usize,
}

/// How many streams at once, in any state, who asks for one may have.
#[derive(Debug, Clone, Copy, Default)]
pub struct Own {
    /// Of this identity, if that is limited,
    pub of_identity: Option<usize>,
    /// and with this policy.
    pub of_policy: Option<usize>,
}

struct Entry<T> {
    holder: Holder,
    /// The device takes the stream: both legs must come by then.
    legs_by: Option<Instant>,
    /// Its number among the unjoined, as long as it is one of them.
    unjoined: Option<u64>,
    device_claimed: bool,
    service_claimed: bool,
    arrived: u8,
    value: T,
}

/// A stream that was taken out of the table, and how far it had come.
#[derive(Debug, PartialEq, Eq)]
pub struct Removed<T> {
    /// Which it was.
    pub stream: StreamId,
    /// Its device or module.
    pub identity: DeviceIdentity,
    /// Whether its device has accepted it.
    pub is_accepted: bool,
    /// How many of its legs have brought their sockets.
    pub arrived: u8,
    /// What the caller has kept of it.
    pub value: T,
}

impl<T> Entry<T> {
    fn removed(self, stream: StreamId) -> Removed<T> {
        Removed {
            stream,
            identity: self.holder.identity,
            is_accepted: self.legs_by.is_some(),
            arrived: self.arrived,
            value: self.value,
        }
    }
}

/// All streams of a hub.
pub struct Table<T> {
    streams: HashMap<StreamId, Entry<T>>,
    identities: HashMap<DeviceIdentity, HashSet<StreamId>>,
    policies: HashMap<String, usize>,
    unjoined: Unjoined,
    /// Streams that were accepted so far.
    accepted: u64,
    most: Most,
    is_closed: bool,
}

impl<T> Table<T> {
    /// From now on at most so many; none ends for that.
    pub fn set_most(&mut self, most: Most) {
        self.most = most;
    }

    /// An empty table of at most so many streams.
    pub fn new(most: Most) -> Self {
        Self {
            streams: HashMap::new(),
            identities: HashMap::new(),
            policies: HashMap::new(),
            unjoined: Unjoined::default(),
            accepted: 0,
            most,
            is_closed: false,
        }
    }

    /// Number of streams in any state.
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// Whose a stream is.
    pub fn identity_of(&self, stream: StreamId) -> Option<&DeviceIdentity> {
        let entry = self.streams.get(&stream)?;
        Some(&entry.holder.identity)
    }

    /// What the caller keeps of a stream.
    pub fn get(&self, stream: StreamId) -> Option<&T> {
        self.streams.get(&stream).map(|entry| &entry.value)
    }

    /// What the caller keeps of a stream, to change it.
    pub fn get_mut(&mut self, stream: StreamId) -> Option<&mut T> {
        self.streams.get_mut(&stream).map(|entry| &mut entry.value)
    }

    /// Enters a stream that its device has not accepted yet. In a full table, or where its identity
    /// or policy has as many as it may, it takes the place of one whose legs have not met, which is
    /// returned.
    ///
    /// # Errors
    /// [`ExpectRefused`]; nothing has changed then.
    pub fn expect(
        &mut self,
        stream: StreamId,
        identity: &DeviceIdentity,
        policy: &str,
        own: Own,
        value: T,
    ) -> Result<Option<Removed<T>>, ExpectRefused> {
        if self.is_closed {
            return Err(ExpectRefused::Stopping);
        }
        let evicted = match self.full(identity, policy, own) {
            None => None,
            Some((_, Some(first))) => self.remove(first),
            Some((whose, None)) => {
                return Err(ExpectRefused::TooMany(Over {
                    limit: Limit::Streams,
                    whose,
                    retry_after: RETRY,
                }));
            }
        };
        let entry = Entry {
            holder: Holder {
                identity: identity.clone(),
                policy: policy.to_owned(),
            },
            legs_by: None,
            unjoined: None,
            device_claimed: false,
            service_claimed: false,
            arrived: 0,
            value,
        };
        self.streams.insert(stream, entry);
        let own = self.identities.entry(identity.clone()).or_default();
        own.insert(stream);
        *self.policies.entry(policy.to_owned()).or_default() += 1;
        Ok(evicted)
    }

    /// What is full, and which stream makes room there, if one does.
    fn full(
        &self,
        identity: &DeviceIdentity,
        policy: &str,
        own: Own,
    ) -> Option<(Whose, Option<StreamId>)> {
        let is_full = |count: Option<usize>, most: Option<usize>| {
            most.is_some_and(|most| count.unwrap_or_default() >= most)
        };
        let of_identity = self.identities.get(identity).map(HashSet::len);
        if is_full(of_identity, own.of_identity) {
            return Some((Whose::Device, self.unjoined.first_of_identity(identity)));
        }
        if is_full(self.policies.get(policy).copied(), own.of_policy) {
            return Some((Whose::Policy, self.unjoined.first_of_policy(policy)));
        }
        let is_full = self.streams.len() >= self.most.streams;
        is_full.then(|| (Whose::Hub, self.unjoined.first()))
    }

    /// The device takes the stream: its legs may meet until then. Those that wait longer for their
    /// legs and have to make room for it are returned. `None`: the stream is gone.
    pub fn accept(&mut self, stream: StreamId, legs_by: Instant) -> Option<Vec<Removed<T>>> {
        let entry = self.streams.get_mut(&stream)?;
        let is_first = entry.legs_by.replace(legs_by).is_none();
        let holder = entry.holder.clone();
        let mut evicted = Vec::new();
        if !is_first || entry.arrived >= 2 {
            return Some(evicted);
        }
        while let Some(first) = self.crowded_out(&holder) {
            let Some(removed) = self.remove(first) else {
                break;
            };
            evicted.push(removed);
        }
        self.accepted += 1;
        let number = self.accepted;
        if let Some(entry) = self.streams.get_mut(&stream) {
            entry.unjoined = Some(number);
            self.unjoined.insert(&holder, number, stream);
        }
        Some(evicted)
    }

    /// Which unjoined stream has to go before this holder may have another one.
    fn crowded_out(&self, holder: &Holder) -> Option<StreamId> {
        let Holder { identity, policy } = holder;
        let (unjoined, most) = (&self.unjoined, &self.most);
        if unjoined.of_identity(identity) >= most.unjoined_per_identity {
            unjoined.first_of_identity(identity)
        } else if unjoined.of_policy(policy) >= most.unjoined_per_policy {
            unjoined.first_of_policy(policy)
        } else if unjoined.len() >= most.unjoined {
            unjoined.first()
        } else {
            None
        }
    }

    /// Uses up a leg's one right to come. The device's leg may come before its accept,
    /// the service's cannot: it learns of the stream by the accept.
    ///
    /// # Errors
    /// [`LegRefused`] when the stream is unknown or over, or the leg has come before.
    pub fn claim(&mut self, stream: StreamId, leg: Leg) -> Result<DeviceIdentity, LegRefused> {
        let entry = self.streams.get_mut(&stream).ok_or(LegRefused)?;
        let claimed = match leg {
            Leg::Device => &mut entry.device_claimed,
            Leg::Service if entry.legs_by.is_some() => &mut entry.service_claimed,
            Leg::Service => return Err(LegRefused),
        };
        if std::mem::replace(claimed, true) {
            return Err(LegRefused);
        }
        Ok(entry.holder.identity.clone())
    }

    /// A claimed leg brings its socket.
    pub fn arrive(&mut self, stream: StreamId) -> Option<Arrival> {
        let entry = self.streams.get_mut(&stream)?;
        entry.arrived += 1;
        match entry.arrived {
            1 => Some(Arrival::First),
            2 => {
                if let Some(number) = entry.unjoined.take() {
                    self.unjoined.remove(&entry.holder, number);
                }
                Some(Arrival::Second)
            }
            _ => None,
        }
    }

    /// Removes a stream, whatever its state.
    pub fn remove(&mut self, stream: StreamId) -> Option<Removed<T>> {
        let entry = self.streams.remove(&stream)?;
        spare(&mut self.streams);
        let identity = &entry.holder.identity;
        if let Some(own) = self.identities.get_mut(identity) {
            own.remove(&stream);
            if own.is_empty() {
                self.identities.remove(identity);
            }
        }
        if let Some(count) = self.policies.get_mut(&entry.holder.policy) {
            *count -= 1;
            if *count == 0 {
                self.policies.remove(&entry.holder.policy);
            }
        }
        if let Some(number) = entry.unjoined {
            self.unjoined.remove(&entry.holder, number);
        }
        Some(entry.removed(stream))
    }

    /// Removes all streams of an identity.
    pub fn remove_all(&mut self, identity: &DeviceIdentity) -> Vec<Removed<T>> {
        let streams = self.identities.get(identity).cloned().unwrap_or_default();
        streams
            .into_iter()
            .filter_map(|stream| self.remove(stream))
            .collect()
    }

    /// Removes all streams of all identities.
    pub fn remove_everything(&mut self) -> Vec<Removed<T>> {
        self.remove_where(|_| true)
    }

    /// Removes the accepted streams whose legs have not met in time.
    pub fn remove_expired(&mut self, now: Instant) -> Vec<Removed<T>> {
        self.remove_where(|entry| entry.arrived < 2 && entry.legs_by.is_some_and(|by| by <= now))
    }

    /// Takes no more streams, and removes those whose legs have not met.
    pub fn close(&mut self) -> Vec<Removed<T>> {
        self.is_closed = true;
        self.remove_where(|entry| entry.arrived < 2)
    }

    /// What the caller keeps of each stream.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.streams.values().map(|entry| &entry.value)
    }

    /// Removes the streams of which the caller keeps something like this.
    pub fn remove_matching(&mut self, is_meant: impl Fn(&T) -> bool) -> Vec<Removed<T>> {
        self.remove_where(|entry| is_meant(&entry.value))
    }

    /// The devices and modules that have streams.
    pub fn identities(&self) -> impl Iterator<Item = &DeviceIdentity> {
        self.identities.keys()
    }

    fn remove_where(&mut self, condition: impl Fn(&Entry<T>) -> bool) -> Vec<Removed<T>> {
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
}

#[cfg(test)]
mod tests;
