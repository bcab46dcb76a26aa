//! What the sessions of a program share, whatever their devices: memory, and the budget of those that
//! are interrupted.

use std::fmt;
use std::sync::{Arc, Mutex, Weak};

use common::identity::StreamName;
use common::locks::lock;
use common::log_about;
use common::session::budget::{Budget, Detached};
use common::session::memory::Memory;
use common::session::{Code, SharedSession};
use common::settings::session::SessionConfig;
use common::status;
use common::telemetry::About;

use serde_json::Value;

use super::{Phase, Shared};
use crate::carried::Carried;

/// What all sessions of the program share.
pub struct Room {
    memory: Arc<Memory>,
    carried: Arc<Carried>,
    all: Mutex<Vec<Weak<Shared>>>,
}

/// A session, and the device and target that it is with.
type Held = (Arc<Shared>, StreamName, SharedSession);

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Room")
    }
}

impl Room {
    /// For as much memory as is configured.
    pub fn new(config: &SessionConfig) -> Arc<Self> {
        Arc::new(Self {
            memory: Memory::new(config.memory),
            carried: Arc::default(),
            all: Mutex::default(),
        })
    }

    /// From now on there is as much memory as this says.
    pub fn follow(&self, config: &SessionConfig) {
        self.memory.set_limit(config.memory);
    }

    /// What is open, in sessions and in streams of its own.
    pub fn carried(&self) -> &Arc<Carried> {
        &self.carried
    }

    /// All sessions, for the status document.
    pub fn status(&self) -> Vec<Value> {
        let mut held = self.held();
        held.sort_by_key(|(_, _, live)| live.figures().began());
        let session = |(shared, name, live): &Held| {
            let device = shared.identity.to_string();
            status::session(live, Some(&device), name.as_str())
        };
        held.iter().map(session).collect()
    }

    /// The memory of all sessions.
    pub(super) fn memory(&self) -> Arc<Memory> {
        Arc::clone(&self.memory)
    }

    /// From now on these sessions count.
    pub(super) fn add(&self, sessions: &Arc<Shared>) {
        let mut all = lock(&self.all);
        all.retain(|other| other.strong_count() > 0);
        all.push(Arc::downgrade(sessions));
    }

    /// Ends detached sessions until the others keep to the budget: the one that holds most goes
    /// first, an attached one never.
    pub(super) fn keep_to_budget(&self) {
        let held = self.held();
        let detached = held.iter().filter_map(|(shared, name, live)| {
            Some(Detached {
                id: live.id(),
                began: live.detached_since()?,
                connections: live.connections(),
                held: live.held(),
                holder: format!("{} {name}", shared.identity).into(),
            })
        });
        for id in Budget::default().evicted(detached.collect()) {
            if let Some((shared, _, live)) = held.iter().find(|(_, _, live)| live.id() == id) {
                log_about!(
                    audit warn,
                    About::device(&shared.identity).within(Some(&id), None),
                    held = live.held(),
                    connections = live.connections(),
                    "session evicted: interrupted sessions need more room than there is"
                );
                live.reset(Code::Evicted, "");
            }
        }
    }

    fn held(&self) -> Vec<Held> {
        let all: Vec<_> = lock(&self.all).iter().filter_map(Weak::upgrade).collect();
        let mut held = Vec::new();
        for shared in all {
            let slots = shared.slots();
            held.extend(
                slots
                    .iter()
                    .filter_map(|(name, slot)| match &*slot.borrow() {
                        Phase::Up(live) => Some((Arc::clone(&shared), name.clone(), live.clone())),
                        _ => None,
                    }),
            );
        }
        held
    }
}
