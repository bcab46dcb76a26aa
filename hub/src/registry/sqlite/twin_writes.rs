//! Writes of twins, which share transactions: after a hub's restart thousands of devices
//! report at once, and one by one each would wait for all the others' turns at the disk.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use common::identity::DeviceIdentity;
use common::limits;
use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::super::{RegistryError, TwinPatch};
use super::{Result, SqliteRegistry, twins};

/// The writes for the next transaction. More wait before it, where waiting costs no thread.
pub(super) struct TwinWrites {
    queue: Mutex<Queue>,
    room: Arc<Semaphore>,
}

#[derive(Default)]
struct Queue {
    writes: Vec<Write>,
    /// Somebody is at it, and will look here again.
    is_busy: bool,
}

struct Write {
    id: DeviceIdentity,
    patch: TwinPatch,
    answer: oneshot::Sender<Result<u64>>,
    /// Held to the end of the write, also when nobody waits for it any more.
    room: Option<OwnedSemaphorePermit>,
}

impl Default for TwinWrites {
    fn default() -> Self {
        Self {
            queue: Mutex::default(),
            room: Arc::new(Semaphore::new(limits::TWIN_WRITES)),
        }
    }
}

impl TwinWrites {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // No code panics while it holds the lock; if one did, the queue is still whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What waits, in its order; nothing means that nobody is at it any more.
    fn take(&self) -> Vec<Write> {
        let mut queue = self.queue();
        queue.is_busy = !queue.writes.is_empty();
        std::mem::take(&mut queue.writes)
    }
}

impl SqliteRegistry {
    /// Merges a patch into reported properties, together with what else waits for that.
    /// Dropped, it is carried out all the same if its turn to wait for the disk has come.
    pub(super) async fn write_twin(&self, id: DeviceIdentity, patch: TwinPatch) -> Result<u64> {
        let room = Arc::clone(&self.twin_writes.room)
            .acquire_owned()
            .await
            .ok();
        let (answer, answered) = oneshot::channel();
        let is_first = {
            let mut queue = self.twin_writes.queue();
            queue.writes.push(Write {
                id,
                patch,
                answer,
                room,
            });
            !std::mem::replace(&mut queue.is_busy, true)
        };
        if is_first {
            // On its own, since whoever is first may be dropped.
            let registry = self.clone();
            tokio::spawn(async move { registry.write_twins().await });
        }
        let unfinished = || RegistryError::Store("a write did not finish".to_owned());
        answered.await.unwrap_or_else(|_| Err(unfinished()))
    }

    /// One transaction after the other, until no write waits.
    async fn write_twins(&self) {
        loop {
            let writes = self.twin_writes.take();
            if writes.is_empty() {
                return;
            }
            let (patches, waiting): (Vec<_>, Vec<_>) = writes
                .into_iter()
                .map(|write| ((write.id, write.patch), (write.answer, write.room)))
                .unzip();
            let results = self.write(move |connection| patch_all(connection, patches));
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

/// Merges each patch, or tells why not: what one cannot have is no matter of the others.
fn patch_all(
    connection: &Connection,
    patches: Vec<(DeviceIdentity, TwinPatch)>,
) -> Result<Vec<Result<u64>>> {
    let mut results = Vec::with_capacity(patches.len());
    for (id, patch) in patches {
        let result = twins::patch_reported(connection, &id, patch);
        // Some failures, as a full disk, end the whole transaction.
        match result {
            Err(error) if connection.is_autocommit() => return Err(error),
            result => results.push(result),
        }
    }
    Ok(results)
}
