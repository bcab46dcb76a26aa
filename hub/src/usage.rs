//! Stores how many bytes were moved today, where that is limited, every few seconds: a restart of the
//! hub gives nobody a second day. Forgets who has done nothing lately, at the same time.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::events::{Event, Fault};
use crate::registry::RegistryError;
use crate::state::HubState;

/// How often is looked whether a day has begun.
const LOOK: Duration = Duration::from_secs(1);
/// How often is stored: a crash loses so much.
const STORE: u64 = 10;
/// Records in one transaction: the database has one writer, and others wait for it.
const BATCH: usize = 1_000;
/// The most that is waited for at the end.
const LAST: Duration = Duration::from_secs(5);

/// Loads what is stored of today, and then stores it for ever.
///
/// Ends by being dropped; what is not stored then, [`finish`] stores.
pub async fn keep(state: HubState) {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut is_loaded, mut has_failed) = (false, false);
    for tick in 0_u64.. {
        ticks.tick().await;
        state.quotas.day();
        if tick % STORE != 0 {
            continue;
        }
        state.quotas.trim();
        // What is not loaded would be lost by what is stored.
        let done = match is_loaded {
            true => store(&state).await,
            false => load(&state).await,
        };
        match done {
            Ok(()) => (is_loaded, has_failed) = (true, false),
            Err(error) if !has_failed => {
                has_failed = true;
                state
                    .events
                    .emit(Event::Fault(Fault::UsageNotStored(&error)));
            }
            Err(_) => {}
        }
    }
}

/// Stores what is left when all streams have ended.
///
/// Dropped, it leaves the rest unstored.
pub async fn finish(state: &HubState) {
    if let Ok(Err(error)) = timeout(LAST, store(state)).await {
        state
            .events
            .emit(Event::Fault(Fault::UsageNotStored(&error)));
    }
}

async fn load(state: &HubState) -> Result<(), RegistryError> {
    let day = state.quotas.day();
    let records = state.registry.usage(day).await?;
    state.quotas.load(day, records);
    Ok(())
}

async fn store(state: &HubState) -> Result<(), RegistryError> {
    let day = state.quotas.day();
    loop {
        let records = state.quotas.unstored(BATCH);
        if records.is_empty() || state.quotas.day() != day {
            return Ok(());
        }
        state.registry.record_usage(day, records.clone()).await?;
        state.quotas.stored(&records);
        if records.len() < BATCH {
            return Ok(());
        }
    }
}
