//! Which identities hold a hub session now. Presence is a guard: holding it means
//! connected, dropping it, on any path, means gone. The newest connection wins.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use common::identity::{DeviceId, DeviceIdentity};
use tokio::sync::{Notify, watch};

use crate::auth::Credential;

/// Names one connection of a device, to tell it from the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionId(u64);

/// Why the hub ends a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// The same identity has connected again.
    Displaced,
    /// The identity was disabled, deleted, or lost the key it came with.
    Revoked,
}

struct Entry {
    connection: ConnectionId,
    credential: Credential,
    subscribed: bool,
    wake: Arc<Notify>,
    end: watch::Sender<Option<EndReason>>,
}

#[derive(Default)]
struct Table {
    entries: HashMap<DeviceIdentity, Entry>,
    next_connection: u64,
}

/// The sessions of one hub process.
#[derive(Clone, Default)]
pub struct Presence(Arc<Mutex<Table>>);

/// One session's claim to be the identity's connection; dropped, it is gone.
pub struct PresenceGuard {
    presence: Presence,
    identity: DeviceIdentity,
    /// This connection.
    pub connection: ConnectionId,
    /// Told when stream requests wait for this identity.
    pub wake: Arc<Notify>,
    /// Told when the hub wants the session to end.
    pub end: watch::Receiver<Option<EndReason>>,
}

impl Presence {
    fn table(&self) -> MutexGuard<'_, Table> {
        // No code panics while it holds the lock; if one did, the table is still whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes this connection the identity's own and ends an older one.
    pub fn admit(&self, identity: DeviceIdentity, credential: Credential) -> PresenceGuard {
        let wake = Arc::new(Notify::new());
        let (end, ended) = watch::channel(None);
        let mut table = self.table();
        table.next_connection += 1;
        let connection = ConnectionId(table.next_connection);
        let entry = Entry {
            connection,
            credential,
            subscribed: false,
            wake: Arc::clone(&wake),
            end,
        };
        if let Some(old) = table.entries.insert(identity.clone(), entry) {
            old.end.send_replace(Some(EndReason::Displaced));
        }
        drop(table);
        PresenceGuard {
            presence: self.clone(),
            identity,
            connection,
            wake,
            end: ended,
        }
    }

    /// Tells the identity's session, if there is one, that a stream request waits.
    pub fn wake(&self, identity: &DeviceIdentity) {
        if let Some(entry) = self.table().entries.get(identity) {
            entry.wake.notify_one();
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

    /// The devices that hold sessions, themselves or by a module.
    pub fn devices(&self) -> Vec<DeviceId> {
        let table = self.table();
        table
            .entries
            .keys()
            .map(|identity| identity.device.clone())
            .collect()
    }

    /// The sessions of a device and its modules, with what each was opened with.
    pub fn of_device(&self, device: &DeviceId) -> Vec<(DeviceIdentity, Credential)> {
        self.table()
            .entries
            .iter()
            .filter(|(identity, _)| identity.device == *device)
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
    /// Says whether this session takes stream requests.
    pub fn set_subscribed(&self, subscribed: bool) {
        if let Some(entry) = self.presence.table().entries.get_mut(&self.identity)
            && entry.connection == self.connection
        {
            entry.subscribed = subscribed;
        }
    }
}

impl Drop for PresenceGuard {
    fn drop(&mut self) {
        let mut table = self.presence.table();
        // An old connection that leaves late must not remove the new one.
        if table
            .entries
            .get(&self.identity)
            .is_some_and(|entry| entry.connection == self.connection)
        {
            table.entries.remove(&self.identity);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_connection_wins_and_an_old_one_leaving_late_changes_nothing() {
        let presence = Presence::default();
        let identity = DeviceIdentity::of_device(DeviceId::parse("d").unwrap());
        let old = presence.admit(identity.clone(), Credential::Key([0; 32]));
        old.set_subscribed(true);
        assert!(presence.is_subscribed(&identity));
        let new = presence.admit(identity.clone(), Credential::Key([0; 32]));
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
}
