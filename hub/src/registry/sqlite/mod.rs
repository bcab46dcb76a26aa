//! The registry in one SQLite file. Several processes may use it at once: the hub and
//! admin commands. A change is on the disk when its call returns. SQLite blocks, so
//! every call runs on a thread of its own; a call whose future is dropped is carried
//! out all the same.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use common::identity::{DeviceId, DeviceIdentity, ModuleId};
use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior};

use self::damaged::Damaged;
use self::device_writes::{DeviceWrites, Work};
use self::rows::{id, identity, policy};
use super::{
    ActivityRecord, Changes, Identity, IdentitySettings, IfMatch, Policy, Registry, RegistryError,
    Statistics, Subscriptions, Twin, TwinPatch,
};
use crate::data_dir::DataDir;

mod damaged;
mod device_writes;
mod rows;
mod schema;
mod subscriptions;
mod twins;
mod writes;

type Result<T> = std::result::Result<T, RegistryError>;

/// Status columns come from the device's row, also for its modules.
const SELECT: &str = "SELECT i.device, i.module, i.generation, i.etag, d.enabled, \
    d.status_reason, d.status_updated, i.authentication, i.primary_credential, \
    i.secondary_credential, i.iot_edge, i.device_scope, i.parent_scopes, i.managed_by, \
    coalesce(a.connected, 0), a.connection_state_updated, a.last_activity \
    FROM identities i JOIN identities d ON d.device = i.device AND d.module = '' \
    LEFT JOIN activity a ON a.device = i.device AND a.module = i.module \
    AND a.generation = i.generation";
const SELECT_POLICY: &str = "SELECT name, registry_read, registry_write, service_connect, \
    device_connect, primary_key, secondary_key FROM policies";

/// A [`Registry`] in the data folder's database. Reads do not wait for writes.
#[derive(Clone)]
pub struct SqliteRegistry {
    reader: Arc<Mutex<Connection>>,
    writer: Arc<Mutex<schema::Closing>>,
    /// Whose rows are known to be damaged.
    damaged: Arc<Damaged>,
    /// Devices write as often as they like.
    device_writes: Arc<DeviceWrites>,
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
            .map_err(|error| RegistryError::Store(common::report::chain(&error)))?;
        let mut writer = schema::Closing::new(schema::connect(&path)?);
        schema::migrate(&mut writer)?;
        let reader = schema::connect(&path)?;
        reader.pragma_update(None, "query_only", true)?;
        Ok(Self {
            reader: Arc::new(Mutex::new(reader)),
            writer: Arc::new(Mutex::new(writer)),
            damaged: Arc::default(),
            device_writes: Arc::default(),
        })
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let connection = Arc::clone(&self.reader);
        blocking(move || {
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
        let connection = Arc::clone(&self.writer);
        blocking(move || {
            let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let result = work(&transaction)?;
            transaction.commit()?;
            Ok(result)
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(RegistryError::Store("a query did not finish".to_owned())))
}

#[async_trait]
impl Registry for SqliteRegistry {
    async fn identity(&self, id: &DeviceIdentity) -> Result<Option<Identity>> {
        let id = id.clone();
        self.read(move |connection| find(connection, &id)).await
    }

    async fn devices(&self, max: usize) -> Result<Vec<Identity>> {
        let damaged = Arc::clone(&self.damaged);
        self.read(move |connection| {
            let max = i64::try_from(max).unwrap_or(i64::MAX);
            let mut statement = connection.prepare_cached(&format!(
                "{SELECT} WHERE i.module = '' ORDER BY i.device LIMIT ?1"
            ))?;
            let rows = statement.query_map([max], |row| Ok(identity(row)))?;
            damaged.leave_out(rows)
        })
        .await
    }

    async fn modules(&self, device: &DeviceId) -> Result<Vec<Identity>> {
        let device = device.clone();
        let damaged = Arc::clone(&self.damaged);
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(&format!(
                "{SELECT} WHERE i.device = ?1 AND i.module <> '' ORDER BY i.module"
            ))?;
            let rows = statement.query_map([device.as_str()], |row| Ok(identity(row)))?;
            damaged.leave_out(rows)
        })
        .await
    }

    async fn create(&self, id: &DeviceIdentity, settings: IdentitySettings) -> Result<Identity> {
        let id = id.clone();
        self.write(move |connection| writes::create(connection, &id, &settings))
            .await
    }

    async fn update(
        &self,
        id: &DeviceIdentity,
        settings: IdentitySettings,
        condition: IfMatch,
    ) -> Result<Identity> {
        let id = id.clone();
        self.write(move |connection| writes::update(connection, &id, &settings, condition))
            .await
    }

    async fn delete(&self, id: &DeviceIdentity, condition: IfMatch) -> Result<()> {
        let id = id.clone();
        self.write(move |connection| {
            writes::check(connection, &id, condition)?;
            connection
                .prepare_cached(
                    "DELETE FROM identities WHERE device = ?1 AND (module = ?2 OR ?2 = '')",
                )?
                .execute([id.device.as_str(), module_column(&id)])?;
            Ok(())
        })
        .await
    }

    async fn twin(&self, id: &DeviceIdentity) -> Result<Option<Twin>> {
        let id = id.clone();
        self.read(move |connection| twins::find(connection, &id))
            .await
    }

    async fn patch_reported(&self, id: &DeviceIdentity, patch: TwinPatch) -> Result<u64> {
        self.write_of_device(id.clone(), Work::Reported(patch))
            .await
    }

    async fn subscriptions(&self, id: &DeviceIdentity, generation: &str) -> Result<Subscriptions> {
        let (id, generation) = (id.clone(), generation.to_owned());
        self.read(move |connection| subscriptions::find(connection, &id, &generation))
            .await
    }

    async fn keep_subscriptions(
        &self,
        id: &DeviceIdentity,
        generation: &str,
        filters: Subscriptions,
    ) -> Result<()> {
        let work = Work::Subscriptions(generation.to_owned(), filters);
        self.write_of_device(id.clone(), work).await.map(|_| ())
    }

    async fn record_activity(&self, records: Vec<ActivityRecord>) -> Result<()> {
        self.write(move |connection| writes::record_activity(connection, &records))
            .await
    }

    async fn statistics(&self) -> Result<Statistics> {
        self.read(|connection| {
            let (total, enabled): (i64, i64) = connection
                .prepare_cached(
                    "SELECT count(*), coalesce(sum(enabled), 0) FROM identities WHERE module = ''",
                )?
                .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(Statistics {
                total: total.unsigned_abs(),
                enabled: enabled.unsigned_abs(),
            })
        })
        .await
    }

    async fn policy(&self, name: &str) -> Result<Option<Policy>> {
        let name = name.to_owned();
        self.read(move |connection| {
            connection
                .prepare_cached(&format!("{SELECT_POLICY} WHERE name = ?1"))?
                .query_row([name], |row| Ok(policy(row)))
                .optional()?
                .transpose()
        })
        .await
    }

    async fn policies(&self) -> Result<Vec<Policy>> {
        let damaged = Arc::clone(&self.damaged);
        self.read(move |connection| {
            let mut statement =
                connection.prepare_cached(&format!("{SELECT_POLICY} ORDER BY name"))?;
            let rows = statement.query_map([], |row| Ok(policy(row)))?;
            damaged.leave_out(rows)
        })
        .await
    }

    async fn changes_since(&self, point: u64) -> Result<Changes> {
        self.read(move |connection| changes(connection, point))
            .await
    }
}

/// Reads the history after a point. What is written between the two queries is told
/// twice, never missed: the present point is read first.
fn changes(connection: &Connection, point: u64) -> Result<Changes> {
    let upto: i64 = connection
        .prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = 'changes'")?
        .query_row([], |row| row.get(0))?;
    let mut changes = Changes {
        upto: upto.unsigned_abs(),
        ..Changes::default()
    };
    if point == 0 || point == changes.upto {
        return Ok(changes);
    }
    let after = i64::try_from(point).unwrap_or(i64::MAX);
    let mut oldest = None;
    let mut statement = connection
        .prepare_cached("SELECT point, device, module FROM changes WHERE point > ?1 ORDER BY 1")?;
    let mut rows = statement.query([after])?;
    while let Some(row) = rows.next()? {
        let at: i64 = row.get(0)?;
        oldest.get_or_insert(at);
        // An identity whose id is damaged cannot be connected.
        if let Ok(id) = id(&row.get::<_, String>(1)?, &row.get::<_, String>(2)?) {
            changes.identities.push(id);
        }
    }
    // Also a point of the future: the database was put back to an earlier state.
    changes.gap = point > changes.upto || oldest.is_none_or(|oldest| oldest > after + 1);
    Ok(changes)
}

fn find(connection: &Connection, id: &DeviceIdentity) -> Result<Option<Identity>> {
    connection
        .prepare_cached(&format!("{SELECT} WHERE i.device = ?1 AND i.module = ?2"))?
        .query_row([id.device.as_str(), module_column(id)], |row| {
            Ok(identity(row))
        })
        .optional()?
        .transpose()
}

fn found(connection: &Connection, id: &DeviceIdentity) -> Result<Identity> {
    find(connection, id)?.ok_or_else(|| RegistryError::NotFound(id.clone()))
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
