//! What the API and the jobs that run have for each other: a job is new, or is called off. No I/O.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use common::locks::lock;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::registry::JobId;

/// The jobs of one hub process. Cheap to clone.
#[derive(Clone, Default)]
pub struct Schedule {
    running: Arc<Mutex<HashMap<JobId, CancellationToken>>>,
    /// Notified when there is something to run.
    pub wake: Arc<Notify>,
}

/// A job that runs; dropped, it runs no more.
pub struct RunningJob {
    schedule: Schedule,
    id: JobId,
    /// Cancelled when it is called off.
    pub cancelled: CancellationToken,
}

impl Schedule {
    /// A job runs from now on; `None`: it does already.
    pub fn enter(&self, id: &JobId) -> Option<RunningJob> {
        let mut running = lock(&self.running);
        if running.contains_key(id) {
            return None;
        }
        let cancelled = CancellationToken::new();
        running.insert(id.clone(), cancelled.clone());
        Some(RunningJob {
            schedule: self.clone(),
            id: id.clone(),
            cancelled,
        })
    }

    /// Calls a job off, if it runs.
    pub fn cancel(&self, id: &JobId) {
        if let Some(cancelled) = lock(&self.running).get(id) {
            cancelled.cancel();
        }
    }
}

impl Drop for RunningJob {
    fn drop(&mut self) {
        lock(&self.schedule.running).remove(&self.id);
        // There is room for another one.
        self.schedule.wake.notify_one();
    }
}
