//! The registry in one SQLite file, a file of ours for each noun. Several processes may use it at once: the hub and
//! admin commands. A change is on the disk when its call returns. SQLite blocks, so
//! every call runs on a thread of its own; a call whose future is dropped is carried
//! out all the same.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use common::identity::{DeviceIdentity, ModuleId};
use rusqlite::{Connection, TransactionBehavior};

use self::damaged::Damaged;
use self::device_writes::DeviceWrites;
use self::queries::QueryConnections;
use super::{Actor, Registry, RegistryError, StoreError};
use crate::data_dir::DataDir;
use crate::events::{Counts, Events};

mod approvals;
mod authorities;
mod changes;
mod damaged;
mod device_jobs;
mod device_writes;
mod enrolments;
mod failure;
mod identities;
mod job_rows;
mod jobs;
mod messages;
mod notes;
mod partial;
mod policies;
mod queries;
mod rows;
mod schema;
mod sessions;
mod steps;
mod tags;
mod tokens;
mod twins;
mod usage;
mod writes;

type Result<T> = std::result::Result<T, RegistryError>;

/// A [`Registry`] in the data folder's database. Reads do not wait for writes.
#[derive(Clone)]
pub struct SqliteRegistry {
    reader: Arc<Mutex<Connection>>,
    writer: Arc<Mutex<schema::Closing>>,
    /// Whose rows are known to be damaged.
    damaged: Arc<Damaged>,
    /// Devices write as often as they like.
    device_writes: Arc<DeviceWrites>,
    queries: Arc<QueryConnections>,
    counts: Counts,
    /// Who changes something by this handle, as JSON.
    actor: Option<Arc<str>>,
}

impl SqliteRegistry {
    /// Opens the database of a data folder; makes it, with the built-in policies and
    /// fresh keys, when it is not there yet. Blocks.
    ///
    /// # Errors
    /// [`RegistryError::Store`] when it cannot be opened or is of a later version.
    pub fn open(dir: &DataDir) -> Result<Self> {
        let path = dir
            .database()
            .map_err(|error| StoreError::DataDir(Arc::new(error)))?;
        let mut writer = schema::Closing::new(schema::connect(&path)?);
        schema::migrate(&mut writer)?;
        let reader = schema::connect(&path)?;
        reader.pragma_update(None, "query_only", true)?;
        Ok(Self {
            reader: Arc::new(Mutex::new(reader)),
            writer: Arc::new(Mutex::new(writer)),
            damaged: Arc::default(),
            device_writes: Arc::default(),
            queries: Arc::new(QueryConnections::new(path)),
            counts: Counts::default(),
            actor: None,
        })
    }

    /// The same for a hub: its metrics have the time of each call, and rows that are left out are
    /// reported to these sinks.
    #[must_use]
    pub fn reporting_to(self, events: &Events) -> Self {
        Self {
            counts: events.counts().clone(),
            damaged: Arc::new(Damaged::reporting_to(events)),
            ..self
        }
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let connection = Arc::clone(&self.reader);
        self.timed("read", move || {
            // A panic leaves no half-done work: SQLite rolls back what is not committed.
            let connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            work(&connection)
        })
        .await
    }

    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.write_then(work, |result| result).await
    }

    /// The same; `then` is given what is stored before any other write begins.
    async fn write_then<T: Send + 'static, U: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
        then: impl FnOnce(T) -> U + Send + 'static,
    ) -> Result<U> {
        let connection = Arc::clone(&self.writer);
        let actor = self.actor.clone();
        self.timed("write", move || {
            let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let noted = match &actor {
                Some(_) => notes::last(&transaction)?,
                None => 0,
            };
            let result = work(&transaction)?;
            if let Some(actor) = &actor {
                notes::sign(&transaction, noted, actor)?;
            }
            transaction.commit()?;
            Ok(then(result))
        })
        .await
    }

    /// Does it on a thread of its own. Its time, with that for which it waits for others, is
    /// counted.
    async fn timed<T: Send + 'static>(
        &self,
        access: &'static str,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (counts, started) = (self.counts.clone(), Instant::now());
        blocking(move || {
            let result = work();
            counts.registry(access, started.elapsed());
            result
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(StoreError::QueryUnfinished.into()))
}

#[async_trait]
impl Registry for SqliteRegistry {
    async fn settle(&self) {
        self.device_writes.settle().await;
    }

    fn acting(&self, actor: &Actor) -> Arc<dyn Registry> {
        Arc::new(Self {
            actor: Some(actor.to_json().to_string().into()),
            ..self.clone()
        })
    }
}

fn module_column(id: &DeviceIdentity) -> &str {
    id.module.as_ref().map_or("", ModuleId::as_str)
}

/// Random, so that an identity made anew never has the etag of its predecessor.
fn new_etag() -> String {
    STANDARD.encode(common::random::bytes::<9>())
}

#[cfg(test)]
mod tests;
