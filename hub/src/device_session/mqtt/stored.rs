//! Subscriptions outlive connections: official clients subscribe once, and rely on `session
//! present` afterwards.

use std::sync::Arc;

use common::limits;
use tokio::time::timeout;

use super::machine::Machine;
use crate::auth::DevicePrincipal;
use crate::events::{Event, Events, InSession, Reason};
use crate::registry::{Registry, RegistryError, Subscriptions};
use crate::state::HubState;

/// What the registry keeps of one device's subscriptions.
pub(super) struct Stored {
    registry: Arc<dyn Registry>,
    events: Events,
    generation_id: String,
    /// The registry has them as they are.
    is_current: bool,
    /// The device wants nothing to outlive its connection.
    is_clean: bool,
}

impl Stored {
    /// Reads what the identity has subscribed in earlier connections. With a clean session it is
    /// forgotten, before the device is answered; what a connection was just storing when this one
    /// displaced it, included: one write waits for the other. May be dropped.
    ///
    /// # Errors
    /// [`RegistryError`] when the registry cannot be asked. What is damaged is as good as lost:
    /// session present 0 says so, and the device subscribes.
    pub(super) async fn load(
        state: &HubState,
        principal: &DevicePrincipal,
        is_clean: bool,
        has_displaced: bool,
    ) -> Result<(Self, Subscriptions), RegistryError> {
        let HubState {
            registry, events, ..
        } = state;
        let (identity, generation) = (&principal.identity, &principal.generation_id);
        let mut subscriptions = match registry.subscriptions(identity, generation).await {
            Err(error @ RegistryError::Damaged { .. }) => {
                let event = InSession::SubscriptionsDamaged(&error);
                events.emit(Event::InSession(identity, event));
                Subscriptions::new()
            }
            read => read?,
        };
        if is_clean && (!subscriptions.is_empty() || has_displaced) {
            subscriptions = Subscriptions::new();
            let none = Subscriptions::new();
            let forget = registry.keep_subscriptions(identity, generation, none);
            forget.await?;
        }
        let stored = Self {
            registry: Arc::clone(registry),
            events: events.clone(),
            generation_id: generation.clone(),
            is_current: true,
            is_clean,
        };
        Ok((stored, subscriptions))
    }

    /// Stores what the device has subscribed, if it `is_new` or was not stored before. Where the
    /// disk does not take it within [`limits::SESSION_WRITE`], it holds for this connection, and
    /// the next change tries again. May be dropped, at the end of the session.
    pub(super) async fn store(&mut self, machine: &Machine, is_new: bool) {
        if self.is_clean || (self.is_current && !is_new) {
            return;
        }
        let identity = machine.identity();
        let write = self.registry.keep_subscriptions(
            identity,
            &self.generation_id,
            machine.subscriptions().clone(),
        );
        self.is_current = false;
        let not_stored = |reason: Reason<'_>| {
            self.events.emit(Event::InSession(
                identity,
                InSession::SubscriptionsNotStored(reason),
            ));
        };
        match timeout(limits::SESSION_WRITE, write).await {
            Ok(Ok(())) => self.is_current = true,
            Ok(Err(error)) => not_stored(&error),
            Err(_) => not_stored(&DiskTooSlow),
        }
    }
}

/// The disk does not take it within [`limits::SESSION_WRITE`].
#[derive(Debug, thiserror::Error)]
#[error("the disk is too slow")]
struct DiskTooSlow;
