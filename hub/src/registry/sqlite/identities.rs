//! Identities in their table.

use std::sync::Arc;

use async_trait::async_trait;
use common::identity::{DeviceId, DeviceIdentity};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::damaged::Damaged;
use super::rows::identity;
use super::{Result, SqliteRegistry, module_column, writes};
use crate::registry::{
    Cursor, Identities, Identity, IdentitySettings, IfMatch, Page, RegistryError, Statistics,
};

/// Status columns come from the device's row, also for its modules.
pub(super) const COLUMNS: &str = "i.device, i.module, i.generation, i.etag, d.enabled, \
    d.status_reason, d.status_updated, i.authentication, i.primary_credential, \
    i.secondary_credential, i.iot_edge, i.device_scope, i.parent_scopes, i.managed_by, \
    coalesce(a.connected, 0), a.connection_state_updated, a.last_activity, \
    (SELECT count(*) FROM messages m WHERE m.device = i.device AND i.module = '')";
/// How many [`COLUMNS`] there are.
pub(super) const COLUMN_COUNT: usize = 18;
/// Where the columns are from.
pub(super) const TABLES: &str = "identities i JOIN identities d ON d.device = i.device AND d.module = '' \
    LEFT JOIN activity a ON a.device = i.device AND a.module = i.module \
    AND a.generation = i.generation";

#[async_trait]
impl Identities for SqliteRegistry {
    async fn identity(&self, id: &DeviceIdentity) -> Result<Option<Identity>> {
        let id = id.clone();
        self.read(move |connection| find(connection, &id)).await
    }

    async fn devices(&self, after: Option<&Cursor>, limit: usize) -> Result<Page> {
        let (after, damaged) = (behind(after), Arc::clone(&self.damaged));
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM {TABLES} WHERE i.module = '' AND i.device > ?1 ORDER BY i.device LIMIT ?2"
            ))?;
            let rows = statement.query_map(params![after, count(limit)], |row| {
                Ok((row.get(0)?, identity(row)))
            })?;
            page(rows, limit, &damaged)
        })
        .await
    }

    async fn modules(
        &self,
        device: &DeviceId,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page> {
        let (after, damaged) = (behind(after), Arc::clone(&self.damaged));
        let device = device.clone();
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM {TABLES} WHERE i.device = ?1 AND i.module > ?2 ORDER BY i.module LIMIT ?3"
            ))?;
            let rows = statement
                .query_map(params![device.as_str(), after, count(limit)], |row| {
                    Ok((row.get(1)?, identity(row)))
                })?;
            page(rows, limit, &damaged)
        })
        .await
    }

    async fn create(&self, id: &DeviceIdentity, settings: IdentitySettings) -> Result<Identity> {
        let id = id.clone();
        self.write(move |connection| {
            writes::create(connection, &id, &settings)?;
            found(connection, &id)
        })
        .await
    }

    async fn update(
        &self,
        id: &DeviceIdentity,
        settings: IdentitySettings,
        condition: IfMatch,
    ) -> Result<Identity> {
        let id = id.clone();
        self.write(move |connection| {
            writes::update(connection, &id, &settings, condition)?;
            found(connection, &id)
        })
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
}

/// The id that a list goes on behind. The empty one is before all devices, and it is the device
/// itself before all its modules.
fn behind(cursor: Option<&Cursor>) -> String {
    cursor.map(|cursor| cursor.0.clone()).unwrap_or_default()
}

fn count(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// Rows with their ids, as a page of at most this many.
fn page(
    rows: impl Iterator<Item = rusqlite::Result<(String, Result<Identity>)>>,
    limit: usize,
    damaged: &Damaged,
) -> Result<Page> {
    let (mut seen, mut last) = (0, None);
    let rows = rows.map(|row| {
        let (id, identity) = row?;
        seen += 1;
        last = Some(id);
        Ok(identity)
    });
    let identities = damaged.leave_out(rows)?;
    Ok(Page {
        identities,
        next: last.filter(|_| seen >= limit).map(Cursor),
    })
}

/// An identity, if there is one.
pub(super) fn find(connection: &Connection, id: &DeviceIdentity) -> Result<Option<Identity>> {
    connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM {TABLES} WHERE i.device = ?1 AND i.module = ?2"
        ))?
        .query_row([id.device.as_str(), module_column(id)], |row| {
            Ok(identity(row))
        })
        .optional()?
        .transpose()
}

/// The same, for who knows that it is there.
fn found(connection: &Connection, id: &DeviceIdentity) -> Result<Identity> {
    find(connection, id)?.ok_or_else(|| RegistryError::NotFound(id.clone()))
}
