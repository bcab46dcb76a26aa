//! What was changed in the registry, by this process or by an operator's command
//! beside it, takes effect on what runs: within a second, sessions and streams of
//! identities that may no longer connect end.

use std::time::Duration;

use common::identity::DeviceIdentity;
use tokio::time::{MissedTickBehavior, interval};

use crate::auth::AuthError;
use crate::presence::EndReason;
use crate::registry::{RegistryError, Status};
use crate::state::HubState;

/// How often the registry is asked for changes.
const LOOK: Duration = Duration::from_millis(250);

/// Follows the registry's changes for ever.
pub async fn follow(state: HubState) {
    let mut point = 0;
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match look(&state, point).await {
            Ok(upto) => point = upto,
            // The point stays: what was missed is seen at the next look.
            Err(error) => tracing::error!("cannot follow the registry's changes: {error}"),
        }
    }
}

async fn look(state: &HubState, point: u64) -> Result<u64, RegistryError> {
    let changes = state.registry.changes_since(point).await?;
    for identity in &changes.identities {
        enforce(state, identity).await?;
    }
    Ok(changes.upto)
}

/// Ends what an identity, or with a device its modules, may no longer have.
async fn enforce(state: &HubState, changed: &DeviceIdentity) -> Result<(), RegistryError> {
    for (identity, credential) in state.presence.of_device(&changed.device) {
        match state.auth.still_valid(&identity, &credential).await {
            Ok(()) => {}
            Err(AuthError::Registry(error)) => return Err(error),
            Err(_) => state.presence.end(&identity, EndReason::Revoked),
        }
    }
    // Streams live on without their device's session: they have their own rule.
    for identity in state.rendezvous.identities_of(&changed.device) {
        let known = state.registry.identity(&identity).await?;
        if known.is_none_or(|identity| identity.status == Status::Disabled) {
            tracing::info!(device = %identity, "ending its streams: disabled or deleted");
            state.rendezvous.end_all(&identity);
        }
    }
    Ok(())
}
