//! What is written about devices in great number, in shared transactions: their reports and
//! subscriptions, since after a hub's restart thousands report at once, and what services want of
//! them, since a job may change every twin. One by one each would wait for all the others' turns at
//! the disk.

use std::sync::{Arc, Mutex, MutexGuard};

use common::identity::DeviceIdentity;
use common::locks::lock;
use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_util::task::TaskTracker;

use super::{Result, SqliteRegistry, device_jobs, sessions, twins};
use crate::registry::{
    DesiredChange, DeviceTwin, IfMatch, JobId, OnDesired, StoreError, Subscriptions, TwinChange,
    TwinPatch,
};

use crate::limits;

/// The writes for the next transaction. More wait before it, where waiting costs no thread.
pub(super) struct DeviceWrites {
    queue: Mutex<Queue>,
    room: Arc<Semaphore>,
    /// Owns the task that writes, while there is one.
    tasks: TaskTracker,
}

#[derive(Default)]
struct Queue {
    writes: Vec<Write>,
    /// Somebody is at it, and will look here again.
    is_busy: bool,
}

struct Write {
    id: DeviceIdentity,
    work: Work,
    answer: oneshot::Sender<Result<Written>>,
    /// Held to the end of the write, also when the caller has gone.
    room: Option<OwnedSemaphorePermit>,
}

/// What is to be written about a device.
pub(super) enum Work {
    /// A patch of its reported properties.
    Reported(TwinPatch),
    /// All that it has subscribed now, of this generation.
    Subscriptions(String, Subscriptions),
    /// What a service changes in its twin, on a condition, and who is told of it.
    Change(TwinChange, IfMatch, OnDesired),
    /// The same if it runs for this job, which is then done with it.
    ChangeForJob(JobId, TwinChange, IfMatch, OnDesired),
}

/// What is written.
pub(super) enum Written {
    /// Reported properties, which have this version now.
    Reported(u64),
    /// What the device has subscribed.
    Subscriptions,
    /// The twin, as it is now.
    Twin(Box<DeviceTwin>),
    /// Nothing: the job has nothing more to do here.
    NotWanted,
}

/// The same before it is on the disk.
enum Done {
    Written(Written),
    Changed(Box<DeviceTwin>, Option<DesiredChange>, OnDesired),
}

impl Done {
    /// It is on the disk: who is to know of it does so before anything else is written.
    fn tell(self) -> Written {
        match self {
            Self::Written(written) => written,
            Self::Changed(twin, change, desired) => {
                if let Some(change) = change {
                    desired(change);
                }
                Written::Twin(twin)
            }
        }
    }
}

impl Default for DeviceWrites {
    fn default() -> Self {
        Self {
            queue: Mutex::default(),
            room: Arc::new(Semaphore::new(limits::TWIN_WRITES)),
            tasks: TaskTracker::new(),
        }
    }
}

impl DeviceWrites {
    /// Waits until nothing of what was queued is left. May be dropped.
    pub(super) async fn settle(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }

    /// What waits, in its order; nothing means that no task writes.
    fn take(&self) -> Vec<Write> {
        let mut queue = self.queue();
        queue.is_busy = !queue.writes.is_empty();
        std::mem::take(&mut queue.writes)
    }
}

impl SqliteRegistry {
    /// Carries out a device's write, together with what else waits for that.
    /// Dropped, it is carried out all the same if its turn to wait for the disk has come.
    pub(super) async fn write_of_device(&self, id: DeviceIdentity, work: Work) -> Result<Written> {
        let room = Arc::clone(&self.device_writes.room)
            .acquire_owned()
            .await
            .ok();
        let (answer, answered) = oneshot::channel();
        let is_first = {
            let mut queue = self.device_writes.queue();
            queue.writes.push(Write {
                id,
                work,
                answer,
                room,
            });
            !std::mem::replace(&mut queue.is_busy, true)
        };
        if is_first {
            // On its own, since the first caller's future may be dropped.
            let registry = self.clone();
            let tasks = &self.device_writes.tasks;
            tasks.spawn(async move { registry.write_for_devices().await });
        }
        answered
            .await
            .unwrap_or_else(|_| Err(StoreError::WriteUnfinished.into()))
    }

    /// One transaction after the other, until no write waits.
    async fn write_for_devices(&self) {
        loop {
            let writes = self.device_writes.take();
            if writes.is_empty() {
                return;
            }
            let (works, waiting): (Vec<_>, Vec<_>) = writes
                .into_iter()
                .map(|write| ((write.id, write.work), (write.answer, write.room)))
                .unzip();
            let results = self.write_then(
                move |connection| write_all(connection, works),
                |done| {
                    done.into_iter()
                        .map(|done| done.map(Done::tell))
                        .collect::<Vec<_>>()
                },
            );
            match results.await {
                Ok(results) => {
                    for ((answer, _), result) in waiting.into_iter().zip(results) {
                        let _ = answer.send(result);
                    }
                }
                Err(error) => {
                    for (answer, _) in waiting {
                        let _ = answer.send(Err(error.clone()));
                    }
                }
            }
        }
    }
}

/// Changes a twin if its device runs for this job, which has then completed there.
fn change_for_job(
    connection: &Connection,
    job: &JobId,
    id: &DeviceIdentity,
    change: TwinChange,
    condition: &IfMatch,
) -> Result<Option<(DeviceTwin, Option<DesiredChange>)>> {
    if !device_jobs::runs(connection, job, id)? {
        return Ok(None);
    }
    let changed = twins::change_twin(connection, id, change, condition)?;
    device_jobs::complete(connection, job, id)?;
    Ok(Some(changed))
}

/// Carries out each, or says why not: what one cannot have is no matter of the others.
fn write_all(
    connection: &Connection,
    works: Vec<(DeviceIdentity, Work)>,
) -> Result<Vec<Result<Done>>> {
    let mut results = Vec::with_capacity(works.len());
    for (id, work) in works {
        let result = match work {
            Work::Reported(patch) => twins::patch_reported(connection, &id, patch)
                .map(|version| Done::Written(Written::Reported(version))),
            Work::Subscriptions(generation, filters) => {
                sessions::replace(connection, &id, &generation, &filters)
                    .map(|()| Done::Written(Written::Subscriptions))
            }
            Work::Change(change, condition, desired) => {
                twins::change_twin(connection, &id, change, &condition)
                    .map(|(twin, change)| Done::Changed(Box::new(twin), change, desired))
            }
            Work::ChangeForJob(job, change, condition, desired) => {
                change_for_job(connection, &job, &id, change, &condition).map(|changed| {
                    changed.map_or(Done::Written(Written::NotWanted), |(twin, change)| {
                        Done::Changed(Box::new(twin), change, desired)
                    })
                })
            }
        };
        // Some failures, as a full disk, end the whole transaction.
        match result {
            Err(error) if connection.is_autocommit() => return Err(error),
            result => results.push(result),
        }
    }
    Ok(results)
}
