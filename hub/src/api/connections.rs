//! What the REST API has to do with an identity's connection.

use common::identity::DeviceIdentity;

use crate::registry::{Activity, Identity, OnDesired};
use crate::state::HubState;

/// Who is connected now.
pub trait Connections: Send + Sync {
    /// Whether this identity holds a hub session, and since when: what is stored, and what
    /// has happened since.
    fn activity(&self, identity: &Identity) -> Activity;
    /// How many devices hold one, modules not counted.
    fn connected_devices(&self) -> u64;
}

/// Who is told what services want of devices.
pub trait DesiredListener: Send + Sync {
    /// What is to be called with a change of the desired properties of this identity.
    fn on_desired(&self, id: &DeviceIdentity) -> OnDesired;
}

impl Connections for HubState {
    fn activity(&self, identity: &Identity) -> Activity {
        Self::activity(self, identity)
    }

    fn connected_devices(&self) -> u64 {
        self.presence.connected_devices() as u64
    }
}

impl DesiredListener for HubState {
    fn on_desired(&self, id: &DeviceIdentity) -> OnDesired {
        let (presence, id) = (self.presence.clone(), id.clone());
        Box::new(move |change| presence.desired_changed(&id, change))
    }
}
