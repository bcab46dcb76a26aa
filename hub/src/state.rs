//! The hub's shared handles, cheap to clone, passed down from the server.

use std::sync::Arc;

use common::hub_address::HubAddress;
use common::tls::stream::ServerTlsStream;

use crate::access::AccessInForce;
use crate::admission::Guarded;
use crate::auth::{Authenticator, StreamTokens};
use crate::events::Events;
use crate::legs::Legs;
use crate::limits::{Limits, LimitsInForce};
use crate::oidc::Provider;
use crate::pending::Pending;
use crate::presence::Presence;
use crate::quotas::Quotas;
use crate::registry::{Activity, Identity, Registry, activity};
use crate::schedule::Schedule;
use crate::telemetry::RecentTelemetry;
use crate::tls::CertificateSlot;

/// What a leg's WebSocket runs over.
pub type LegStream = ServerTlsStream<Guarded>;
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
    /// What each one may have.
    pub quotas: Quotas,
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
    pub limits: LimitsInForce,
    /// Where what happens is reported.
    pub events: Events,
    /// Who may do what.
    pub access: AccessInForce,
    /// Who says who somebody is, if anybody does.
    pub provider: Option<Arc<Provider>>,
    /// The certificate that listeners show; `None` where there are none.
    pub certificate: Option<Arc<CertificateSlot>>,
}

impl HubState {
    /// A hub of this address over this registry, within these limits, that reports what happens to
    /// `events`.
    pub fn new(
        address: HubAddress,
        registry: Arc<dyn Registry>,
        limits: Limits,
        events: Events,
    ) -> Self {
        Self {
            auth: Authenticator::new(Arc::clone(&registry), address.clone()),
            tokens: Arc::new(StreamTokens::new(address.hub_name())),
            presence: Presence::default(),
            pending: Pending::new(limits.pending_per_device),
            quotas: Quotas::new(&limits, events.clone()),
            schedule: Schedule::default(),
            telemetry: RecentTelemetry::default(),
            legs: Legs::new(&limits, events.clone()),
            registry,
            address,
            started: activity::now(),
            limits: LimitsInForce::new(limits),
            events,
            access: AccessInForce::default(),
            provider: None,
            certificate: None,
        }
    }

    /// From now on these limits hold. What is open stays open.
    pub fn set_limits(&self, limits: Limits) {
        self.quotas.set_limits(&limits);
        self.legs.set_limits(&limits);
        self.pending.set_most(limits.pending_per_device);
        self.limits.set(limits);
    }

    /// The same for people that this provider knows.
    pub fn with_provider(self, provider: Option<Provider>) -> Self {
        Self {
            provider: provider.map(Arc::new),
            ..self
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
