//! The hub's shared handles, cheap to clone, passed down from the server.

use std::sync::Arc;

use common::hub_address::HubAddress;
use tokio_rustls::server::TlsStream;

use crate::admission::Guarded;
use crate::auth::{Authenticator, StreamTokens};
use crate::legs::Legs;
use crate::limits::Limits;
use crate::pending::Pending;
use crate::presence::Presence;
use crate::registry::{Activity, Identity, Registry, activity};
use crate::schedule::Schedule;
use crate::telemetry::RecentTelemetry;
use crate::tls::CertificateSlot;

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
    /// Requests that wait for a device's answer.
    pub pending: Pending,
    /// Jobs that run.
    pub schedule: Schedule,
    /// Streams, and their legs on the way.
    pub legs: Legs<LegSocket>,
    /// What devices have sent lately.
    pub telemetry: RecentTelemetry,
    /// Bearer tokens of legs.
    pub tokens: Arc<StreamTokens>,
    /// When this hub has started, Unix microseconds.
    pub started: u64,
    /// What an operator has tuned.
    pub limits: Arc<Limits>,
    /// The certificate that listeners show; `None` where there are none.
    pub certificate: Option<Arc<CertificateSlot>>,
}

impl HubState {
    /// A hub of this address over this registry, within these limits.
    pub fn new(address: HubAddress, registry: Arc<dyn Registry>, limits: Limits) -> Self {
        Self {
            auth: Authenticator::new(Arc::clone(&registry), address.clone()),
            tokens: Arc::new(StreamTokens::new(address.hub_name())),
            presence: Presence::default(),
            pending: Pending::new(limits.pending_per_device),
            schedule: Schedule::default(),
            telemetry: RecentTelemetry::default(),
            legs: Legs::new(&limits),
            registry,
            address,
            started: activity::now(),
            limits: Arc::new(limits),
            certificate: None,
        }
    }

    /// The same behind listeners that show this certificate.
    pub fn with_certificate(self, certificate: &Arc<CertificateSlot>) -> Self {
        Self {
            certificate: Some(Arc::clone(certificate)),
            ..self
        }
    }

    /// Whether an identity holds a hub session, and since when: what is stored, and what has
    /// happened since.
    pub fn activity(&self, identity: &Identity) -> Activity {
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
}
