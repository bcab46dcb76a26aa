//! What the REST API says of an identity's connection.

use crate::registry::{Activity, Identity};
use crate::state::HubState;

/// Who is connected now.
pub trait Connections: Send + Sync {
    /// Whether this identity holds a hub session, and since when: what is stored, and what
    /// has happened since.
    fn activity(&self, identity: &Identity) -> Activity;
    /// How many devices hold one, modules not counted.
    fn connected_devices(&self) -> u64;
}

impl Connections for HubState {
    fn activity(&self, identity: &Identity) -> Activity {
        let stored = identity.activity;
        match self
            .presence
            .activity(&identity.id, &identity.generation_id)
        {
            Some(present) => present,
            // The hub before this one did not come to store its end.
            None if stored.connected => Activity {
                connected: false,
                connection_state_updated: Some(self.started),
                ..stored
            },
            None => stored,
        }
    }

    fn connected_devices(&self) -> u64 {
        self.presence.connected_devices() as u64
    }
}
