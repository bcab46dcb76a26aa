//! The hub's shared handles, cheap to clone, passed down from the server.

use std::sync::Arc;

use common::hub_address::HubAddress;
use tokio_rustls::server::TlsStream;

use crate::auth::{Authenticator, StreamTokens};
use crate::listeners::Guarded;
use crate::presence::Presence;
use crate::registry::{Activity, Identity, Registry, activity};
use crate::rendezvous::Rendezvous;

/// What a leg's WebSocket runs over.
pub type LegStream = TlsStream<Guarded>;
/// A leg.
pub type LegSocket = common::websocket::WebSocket<LegStream>;

/// Everything that a connection needs.
#[derive(Clone)]
pub struct HubState {
    /// The advertised address, with its port.
    pub address: HubAddress,
    /// Which identities exist.
    pub registry: Arc<dyn Registry>,
    /// Who is who.
    pub auth: Authenticator,
    /// Who is here.
    pub presence: Presence,
    /// Streams on their way.
    pub rendezvous: Rendezvous<LegSocket>,
    /// Bearer tokens of legs.
    pub tokens: Arc<StreamTokens>,
    /// When this hub has started, Unix microseconds.
    started: u64,
}

impl HubState {
    /// A hub of this address over this registry.
    pub fn new(address: HubAddress, registry: Arc<dyn Registry>) -> Self {
        Self {
            auth: Authenticator::new(Arc::clone(&registry), address.clone()),
            tokens: Arc::new(StreamTokens::new(address.hub_name())),
            presence: Presence::default(),
            rendezvous: Rendezvous::default(),
            registry,
            address,
            started: activity::now(),
        }
    }
}

/// The REST API tells who is connected.
impl crate::api::identities::Connections for HubState {
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
