//! Session mode on the device: which sessions there are, and what they may take.
//! `docs/session-protocol.md` is the protocol.

mod carrier;
mod connection;
mod keep;

pub(crate) use carrier::serve;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use common::identity::StreamId;
use common::locks::lock;
use common::permits::Permits;
use common::session::budget::{Budget, Detached, first_to_go};
use common::session::memory::Memory;
use common::session::proof::ResumeSecret;
use common::session::{Code, SessionId, SharedSession};
use common::status;
use common::telemetry::About;
use common::wire::stream::Initiator;
use common::{descriptors, log_about};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::counts::{Counts, SessionEvent};
use crate::limits::SESSION_DETACHED_CONNECTIONS;
use crate::policy::Limits;
use crate::target::Target;

/// Sessions of one status document, at most.
const STATUS: usize = 1000;

/// One session.
pub(crate) struct Entry {
    live: SharedSession,
    secret: ResumeSecret,
    /// The target's name, as the stream's name gave it: a resume must name the same.
    name: String,
    target: Target,
    /// Its initiator, if the hub names one; else the target's name.
    holder: Arc<str>,
    /// The initiator of the stream that carries it now or was the last to.
    caller: Mutex<Option<Initiator>>,
    began: Instant,
    /// The stream that carries it, or has last.
    stream: Mutex<Option<StreamId>>,
    /// Its own connections at once: others shall have some, too.
    connections: Semaphore,
}

impl Entry {
    /// Who uses it.
    fn caller(&self) -> Option<Initiator> {
        lock(&self.caller).clone()
    }

    /// What its lines in the log are about.
    fn about(&self) -> About<'_> {
        About::stream(None, &self.name).within(Some(&self.live.id()), None)
    }
}

/// All sessions of this device.
pub(crate) struct Sessions {
    entries: Mutex<HashMap<SessionId, Arc<Entry>>>,
    bounds: Mutex<Bounds>,
    /// What all of them may hold.
    memory: Arc<Memory>,
    /// Inner connections at once, over all sessions.
    connections: Arc<Permits>,
    counts: Counts,
}

/// What may change while the program runs.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// How long a detached session is kept.
    grace: Duration,
    budget: Budget,
    /// Inner connections at once, over all sessions.
    connections: usize,
    /// So many of them one session may have.
    most_of_one: usize,
}

impl Bounds {
    fn new(grace: Duration, limits: Limits, memory: &Memory) -> Self {
        let connections = descriptors::room(limits.connections, 1, 2)
            .min(memory.connections())
            .max(1);
        let most_of_one = connections - connections / 4;
        Self {
            grace,
            budget: Budget {
                sessions: limits.sessions,
                bytes: limits.detached_bytes,
                // Whatever one session may have, it keeps when it is detached.
                connections: SESSION_DETACHED_CONNECTIONS.min(most_of_one),
            },
            connections,
            most_of_one,
        }
    }
}

impl Sessions {
    /// Starts with none, and never has more than the limits; a detached session is kept for
    /// `grace`, and all of them within the limits.
    pub(crate) fn new(
        grace: Duration,
        limits: Limits,
        memory: Arc<Memory>,
        counts: Counts,
    ) -> Self {
        let bounds = Bounds::new(grace, limits, &memory);
        Self {
            memory,
            entries: Mutex::default(),
            connections: Permits::new(bounds.connections),
            bounds: Mutex::new(bounds),
            counts,
        }
    }

    /// From now on these are the limits, with `memory` bytes for all sessions. No attached session
    /// and no connection is ended for them.
    pub(crate) fn set_limits(&self, grace: Duration, limits: Limits, memory: u64) {
        self.memory.set_limit(memory);
        let bounds = Bounds::new(grace, limits, &self.memory);
        self.connections.set(bounds.connections);
        *lock(&self.bounds) = bounds;
        self.keep_to_budget();
    }

    fn bounds(&self) -> Bounds {
        *lock(&self.bounds)
    }

    /// How long a detached session is kept.
    fn grace(&self) -> Duration {
        self.bounds().grace
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<SessionId, Arc<Entry>>> {
        lock(&self.entries)
    }

    /// Whether any session is here: a service may be waiting for this device to come back.
    pub(crate) fn any(&self) -> bool {
        !self.entries().is_empty()
    }

    /// All of them, for the status document.
    pub(crate) fn status(&self) -> Vec<Value> {
        let all: Vec<_> = self.entries().values().cloned().collect();
        let mut all: Vec<_> = all.iter().take(STATUS).collect();
        all.sort_by_key(|entry| entry.began);
        let session = |entry: &&Arc<Entry>| status::session(&entry.live, None, &entry.name);
        all.iter().map(session).collect()
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.entries().len()
    }

    /// How many of them are detached.
    pub(crate) fn count_detached(&self) -> usize {
        let entries = self.entries();
        let detached = entries
            .values()
            .filter(|entry| entry.live.detached_since().is_some());
        detached.count()
    }

    /// Whether there is a session with the target of this name.
    fn has(&self, name: &str) -> bool {
        self.entries().values().any(|entry| entry.name == name)
    }

    /// Takes in a new session; `None` when its name is taken, or all there is room for are
    /// in use.
    fn insert(&self, entry: Entry) -> Option<Arc<Entry>> {
        let is_full = self.entries().len() >= self.bounds().budget.sessions;
        if is_full && !self.evict_one() {
            return None;
        }
        let entry = Arc::new(entry);
        let mut entries = self.entries();
        if entries.contains_key(&entry.live.id()) {
            return None;
        }
        entries.insert(entry.live.id(), Arc::clone(&entry));
        Some(entry)
    }

    fn find(&self, id: SessionId) -> Option<Arc<Entry>> {
        self.entries().get(&id).cloned()
    }

    fn remove(&self, id: SessionId) {
        self.entries().remove(&id);
    }

    fn detached(&self) -> Vec<Detached> {
        let entries = self.entries();
        let detached = entries.values().filter_map(|entry| {
            entry.live.detached_since()?;
            Some(Detached {
                id: entry.live.id(),
                began: entry.began,
                connections: entry.live.connections(),
                held: entry.live.held(),
                holder: Arc::clone(&entry.holder),
            })
        });
        detached.collect()
    }

    /// Ends detached sessions until the others keep to the budget; an attached one never.
    fn keep_to_budget(&self) {
        let evicted = self.bounds().budget.evicted(self.detached());
        if evicted.is_empty() {
            return;
        }
        for id in evicted {
            self.evict(id);
        }
        let left = self.detached();
        let held: u64 = left.iter().map(|session| session.held).sum();
        tracing::info!(
            sessions = left.len(),
            held,
            "detached sessions are kept to the budget"
        );
    }

    /// Makes room for one; whether there was anything to evict.
    fn evict_one(&self) -> bool {
        let detached = self.detached();
        let victim = first_to_go(&detached).and_then(|place| detached.get(place));
        match victim {
            Some(session) => {
                self.evict(session.id);
                true
            }
            None => false,
        }
    }

    fn evict(&self, id: SessionId) {
        let Some(entry) = self.entries().remove(&id) else {
            return;
        };
        let (connections, held) = (entry.live.connections(), entry.live.held());
        entry.live.reset(Code::Evicted, "");
        self.counts.session(SessionEvent::Evicted);
        log_about!(
            audit warn,
            entry.about(),
            connections,
            held,
            "session evicted: detached sessions need more room than there is"
        );
    }
}

#[cfg(test)]
mod tests {
    use crate::limits::{DEVICE_CONNECTIONS, SESSION_GRACE};
    use common::session::Role;

    use super::*;

    fn entry(number: u8) -> Entry {
        Entry {
            live: SharedSession::new(SessionId([number; 16]), Role::Device),
            secret: ResumeSecret::random(),
            name: "ssh".into(),
            target: Target::Echo,
            holder: "somebody".into(),
            caller: Mutex::default(),
            began: Instant::now(),
            stream: Mutex::default(),
            connections: Semaphore::new(1),
        }
    }

    #[test]
    fn connections_have_room_in_memory_and_leave_some_for_others() {
        let sessions = |mib: u64| {
            let memory = Memory::new(mib << 20);
            let limits = Limits::default();
            let sessions = Sessions::new(SESSION_GRACE, limits, memory, Counts::default());
            (
                sessions.connections.free(),
                sessions.bounds().most_of_one,
                sessions.bounds().budget.connections,
            )
        };
        assert_eq!(sessions(4), (64, 48, 48));
        assert_eq!(sessions(0), (1, 1, 1));
        let (most, _, detached) = sessions(1 << 20);
        assert_eq!(most, descriptors::room(DEVICE_CONNECTIONS, 1, 2));
        assert!(detached <= SESSION_DETACHED_CONNECTIONS);
    }

    #[tokio::test]
    async fn there_are_no_more_than_the_limits_say() {
        let limits = Limits {
            sessions: 1,
            connections: 8,
            ..Limits::default()
        };
        let memory = Memory::unlimited();
        let sessions = Sessions::new(SESSION_GRACE, limits, memory, Counts::default());
        assert_eq!(sessions.connections.free(), 8);
        assert_eq!(sessions.bounds().most_of_one, 6);
        let first = sessions.insert(entry(1)).unwrap();
        let _ = first.live.attach(&first.live.freeze(), 0).unwrap();
        assert!(sessions.insert(entry(2)).is_none());
        // They change while it runs.
        let limits = Limits {
            sessions: 2,
            connections: 4,
            ..limits
        };
        sessions.set_limits(Duration::from_secs(7), limits, 1 << 40);
        assert_eq!(sessions.connections.free(), 4);
        assert_eq!(sessions.grace(), Duration::from_secs(7));
        assert!(sessions.insert(entry(2)).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn the_newest_detached_makes_room_and_an_attached_one_never_does() {
        let limits = Limits {
            sessions: 2,
            ..Limits::default()
        };
        let sessions = Sessions::new(
            SESSION_GRACE,
            limits,
            Memory::unlimited(),
            Counts::default(),
        );
        let first = sessions.insert(entry(1)).unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
        let second = sessions.insert(entry(2)).unwrap();
        assert!(sessions.insert(entry(1)).is_none(), "a name is used once");
        assert!(sessions.find(first.live.id()).is_some());
        assert!(
            sessions.find(second.live.id()).is_none(),
            "the newest made room for the attempt"
        );
        let _ = first.live.attach(&first.live.freeze(), 0).unwrap();
        let third = sessions.insert(entry(3)).unwrap();
        let _ = third.live.attach(&third.live.freeze(), 0).unwrap();
        assert!(sessions.insert(entry(4)).is_none(), "all are in use");
        assert!(first.live.over().is_none() && third.live.over().is_none());
        assert!(second.live.over().is_some());
    }
}
