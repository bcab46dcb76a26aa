//! What was changed in the registry, by this process or by an operator's command
//! beside it, takes effect on what runs: within a second, sessions and streams of
//! identities that may no longer connect end.

use std::collections::HashSet;
use std::time::Duration;

use common::identity::DeviceId;
use tokio::time::{MissedTickBehavior, interval};

use crate::auth::AuthError;
use crate::events::{Event, Fault};
use crate::presence::EndReason;
use crate::registry::{RegistryError, Status};
use crate::state::HubState;

/// How often the registry is asked for changes: each look wakes an idle machine.
const LOOK: Duration = Duration::from_millis(500);

/// Follows the registry's changes for ever.
///
/// Ends by being dropped.
pub async fn follow(state: HubState) {
    let mut point = 0;
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match look(&state, point).await {
            Ok(upto) => point = upto,
            // The point stays: what was missed is seen at the next look.
            Err(error) => Event::Fault(Fault::ChangesNotFollowed(&error)).emit(),
        }
    }
}

async fn look(state: &HubState, point: u64) -> Result<u64, RegistryError> {
    let changes = state.registry.changes_since(point).await?;
    for identity in &changes.identities {
        Event::IdentityChanged { device: identity }.emit();
    }
    let mut devices: HashSet<DeviceId> = changes
        .identities
        .into_iter()
        .map(|identity| identity.device)
        .collect();
    if changes.gap {
        // What happened is no longer known in full: look at everyone who is here.
        devices.extend(state.presence.devices());
        devices.extend(state.legs.devices());
    }
    for device in &devices {
        enforce(state, device).await?;
    }
    Ok(changes.upto)
}

/// Ends what a device and its modules may no longer have.
async fn enforce(state: &HubState, device: &DeviceId) -> Result<(), RegistryError> {
    for (identity, credential) in state.presence.of_device(device) {
        match state.auth.still_valid(&identity, &credential).await {
            Ok(()) => {}
            // Another identity's damage is no reason to look away from the others, and who
            // cannot be checked is not let stay.
            Err(AuthError::Registry(error)) if !matches!(error, RegistryError::Damaged { .. }) => {
                return Err(error);
            }
            Err(_) => {
                Event::SessionRevoked { device: &identity }.emit();
                state.presence.end(&identity, EndReason::Revoked);
            }
        }
    }
    // Streams live on without their device's session: they have their own rule.
    for identity in state.legs.identities_of(device) {
        let known = match state.registry.identity(&identity).await {
            Err(RegistryError::Damaged { .. }) => None,
            known => known?,
        };
        if known.is_none_or(|identity| identity.status == Status::Disabled) {
            Event::StreamsRevoked { device: &identity }.emit();
            state.pending.end_all(&identity);
            state.legs.end_all(&identity);
        }
    }
    Ok(())
}
