//! Stores when identities were last here: in the background, many at a time, since a write
//! for each message would keep the disk busy. The hub answers requests from its memory; the
//! registry is for the time after a restart.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::events::{Event, Fault, Reason};
use crate::registry::RegistryError;
use crate::state::HubState;

/// How often. IoT Hub lets these times lag by 5 to 10 minutes; a crash loses so much here.
const STORE: Duration = Duration::from_secs(10);
/// Records in one transaction: the database has one writer, and others wait for it.
const BATCH: usize = 1_000;
/// The most that is waited for at the end.
const LAST: Duration = Duration::from_secs(5);

/// Stores activity for ever.
///
/// Ends by being dropped; what is not stored then, [`finish`] stores.
pub async fn keep(state: HubState) {
    let mut ticks = interval(STORE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut has_failed = false;
    loop {
        ticks.tick().await;
        match store(&state).await {
            Ok(()) => has_failed = false,
            Err(error) if !has_failed => {
                has_failed = true;
                not_stored(&state, &error, true);
            }
            Err(_) => {}
        }
    }
}

/// Stores what is left when all sessions have ended.
///
/// Dropped, it leaves the rest unstored.
pub async fn finish(state: &HubState) {
    match timeout(LAST, store(state)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => not_stored(state, &error, false),
        Err(_) => not_stored(state, &DiskBusy, false),
    }
}

/// The disk does not take it within [`LAST`].
#[derive(Debug, thiserror::Error)]
#[error("the disk is busy")]
struct DiskBusy;

fn not_stored(state: &HubState, reason: Reason<'_>, is_retried: bool) {
    state.events.emit(Event::Fault(Fault::ActivityNotStored {
        reason,
        is_retried,
    }));
}

async fn store(state: &HubState) -> Result<(), RegistryError> {
    loop {
        let records = state.presence.unstored_activity(BATCH);
        if records.is_empty() {
            return Ok(());
        }
        state.registry.record_activity(records.clone()).await?;
        state.presence.activity_stored(&records);
        // Who is busy all the time has a new record already: next time.
        if records.len() < BATCH {
            return Ok(());
        }
    }
}
