//! The tables of the registry's database, and how an older or empty database gets
//! them. `PRAGMA user_version` counts the steps that have been taken.

use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

use common::secret::SharedKey;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, TransactionBehavior, params};

use super::steps::{STEPS, TAG_VALUES};
use super::tags;
use crate::registry::{Permissions, RegistryError, StoreError};

use crate::limits;

/// Opens a connection with the settings that all of ours have. Where the database is in
/// order, nothing is written to it.
///
/// The files that SQLite works with beside the database stay when the last connection goes:
/// a hub that is started on a full disk has no room to make them again. [`Closing`] sees to
/// it that no content stays in them.
pub(super) fn connect(path: &std::path::Path) -> Result<Connection, RegistryError> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(limits::REGISTRY_BUSY)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // Changing to WAL does not wait for others by itself.
    let deadline = Instant::now() + limits::REGISTRY_BUSY;
    while let Err(error) = connection.pragma_update(None, "journal_mode", "wal") {
        if error.sqlite_error_code() != Some(ErrorCode::DatabaseBusy) || Instant::now() > deadline {
            return Err(error.into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    // What is acknowledged is on the disk; what is deleted is not.
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "secure_delete", true)?;
    Ok(connection)
}

/// The writing connection. At its end what the write-ahead log holds is moved into the
/// database, unless another process is at work on it: deleted keys do not stay in the log.
#[derive(Debug)]
pub(super) struct Closing(Connection);

impl Closing {
    /// Takes over a connection.
    pub(super) fn new(connection: Connection) -> Self {
        Self(connection)
    }
}

impl Deref for Closing {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.0
    }
}

impl DerefMut for Closing {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.0
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        // Best effort: what is in the log is as durable as what is in the database.
        let _ = self.0.busy_timeout(Duration::ZERO);
        let _ = self
            .0
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    }
}

/// Takes the steps that are missing; two processes may try at the same time.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), RegistryError> {
    migrate_to(connection, STEPS.len())
}

/// The same up to this step, as a hub of that time would have done.
pub(super) fn migrate_to(connection: &mut Connection, last: usize) -> Result<(), RegistryError> {
    if version(connection)? == last {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let done = version(&transaction)?;
    if done > last {
        return Err(StoreError::Newer.into());
    }
    for step in STEPS.iter().take(last).skip(done) {
        transaction.execute_batch(step)?;
        if *step == TAG_VALUES {
            tags::index_all(&transaction)?;
        }
    }
    if done == 0 {
        // The limit is a constant of ours, so the trigger is made here.
        transaction.execute_batch(&format!(
            "CREATE TRIGGER change_added AFTER INSERT ON changes BEGIN
                DELETE FROM changes WHERE point <= NEW.point - {};
            END;",
            limits::CHANGES_KEPT
        ))?;
        for (name, permissions) in built_in_policies() {
            transaction.execute(
                "INSERT INTO policies (name, registry_read, registry_write, service_connect, \
                 device_connect, primary_key, secondary_key) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    name,
                    permissions.registry_read,
                    permissions.registry_write,
                    permissions.service_connect,
                    permissions.device_connect,
                    SharedKey::random().to_base64().expose(),
                    SharedKey::random().to_base64().expose(),
                ],
            )?;
        }
    }
    transaction.pragma_update(None, "user_version", last as i64)?;
    transaction.commit()?;
    Ok(())
}

fn version(connection: &Connection) -> Result<usize, RegistryError> {
    let steps: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    Ok(usize::try_from(steps).unwrap_or(usize::MAX))
}

/// IoT Hub's own policies (`docs/protocol.md`, "SAS tokens and policies").
fn built_in_policies() -> [(&'static str, Permissions); 5] {
    let none = Permissions::default();
    [
        (
            "iothubowner",
            Permissions {
                registry_read: true,
                registry_write: true,
                service_connect: true,
                device_connect: true,
                // What connects services reads twins anyway.
                twin_read: false,
            },
        ),
        (
            "service",
            Permissions {
                service_connect: true,
                ..none
            },
        ),
        (
            "device",
            Permissions {
                device_connect: true,
                ..none
            },
        ),
        (
            "registryRead",
            Permissions {
                registry_read: true,
                ..none
            },
        ),
        (
            "registryReadWrite",
            Permissions {
                registry_read: true,
                registry_write: true,
                ..none
            },
        ),
    ]
}
