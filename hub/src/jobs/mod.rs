//! Jobs that run: each in a task of its own, as many at once as the hub has room for. What a job has
//! done is in the registry, so a hub that was killed goes on where it was.

mod device;
mod run;

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::events::{Event, Fault};
use crate::limits;
use crate::registry::{RegistryError, activity};
use crate::state::HubState;

/// How often the history is looked through, and jobs at all if nothing wakes this earlier: the
/// system's clock may be set.
const LOOK: Duration = Duration::from_secs(60);
/// How long a registry that fails is left alone.
const RETRY: Duration = Duration::from_secs(5);

/// Runs jobs for ever.
///
/// Dropped, it breaks off what runs; the hub's next start goes on.
pub async fn follow(state: HubState) {
    let mut running = JoinSet::new();
    loop {
        let until = match start(&state, &mut running).await {
            Ok(until) => until,
            Err(error) => {
                failed(&state, &error).await;
                continue;
            }
        };
        tokio::select! {
            () = state.schedule.wake.notified() => {}
            Some(_) = running.join_next(), if !running.is_empty() => {}
            () = sleep_until(until) => {}
        }
    }
}

/// Starts the jobs that are due; when to look again.
async fn start(state: &HubState, running: &mut JoinSet<()>) -> Result<Instant, RegistryError> {
    let now = activity::now();
    let history = limits::JOB_HISTORY.as_micros();
    let before = now.saturating_sub(u64::try_from(history).unwrap_or(u64::MAX));
    state.registry.forget_jobs(before).await?;
    while running.try_join_next().is_some() {}
    if running.len() < limits::JOBS_AT_ONCE {
        let due = state.registry.due_jobs(now, limits::JOBS_AT_ONCE).await?;
        for job in due {
            if running.len() >= limits::JOBS_AT_ONCE {
                break;
            }
            if let Some(place) = state.schedule.enter(&job.new.id) {
                running.spawn(run::run(state.clone(), job.new.id, place));
            }
        }
    }
    if running.len() >= limits::JOBS_AT_ONCE {
        state.registry.queue_jobs(now).await?;
    }
    let latest = Instant::now() + LOOK;
    let next = state.registry.next_job(now).await?;
    Ok(next.map_or(latest, |next| {
        latest.min(Instant::now() + Duration::from_micros(next.saturating_sub(now)))
    }))
}

async fn failed(state: &HubState, error: &RegistryError) {
    state.events.emit(Event::Fault(Fault::JobsNotRun(error)));
    sleep(RETRY).await;
}
