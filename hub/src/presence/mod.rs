//! Which identities hold a hub session now. Presence is a guard: holding it means
//! connected, dropping it, on any path, means gone. The newest connection wins.

mod desired;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use common::identity::DeviceIdentity;
use common::locks::lock;
use common::room::spare;
use tokio::sync::{Notify, watch};

pub use self::desired::DesiredUpdate;
use self::desired::{DesiredQueue, Overflow};
use crate::auth::{Credential, DevicePrincipal};
use crate::registry::{Activity, ActivityRecord, DesiredChange, activity};

/// Names one connection of a device, to tell it from the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HubSessionId(u64);

/// Why the hub ends a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// The same identity has connected again.
    Displaced,
    /// The identity was disabled, deleted, or lost the key it came with.
    Revoked,
    /// Its desired properties change faster than it takes them.
    Behind,
}

struct Entry {
    connection: HubSessionId,
    credential: Credential,
    generation_id: String,
    subscribed: bool,
    /// Whether it takes calls of direct methods.
    takes_methods: bool,
    desired: DesiredQueue,
    /// A message was sent to it.
    has_message: bool,
    /// Since when the identity is connected, Unix microseconds; a takeover changes nothing.
    since: u64,
    /// When it last did something, Unix microseconds.
    active: Arc<AtomicU64>,
    /// What the registry knows of that.
    stored: Activity,
    wake: Arc<Notify>,
    end: watch::Sender<Option<EndReason>>,
}

impl Entry {
    fn activity(&self) -> Activity {
        Activity {
            connected: true,
            connection_state_updated: Some(self.since),
            last_activity: Some(self.active.load(Ordering::Relaxed)),
        }
    }
}

#[derive(Default)]
struct Table {
    entries: HashMap<DeviceIdentity, Entry>,
    /// Who has left, until the registry knows: the generation, and the activity.
    left: HashMap<DeviceIdentity, (String, Activity)>,
    next_connection: u64,
}

/// The sessions of one hub process.
#[derive(Clone, Default)]
pub struct Presence(Arc<Mutex<Table>>);

/// One session's claim to be the identity's connection; dropped, it is gone.
pub struct PresenceGuard {
    presence: Presence,
    identity: DeviceIdentity,
    /// An older connection of the identity ends because of this one.
    pub has_displaced: bool,
    /// This connection.
    pub connection: HubSessionId,
    /// Notified when something waits for this identity.
    pub wake: Arc<Notify>,
    /// Told when the hub wants the session to end.
    pub end: watch::Receiver<Option<EndReason>>,
    active: Arc<AtomicU64>,
}

impl Presence {
    fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.0)
    }

    /// Makes this connection the identity's own and ends an older one.
    pub fn admit(&self, principal: &DevicePrincipal) -> PresenceGuard {
        let identity = principal.identity.clone();
        let wake = Arc::new(Notify::new());
        let (end, ended) = watch::channel(None);
        let now = activity::now();
        let active = Arc::new(AtomicU64::new(now));
        let mut table = self.table();
        table.next_connection += 1;
        let connection = HubSessionId(table.next_connection);
        let entry = Entry {
            connection,
            credential: principal.credential.clone(),
            generation_id: principal.generation_id.clone(),
            subscribed: false,
            takes_methods: false,
            desired: DesiredQueue::default(),
            has_message: false,
            since: table.entries.get(&identity).map_or(now, |old| old.since),
            active: Arc::clone(&active),
            stored: Activity::default(),
            wake: Arc::clone(&wake),
            end,
        };
        let old = table.entries.insert(identity.clone(), entry);
        if let Some(old) = &old {
            old.end.send_replace(Some(EndReason::Displaced));
        }
        // What is known of it now comes later than its leaving before.
        table.left.remove(&identity);
        drop(table);
        PresenceGuard {
            presence: self.clone(),
            identity,
            has_displaced: old.is_some(),
            connection,
            wake,
            end: ended,
            active,
        }
    }

    /// Wakes the identity's session, if there is one: something waits for it.
    pub fn wake(&self, identity: &DeviceIdentity) {
        if let Some(entry) = self.table().entries.get(identity) {
            entry.wake.notify_one();
        }
    }

    /// Lets the identity's session, if there is one, know of a message to it.
    pub fn message_sent(&self, identity: &DeviceIdentity) {
        if let Some(entry) = self.table().entries.get_mut(identity) {
            entry.has_message = true;
            entry.wake.notify_one();
        }
    }

    /// Lets the identity's session, if there is one, know of a change of its desired properties.
    /// To be called in the order of the changes.
    pub fn desired_changed(&self, identity: &DeviceIdentity, change: DesiredChange) {
        if let Some(entry) = self.table().entries.get_mut(identity) {
            match entry.desired.push(change.into()) {
                Ok(()) => entry.wake.notify_one(),
                Err(Overflow) => drop(entry.end.send_replace(Some(EndReason::Behind))),
            }
        }
    }

    /// Whether the identity is connected.
    pub fn is_connected(&self, identity: &DeviceIdentity) -> bool {
        self.table().entries.contains_key(identity)
    }

    /// Whether the identity is connected and takes stream requests.
    pub fn is_subscribed(&self, identity: &DeviceIdentity) -> bool {
        self.table()
            .entries
            .get(identity)
            .is_some_and(|entry| entry.subscribed)
    }

    /// Whether the identity is connected and takes calls of direct methods.
    pub fn takes_methods(&self, identity: &DeviceIdentity) -> bool {
        self.table()
            .entries
            .get(identity)
            .is_some_and(|entry| entry.takes_methods)
    }

    /// What is known of an identity's activity, of this generation, that the registry may
    /// not know yet.
    pub fn activity(&self, identity: &DeviceIdentity, generation_id: &str) -> Option<Activity> {
        let table = self.table();
        let here = table.entries.get(identity);
        let here = here.filter(|entry| entry.generation_id == generation_id);
        here.map(Entry::activity).or_else(|| {
            let (generation, activity) = table.left.get(identity)?;
            (generation == generation_id).then_some(*activity)
        })
    }

    /// At most `max` records that the registry does not know yet.
    pub fn unstored_activity(&self, max: usize) -> Vec<ActivityRecord> {
        let table = self.table();
        let record = |id: &DeviceIdentity, generation: &String, activity| ActivityRecord {
            id: id.clone(),
            generation_id: generation.clone(),
            activity,
        };
        let left = table
            .left
            .iter()
            .map(|(id, (generation, activity))| record(id, generation, *activity));
        let here = table
            .entries
            .iter()
            .filter(|(_, entry)| entry.stored != entry.activity())
            .map(|(id, entry)| record(id, &entry.generation_id, entry.activity()));
        left.chain(here).take(max).collect()
    }

    /// The registry knows these now.
    pub fn activity_stored(&self, records: &[ActivityRecord]) {
        let mut table = self.table();
        for ActivityRecord { id, activity, .. } in records {
            if let Some(entry) = table.entries.get_mut(id) {
                entry.stored = *activity;
            } else if table.left.get(id).is_some_and(|(_, left)| left == activity) {
                table.left.remove(id);
                spare(&mut table.left);
            }
        }
    }

    /// How many sessions there are.
    pub fn count(&self) -> usize {
        self.table().entries.len()
    }

    /// How many devices hold a session, modules not counted.
    pub fn connected_devices(&self) -> usize {
        let table = self.table();
        let devices = table
            .entries
            .keys()
            .filter(|identity| identity.module.is_none());
        devices.count()
    }

    /// The sessions of some devices and modules, with what each was opened with. Looks at all of
    /// them once.
    pub fn sessions(
        &self,
        is_meant: impl Fn(&DeviceIdentity) -> bool,
    ) -> Vec<(DeviceIdentity, Credential)> {
        self.table()
            .entries
            .iter()
            .filter(|(identity, _)| is_meant(identity))
            .map(|(identity, entry)| (identity.clone(), entry.credential.clone()))
            .collect()
    }

    /// Ends the identity's session, if there is one.
    pub fn end(&self, identity: &DeviceIdentity, reason: EndReason) {
        if let Some(entry) = self.table().entries.get(identity) {
            entry.end.send_replace(Some(reason));
        }
    }
}

impl PresenceGuard {
    /// Says that the identity does something now.
    pub fn note_activity(&self) {
        self.active.store(activity::now(), Ordering::Relaxed);
    }

    /// Does something with the identity's entry, as long as that is of this session.
    fn entry<T>(&self, act: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        let mut table = self.presence.table();
        let entry = table.entries.get_mut(&self.identity);
        let own = entry.filter(|entry| entry.connection == self.connection);
        own.map(act)
    }

    /// Says whether this session takes stream requests.
    pub fn set_subscribed(&self, subscribed: bool) {
        self.entry(|entry| entry.subscribed = subscribed);
    }

    /// Says whether this session takes calls of direct methods.
    pub fn set_takes_methods(&self, takes_methods: bool) {
        self.entry(|entry| entry.takes_methods = takes_methods);
    }

    /// The device begins to read its twin: what changes from now on is kept for it.
    pub fn keep_desired(&self) {
        self.entry(|entry| entry.desired.keep());
    }

    /// The device has read its twin, with this version of the desired properties.
    pub fn has_read_desired(&self, version: u64) {
        self.entry(|entry| entry.desired.has_read(version));
    }

    /// The device subscribes changes of its desired properties, or no longer does.
    pub fn send_desired(&self, is_wanted: bool) {
        self.entry(|entry| entry.desired.send(is_wanted));
    }

    /// Whether a message was sent to the device since this was last asked.
    pub fn take_has_message(&self) -> bool {
        self.entry(|entry| std::mem::take(&mut entry.has_message))
            .unwrap_or_default()
    }

    /// The changes of its desired properties that the device is to be sent now.
    pub fn take_desired(&self) -> VecDeque<DesiredUpdate> {
        self.entry(|entry| entry.desired.take()).unwrap_or_default()
    }
}

impl Drop for PresenceGuard {
    fn drop(&mut self) {
        let mut table = self.presence.table();
        // An old connection that leaves late must not remove the new one.
        if table
            .entries
            .get(&self.identity)
            .is_none_or(|entry| entry.connection != self.connection)
        {
            return;
        }
        if let Some(entry) = table.entries.remove(&self.identity) {
            spare(&mut table.entries);
            let left = Activity {
                connected: false,
                connection_state_updated: Some(activity::now()),
                ..entry.activity()
            };
            let left = (entry.generation_id, left);
            table.left.insert(self.identity.clone(), left);
        }
    }
}

#[cfg(test)]
mod tests {
    use common::identity::DeviceId;

    use super::*;

    fn principal() -> DevicePrincipal {
        DevicePrincipal {
            identity: DeviceIdentity::of_device(DeviceId::parse("d").unwrap()),
            expires: None,
            credential: Credential::Key([0; 32]),
            generation_id: "7".to_owned(),
        }
    }

    #[test]
    fn the_newest_connection_wins_and_an_old_one_leaving_late_changes_nothing() {
        let presence = Presence::default();
        let identity = principal().identity;
        let old = presence.admit(&principal());
        old.set_subscribed(true);
        assert!(presence.is_subscribed(&identity));
        let new = presence.admit(&principal());
        assert!(new.has_displaced && !old.has_displaced);
        assert_eq!(*old.end.borrow(), Some(EndReason::Displaced));
        assert!(
            !presence.is_subscribed(&identity),
            "a new session has not subscribed"
        );
        old.set_subscribed(true);
        assert!(!presence.is_subscribed(&identity), "the old one has no say");
        drop(old);
        assert!(presence.is_connected(&identity));
        drop(new);
        assert!(!presence.is_connected(&identity));
        assert_eq!(presence.count(), 0);
    }

    #[test]
    fn the_tables_give_back_what_a_crowd_took() {
        let presence = Presence::default();
        let guards: Vec<_> = (0..2_000)
            .map(|n| {
                let id = DeviceId::parse(&format!("d{n}")).unwrap();
                let identity = DeviceIdentity::of_device(id);
                presence.admit(&DevicePrincipal {
                    identity,
                    ..principal()
                })
            })
            .collect();
        assert!(presence.table().entries.capacity() >= 2_000);
        drop(guards);
        presence.activity_stored(&presence.unstored_activity(usize::MAX));
        let table = presence.table();
        assert!(table.entries.capacity() < 200 && table.left.capacity() < 200);
    }

    #[test]
    fn activity_is_known_until_it_is_stored() {
        let presence = Presence::default();
        let identity = principal().identity;
        let known = || presence.activity(&identity, "7");
        assert_eq!((known(), presence.unstored_activity(9).len()), (None, 0));

        let first = presence.admit(&principal());
        let connected = known().unwrap();
        assert!(connected.connected && connected.last_activity.is_some());
        assert_eq!(
            presence.activity(&identity, "8"),
            None,
            "another of its name"
        );
        let records = presence.unstored_activity(9);
        assert_eq!(records[0].activity, connected);
        presence.activity_stored(&records);
        assert_eq!(presence.unstored_activity(9), []);

        let second = presence.admit(&principal());
        assert_eq!(
            known().unwrap().connection_state_updated,
            connected.connection_state_updated,
            "a takeover leaves it connected"
        );
        drop(first);
        while known().unwrap().last_activity == connected.last_activity {
            second.note_activity();
        }
        let active = known().unwrap();
        assert_eq!(presence.unstored_activity(9)[0].activity, active);
        drop(second);
        let left = known().unwrap();
        assert!(!left.connected && left.last_activity == active.last_activity);
        assert!(left.connection_state_updated >= connected.connection_state_updated);
        let late = presence.unstored_activity(9);
        assert_eq!(presence.unstored_activity(0), []);

        // What is stored meanwhile is not what has been read before.
        let third = presence.admit(&principal());
        presence.activity_stored(&late);
        assert!(known().unwrap().connected);
        assert_eq!(presence.unstored_activity(9).len(), 1);
        drop(third);
        presence.activity_stored(&presence.unstored_activity(9));
        assert_eq!((known(), presence.unstored_activity(9).len()), (None, 0));
    }
}
