//! Twins in their table. An identity without a row has the twin that no one has
//! written to.

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use common::identity::DeviceIdentity;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde_json::{Map, Value};
use time::OffsetDateTime;

use super::device_writes::{Work, Written};
use super::identities;
use super::rows::{self, column, damaged};
use super::{Result, SqliteRegistry, module_column, new_etag, tags};
use crate::iso8601;
use crate::registry::{
    DesiredChange, DeviceTwin, IfMatch, OnDesired, Owner, RegistryError, Section, StoreError, Twin,
    TwinChange, TwinPatch, Twins,
};

/// What [`twin`] reads of a row, from its first column on.
const COLUMNS: &str = "t.version, t.etag, t.tags, \
    t.desired, t.desired_metadata, t.desired_version, \
    t.reported, t.reported_metadata, t.reported_version";

const JOIN: &str = "LEFT JOIN twins t ON t.device = i.device AND t.module = i.module";

#[async_trait]
impl Twins for SqliteRegistry {
    async fn twin(&self, id: &DeviceIdentity) -> Result<Option<Twin>> {
        let id = id.clone();
        self.read(move |connection| find(connection, &id)).await
    }

    async fn device_twin(&self, id: &DeviceIdentity) -> Result<Option<DeviceTwin>> {
        let id = id.clone();
        self.read(move |connection| find_whole(connection, &id))
            .await
    }

    async fn change_twin(
        &self,
        id: &DeviceIdentity,
        change: TwinChange,
        condition: IfMatch,
        desired: OnDesired,
    ) -> Result<DeviceTwin> {
        let work = Work::Change(change, condition, desired);
        match self.write_of_device(id.clone(), work).await? {
            Written::Twin(whole) => Ok(*whole),
            _ => Err(StoreError::WriteUnfinished.into()),
        }
    }

    async fn patch_reported(&self, id: &DeviceIdentity, patch: TwinPatch) -> Result<u64> {
        let work = Work::Reported(patch);
        match self.write_of_device(id.clone(), work).await? {
            Written::Reported(version) => Ok(version),
            _ => Err(StoreError::WriteUnfinished.into()),
        }
    }
}

/// The twin of an identity, if there is such an identity.
fn find(connection: &Connection, id: &DeviceIdentity) -> Result<Option<Twin>> {
    connection
        .prepare_cached(&format!(
            "SELECT i.generation, {COLUMNS} FROM identities i {JOIN} \
             WHERE i.device = ?1 AND i.module = ?2"
        ))?
        .query_row([id.device.as_str(), module_column(id)], |row| {
            let generation: String = row.get(0)?;
            Ok(twin(row, 1, id, &generation))
        })
        .optional()?
        .transpose()
}

/// The same with the identity itself.
fn find_whole(connection: &Connection, id: &DeviceIdentity) -> Result<Option<DeviceTwin>> {
    connection
        .prepare_cached(&format!(
            "SELECT {}, {COLUMNS} FROM {} {JOIN} WHERE i.device = ?1 AND i.module = ?2",
            identities::COLUMNS,
            identities::TABLES
        ))?
        .query_row([id.device.as_str(), module_column(id)], |row| {
            Ok(whole(row))
        })
        .optional()?
        .transpose()
}

/// Changes tags and desired properties; what is stored, and the change for the device.
pub(super) fn change_twin(
    connection: &Connection,
    id: &DeviceIdentity,
    change: TwinChange,
    condition: &IfMatch,
) -> Result<(DeviceTwin, Option<DesiredChange>)> {
    let whole = find_whole(connection, id)?;
    let mut whole = whole.ok_or_else(|| RegistryError::NotFound(id.clone()))?;
    if matches!(condition, IfMatch::Etag(etag) if *etag != whole.twin.etag) {
        return Err(RegistryError::PreconditionFailed(id.clone()));
    }
    if change.is_empty() {
        return Ok((whole, None));
    }
    let now = iso8601::format(OffsetDateTime::now_utc());
    let changes_tags = change.tags.is_some();
    let desired = whole.twin.change(change, &now)?;
    whole.twin.version += 1;
    whole.twin.etag = new_etag();
    write(connection, id, &whole.twin)?;
    if changes_tags {
        tags::index(connection, id, &whole.twin.tags)?;
    }
    Ok((whole, desired))
}

/// Merges a patch into the reported properties; returns their new version.
pub(super) fn patch_reported(
    connection: &Connection,
    id: &DeviceIdentity,
    patch: TwinPatch,
) -> Result<u64> {
    let mut twin = find(connection, id)?.ok_or_else(|| RegistryError::NotFound(id.clone()))?;
    let now = iso8601::format(OffsetDateTime::now_utc());
    twin.reported.apply(patch, &now)?;
    twin.version += 1;
    twin.etag = new_etag();
    write(connection, id, &twin)?;
    Ok(twin.reported.version)
}

fn write(connection: &Connection, id: &DeviceIdentity, twin: &Twin) -> Result<()> {
    let text = |object: &Map<String, Value>| Value::from(object.clone()).to_string();
    connection
        .prepare_cached(
            "INSERT INTO twins (device, module, version, etag, tags, desired, desired_metadata, \
             desired_version, reported, reported_metadata, reported_version) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) \
             ON CONFLICT (device, module) DO UPDATE SET version = excluded.version, \
             etag = excluded.etag, tags = excluded.tags, desired = excluded.desired, \
             desired_metadata = excluded.desired_metadata, \
             desired_version = excluded.desired_version, reported = excluded.reported, \
             reported_metadata = excluded.reported_metadata, \
             reported_version = excluded.reported_version",
        )?
        .execute(params![
            id.device.as_str(),
            module_column(id),
            column(twin.version),
            twin.etag,
            text(&twin.tags),
            text(&twin.desired.properties),
            text(&twin.desired.metadata),
            column(twin.desired.version),
            text(&twin.reported.properties),
            text(&twin.reported.metadata),
            column(twin.reported.version),
        ])?;
    Ok(())
}

/// A row of an identity's columns and a twin's.
fn whole(row: &Row<'_>) -> Result<DeviceTwin> {
    let identity = rows::identity(row)?;
    let twin = twin(
        row,
        identities::COLUMN_COUNT,
        &identity.id,
        &identity.generation_id,
    )?;
    Ok(DeviceTwin { identity, twin })
}

/// A twin's [`COLUMNS`], from this one on.
fn twin(row: &Row<'_>, first: usize, id: &DeviceIdentity, generation: &str) -> Result<Twin> {
    let Some(version) = row.get::<_, Option<i64>>(first)? else {
        // Of this creation of the identity, and of no other.
        return Ok(Twin::untouched(STANDARD.encode(generation)));
    };
    Ok(Twin {
        version: version.unsigned_abs(),
        etag: row.get(first + 1)?,
        tags: object(row, first + 2, id)?,
        desired: section(row, first + 3, id)?,
        reported: section(row, first + 6, id)?,
    })
}

/// A section's three columns, from this one on.
fn section(row: &Row<'_>, first: usize, id: &DeviceIdentity) -> Result<Section> {
    Ok(Section {
        properties: object(row, first, id)?,
        metadata: object(row, first + 1, id)?,
        version: row.get::<_, i64>(first + 2)?.unsigned_abs(),
    })
}

fn object(row: &Row<'_>, index: usize, id: &DeviceIdentity) -> Result<Map<String, Value>> {
    let text: String = row.get(index)?;
    serde_json::from_str(&text).map_err(|_| damaged(Owner::Identity(id.clone()), "the twin"))
}
