//! What was changed in the registry, by this process or by an operator's command
//! beside it, takes effect on what runs: within a second, sessions and streams of
//! identities that may no longer connect end. The same goes for revocation lists of CAs.

use std::collections::HashSet;
use std::time::Duration;

use common::identity::{DeviceId, DeviceIdentity};
use tokio::time::{MissedTickBehavior, interval};

use crate::auth::AuthError;
use crate::events::{Event, Fault};
use crate::presence::EndReason;
use crate::registry::{OpenStreams, RegistryError, Status};
use crate::state::HubState;

/// How often the registry is asked for changes: each look wakes an idle machine.
const LOOK: Duration = Duration::from_millis(500);

/// Follows the registry's changes for ever.
///
/// Ends by being dropped.
pub async fn follow(state: HubState) {
    let mut place = Place::default();
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // When it fails, the place stays: what was missed is seen at the next look.
        if let Err(error) = look(&state, &mut place).await {
            state
                .events
                .emit(Event::Fault(Fault::ChangesNotFollowed(&error)));
        }
    }
}

/// How far the changes were followed.
#[derive(Default)]
struct Place {
    /// Zero: not yet.
    point: u64,
    /// The CAs of devices, or what they revoke, have changed, and not everyone was looked at since.
    is_other_trust: bool,
}

async fn look(state: &HubState, place: &mut Place) -> Result<(), RegistryError> {
    let changes = state.registry.changes_since(place.point).await?;
    let authorities = state.auth.authorities();
    place.is_other_trust |= if changes.gap || place.point == 0 {
        authorities.read(&*state.registry, &state.events).await?
    } else {
        authorities.read_crls(&state.events).await?
    };
    for identity in &changes.identities {
        state
            .events
            .emit(Event::IdentityChanged { device: identity });
    }
    // Each look at the tables is one pass, however many devices were changed.
    let devices: HashSet<DeviceId> = changes
        .identities
        .into_iter()
        .map(|identity| identity.device)
        .collect();
    if !devices.is_empty() {
        enforce(state, |identity| devices.contains(&identity.device)).await?;
    }
    if changes.tokens || changes.gap {
        end_revoked(state).await?;
    }
    if changes.gap || place.is_other_trust {
        // What happened is not known in full: look at everyone who is here.
        enforce(state, |_| true).await?;
    }
    *place = Place {
        point: changes.upto,
        is_other_trust: false,
    };
    Ok(())
}

/// Ends the streams of tokens that were revoked so, and of people that were shut out so.
async fn end_revoked(state: &HubState) -> Result<(), RegistryError> {
    let tokens = state.legs.tokens();
    if tokens.is_empty() {
        return Ok(());
    }
    for (token, login) in tokens {
        let row = match state.registry.issued_token(&token).await {
            Err(RegistryError::Damaged { .. }) => None,
            row => row?,
        };
        let is_revoked = row.is_some_and(|row| row.revoked == Some(OpenStreams::End));
        // Its token may have expired and be gone, and the stream goes on.
        let shut_out = match &login {
            Some(login) if !is_revoked => state.registry.shut_out_streams(login).await?,
            _ => None,
        };
        if is_revoked || shut_out == Some(OpenStreams::End) {
            state
                .events
                .emit(Event::TokenStreamsEnded { token: &token });
            state.legs.end_all_of_token(&token);
        }
    }
    Ok(())
}

/// Ends what some devices and modules may no longer have.
async fn enforce(
    state: &HubState,
    is_meant: impl Fn(&DeviceIdentity) -> bool,
) -> Result<(), RegistryError> {
    for (identity, credential) in state.presence.sessions(&is_meant) {
        match state.auth.still_valid(&identity, &credential).await {
            Ok(()) => {}
            // Another identity's damage is no reason to look away from the others, and who
            // cannot be checked is not let stay.
            Err(AuthError::Registry(error)) if !matches!(error, RegistryError::Damaged { .. }) => {
                return Err(error);
            }
            Err(_) => {
                state
                    .events
                    .emit(Event::SessionRevoked { device: &identity });
                state.presence.end(&identity, EndReason::Revoked);
            }
        }
    }
    // Streams live on without their device's session: they have their own rule.
    for identity in state.legs.identities() {
        if !is_meant(&identity) {
            continue;
        }
        let known = match state.registry.identity(&identity).await {
            Err(RegistryError::Damaged { .. }) => None,
            known => known?,
        };
        if known.is_none_or(|identity| identity.status == Status::Disabled) {
            state
                .events
                .emit(Event::StreamsRevoked { device: &identity });
            state.pending.end_all(&identity);
            state.legs.end_all(&identity);
        }
    }
    Ok(())
}
