//! Streams and their two legs, and the rules between them. No I/O, no clock, no task: `T` is
//! whatever the caller keeps of a stream, and moments are arguments.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use common::identity::{DeviceId, DeviceIdentity, Leg, StreamId};

/// Why a stream cannot be entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ExpectRefused {
    /// There are as many as there may be.
    #[error("the hub has too many streams at once")]
    TooMany,
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

struct Entry<T> {
    identity: DeviceIdentity,
    /// The device takes the stream: both legs must come by then.
    legs_by: Option<Instant>,
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
            identity: self.identity,
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
    /// Streams at once.
    most: usize,
    is_closed: bool,
}

impl<T> Table<T> {
    /// An empty table of at most so many streams.
    pub fn new(most: usize) -> Self {
        Self {
            streams: HashMap::new(),
            identities: HashMap::new(),
            most,
            is_closed: false,
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

    /// Enters a stream that its device has not accepted yet.
    ///
    /// # Errors
    /// [`ExpectRefused`]; nothing has changed then.
    pub fn expect(
        &mut self,
        stream: StreamId,
        identity: &DeviceIdentity,
        value: T,
    ) -> Result<(), ExpectRefused> {
        if self.is_closed {
            return Err(ExpectRefused::Stopping);
        }
        if self.streams.len() >= self.most {
            return Err(ExpectRefused::TooMany);
        }
        let entry = Entry {
            identity: identity.clone(),
            legs_by: None,
            device_claimed: false,
            service_claimed: false,
            arrived: 0,
            value,
        };
        self.streams.insert(stream, entry);
        let own = self.identities.entry(identity.clone()).or_default();
        own.insert(stream);
        Ok(())
    }

    /// The device takes the stream: its legs may meet until then. `false`: the stream is gone.
    pub fn accept(&mut self, stream: StreamId, legs_by: Instant) -> bool {
        let Some(entry) = self.streams.get_mut(&stream) else {
            return false;
        };
        entry.legs_by = Some(legs_by);
        true
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
    pub fn remove(&mut self, stream: StreamId) -> Option<Removed<T>> {
        let entry = self.streams.remove(&stream)?;
        if let Some(own) = self.identities.get_mut(&entry.identity) {
            own.remove(&stream);
            if own.is_empty() {
                self.identities.remove(&entry.identity);
            }
        }
        Some(entry.removed(stream))
    }

    /// Removes all streams of an identity.
    pub fn remove_all(&mut self, identity: &DeviceIdentity) -> Vec<Removed<T>> {
        let streams = self.identities.remove(identity).unwrap_or_default();
        streams
            .into_iter()
            .filter_map(|stream| Some(self.streams.remove(&stream)?.removed(stream)))
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
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    /// Streams at once.
    const MOST: usize = 100;
    const LEGS_IN: Duration = Duration::from_secs(60);

    fn identity(name: &str) -> DeviceIdentity {
        DeviceIdentity::of_device(DeviceId::parse(name).unwrap())
    }

    fn expect(table: &mut Table<u64>, name: &str, value: u64) -> StreamId {
        let stream = StreamId::random();
        table.expect(stream, &identity(name), value).unwrap();
        stream
    }

    fn values(removed: impl IntoIterator<Item = Removed<u64>>) -> Vec<u64> {
        removed.into_iter().map(|removed| removed.value).collect()
    }

    #[test]
    fn the_usual_life() {
        let now = Instant::now();
        let mut table = Table::new(MOST);
        let stream = expect(&mut table, "d", 5);
        assert!(
            table.claim(stream, Leg::Device).is_ok(),
            "before its accept"
        );
        let early = table.claim(stream, Leg::Service);
        assert_eq!(early, Err(LegRefused), "not before the accept");
        assert!(table.accept(stream, now));
        assert!(table.claim(stream, Leg::Service).is_ok());
        for leg in [Leg::Device, Leg::Service] {
            let again = table.claim(stream, leg);
            assert_eq!(again, Err(LegRefused), "a token works once");
        }
        assert_eq!(table.arrive(stream), Some(Arrival::First));
        assert_eq!(table.arrive(stream), Some(Arrival::Second));
        let later = now + Duration::from_secs(1);
        assert!(table.remove_expired(later).is_empty(), "joined");
        let removed = Removed {
            stream,
            identity: identity("d"),
            is_accepted: true,
            arrived: 2,
            value: 5,
        };
        assert_eq!(table.remove(stream), Some(removed));
        assert_eq!((table.len(), table.identities.len()), (0, 0));
        assert!(!table.accept(stream, now), "gone");
    }

    #[test]
    fn what_does_not_come_in_time_goes() {
        let now = Instant::now();
        let mut table = Table::new(MOST);
        let stream = expect(&mut table, "d", 5);
        let late = now + Duration::from_secs(100);
        assert!(table.remove_expired(late).is_empty(), "not accepted yet");
        table.accept(stream, now + LEGS_IN);
        table.claim(stream, Leg::Device).unwrap();
        table.arrive(stream);
        assert!(table.remove_expired(now).is_empty());
        let expired = table.remove_expired(now + LEGS_IN);
        assert!(expired.iter().all(|it| it.is_accepted && it.arrived == 1));
        assert_eq!(values(expired), [5]);
        assert_eq!(table.claim(stream, Leg::Service), Err(LegRefused));
    }

    #[test]
    fn the_hub_has_a_limited_number_of_streams() {
        let mut table = Table::new(MOST);
        for number in 0..MOST {
            expect(&mut table, &format!("d{}", number % 3), 0);
        }
        let full = table.expect(StreamId::random(), &identity("d"), 0);
        assert_eq!(full, Err(ExpectRefused::TooMany));
    }

    #[test]
    fn a_closed_table_takes_no_more_and_keeps_what_has_met() {
        let mut table = Table::new(MOST);
        let met = expect(&mut table, "d", 1);
        expect(&mut table, "d", 2);
        table.accept(met, Instant::now());
        table.arrive(met);
        table.arrive(met);
        let closed = table.close();
        assert!(closed.iter().all(|it| !it.is_accepted && it.arrived == 0));
        assert_eq!(values(closed), [2]);
        assert!(table.get(met).is_some());
        let late = table.expect(StreamId::random(), &identity("d"), 3);
        assert_eq!(late, Err(ExpectRefused::Stopping));
    }

    /// One step of a random history.
    #[derive(Debug, Clone)]
    enum Step {
        Expect(u8),
        Accept(u8),
        Claim(u8, bool),
        Arrive(u8),
        Remove(u8),
        RemoveAll(u8),
        Expire,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..3u8).prop_map(Step::Expect),
            (0..20u8).prop_map(Step::Accept),
            (0..20u8, any::<bool>()).prop_map(|(s, l)| Step::Claim(s, l)),
            (0..20u8).prop_map(Step::Arrive),
            (0..20u8).prop_map(Step::Remove),
            (0..3u8).prop_map(Step::RemoveAll),
            Just(Step::Expire),
        ]
    }

    proptest! {
        /// Whatever the order of events, the two indexes agree, no leg comes twice, and a
        /// removed stream leaves nothing behind.
        #[test]
        fn random_histories_keep_the_table_whole(steps in proptest::collection::vec(step(), 0..80)) {
            let start = Instant::now();
            let mut table = Table::new(MOST);
            let mut known: Vec<StreamId> = Vec::new();
            let mut claims = HashMap::<(StreamId, bool), u32>::new();
            let name = |n: u8| identity(&format!("d{n}"));
            let pick = |known: &[StreamId], n: u8| known.get(usize::from(n)).copied().unwrap_or_else(StreamId::random);
            for step in steps {
                match step {
                    Step::Expect(d) => {
                        let stream = StreamId::random();
                        table.expect(stream, &name(d), 0).unwrap();
                        known.push(stream);
                    }
                    Step::Accept(s) => {
                        let stream = pick(&known, s);
                        prop_assert_eq!(table.accept(stream, start), table.get(stream).is_some());
                    }
                    Step::Claim(s, device) => {
                        let stream = pick(&known, s);
                        let leg = if device { Leg::Device } else { Leg::Service };
                        if table.claim(stream, leg).is_ok() {
                            let count = claims.entry((stream, device)).or_default();
                            *count += 1;
                            prop_assert_eq!(*count, 1);
                        }
                    }
                    Step::Arrive(s) => { table.arrive(pick(&known, s)); }
                    Step::Remove(s) => { table.remove(pick(&known, s)); }
                    Step::RemoveAll(d) => {
                        table.remove_all(&name(d));
                        prop_assert!(!table.identities.contains_key(&name(d)));
                    }
                    Step::Expire => { table.remove_expired(start); }
                }
                let indexed: usize = table.identities.values().map(HashSet::len).sum();
                prop_assert_eq!(indexed, table.streams.len());
                for (identity, own) in &table.identities {
                    prop_assert!(!own.is_empty());
                    for stream in own {
                        prop_assert_eq!(&table.streams[stream].identity, identity);
                    }
                }
            }
        }
    }
}
