//! One job, from its beginning to its end.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::identity::DeviceIdentity;
use common::locks::lock;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use super::device::{self, Work};
use super::failed;
use crate::documents::{self, job};
use crate::events::{Event, JobOutcome};
use crate::limits;
use crate::query::{Condition, Source};
use crate::registry::{
    Job, JobEnd, JobId, JobResult, Members, RegistryError, Scan, TwinSnapshot, activity,
};
use crate::schedule::RunningJob;
use crate::state::HubState;

/// Devices that are added to a job at once.
const PAGE: usize = 500;
/// Results that are written at once,
const RESULTS: usize = 256;
/// and how long they wait for more: who watches a job sees it go on.
const FLUSH: Duration = Duration::from_millis(500);

/// Runs a job until it has ended, is called off, or the registry fails. Dropped, it is broken off.
pub(super) async fn run(state: HubState, id: JobId, place: RunningJob) {
    let ended = tokio::select! {
        ended = to_end(&state, &id) => ended,
        () = place.cancelled.cancelled() => return,
    };
    if let Err(error) = ended {
        // It is due still: the place is free after a while.
        failed(&state, &error).await;
    }
}

async fn to_end(state: &HubState, id: &JobId) -> Result<(), RegistryError> {
    let Some(job) = state.registry.begin_job(id, activity::now()).await? else {
        return Ok(());
    };
    if job.has_ended() {
        return Ok(());
    }
    let deadline = job.began.unwrap_or(job.created) + job.new.max_seconds * 1_000_000;
    let left = Duration::from_micros(deadline.saturating_sub(activity::now()));
    let end = tokio::select! {
        worked = work(state, &job) => worked?,
        () = sleep(left) => {
            let seconds = job.new.max_seconds;
            JobEnd::Failed(format!("the job was not done within {seconds} s"))
        }
    };
    let ended = state.registry.end_job(id, end, activity::now()).await?;
    if let Some(job) = ended {
        let outcome = JobOutcome::Ended {
            status: job.status.as_str(),
            succeeded: job.counts.succeeded,
            failed: job.counts.failed,
        };
        state.events.emit(Event::Job(id.as_str(), outcome));
    }
    Ok(())
}

/// Carries out what is left of a job.
async fn work(state: &HubState, job: &Job) -> Result<JobEnd, RegistryError> {
    // Both were read when it was made.
    let unreadable = || Ok(JobEnd::Failed("the job cannot be read".to_owned()));
    let Ok(content) = job::content(job.new.kind, &job.new.content) else {
        return unreadable();
    };
    let Ok(condition) = Condition::parse(&job.new.condition) else {
        return unreadable();
    };
    let connect_by = connect_by(state, job);
    if !job.has_all_devices {
        if condition.fields().has("connectionState") {
            sleep_until(connect_by).await;
        }
        find_devices(state, &job.new.id, condition).await?;
    }
    let work = Arc::new(Work {
        job: job.new.id.clone(),
        content,
        policy: job.new.policy.clone(),
        connect_by,
        turns: Semaphore::new(1),
    });
    on_devices(state, &job.new.id, &work).await?;
    Ok(JobEnd::Completed)
}

/// A hub that has just been started has no devices: for a job that is older, those that were
/// connected have a while to connect again.
fn connect_by(state: &HubState, job: &Job) -> Instant {
    let now = activity::now();
    let since = Duration::from_micros(now.saturating_sub(state.started));
    let left = limits::JOB_RECONNECT.saturating_sub(since);
    if job.created < state.started {
        Instant::now() + left
    } else {
        Instant::now()
    }
}

/// Adds the devices or modules that the condition selects, as a query finds them.
async fn find_devices(
    state: &HubState,
    id: &JobId,
    condition: Condition,
) -> Result<(), RegistryError> {
    let found = Arc::new(Mutex::new(Vec::new()));
    let (given, connections) = (Arc::clone(&found), state.clone());
    let work = move |snapshot: &mut dyn TwinSnapshot| {
        let (fields, mut selected) = (condition.fields(), Vec::new());
        let scan = Scan {
            members: match condition.source() {
                Source::Modules => Members::Modules,
                Source::Devices | Source::Jobs => Members::Devices,
            },
            narrowing: &condition.narrowing(),
            after: None,
            fields: &fields,
        };
        snapshot.scan(&scan, &mut |whole| {
            let device = whole.identity.id.clone();
            let activity = connections.activity(&whole.identity);
            if condition.matches(&documents::twin::part(whole, activity, &fields)) {
                selected.push(device);
            }
            ControlFlow::Continue(())
        })?;
        *lock(&given) = selected;
        Ok(())
    };
    state.registry.query_twins(Box::new(work)).await?;
    let mut found: Vec<DeviceIdentity> = std::mem::take(&mut *lock(&found));
    loop {
        let rest = found.split_off(found.len().min(PAGE));
        let (is_all, now) = (rest.is_empty(), activity::now());
        state
            .registry
            .add_job_devices(id, found, is_all, now)
            .await?;
        if is_all {
            return Ok(());
        }
        found = rest;
    }
}

/// Does the work on all devices that wait, some at a time.
async fn on_devices(state: &HubState, id: &JobId, work: &Arc<Work>) -> Result<(), RegistryError> {
    let mut at_work = JoinSet::new();
    let mut results: Vec<JobResult> = Vec::new();
    let mut has_more = true;
    let mut flush = interval(FLUSH);
    flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // What runs is in the registry first: after a restart nothing is done twice.
        if has_more && at_work.len() <= limits::JOB_DEVICES_AT_ONCE / 2 {
            let room = limits::JOB_DEVICES_AT_ONCE - at_work.len();
            let now = activity::now();
            let claimed = state.registry.claim_job_devices(id, room, now).await?;
            has_more = claimed.len() == room;
            for device in claimed {
                at_work.spawn(device::run(state.clone(), Arc::clone(work), device));
            }
        }
        if at_work.is_empty() && !has_more {
            break;
        }
        let is_due = tokio::select! {
            Some(result) = at_work.join_next(), if !at_work.is_empty() => {
                // A task that panicked has no result: its device fails with the job's end.
                results.extend(result.ok().flatten());
                results.len() >= RESULTS
            }
            _ = flush.tick() => !results.is_empty(),
        };
        if is_due {
            record(state, id, &mut results).await?;
        }
    }
    record(state, id, &mut results).await
}

async fn record(
    state: &HubState,
    id: &JobId,
    results: &mut Vec<JobResult>,
) -> Result<(), RegistryError> {
    let results = std::mem::take(results);
    let now = activity::now();
    state.registry.record_job_results(id, results, now).await
}
