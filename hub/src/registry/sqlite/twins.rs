//! Twins in their table. An identity without a row has the twin that no one has
//! written to.

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use common::identity::DeviceIdentity;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde_json::{Map, Value};
use time::OffsetDateTime;

use super::device_writes::Work;
use super::rows::{column, damaged};
use super::{Result, SqliteRegistry, module_column, new_etag};
use crate::iso8601;
use crate::registry::{Owner, RegistryError, Section, Twin, TwinPatch, Twins};

const SELECT: &str = "SELECT i.generation, t.version, t.etag, \
    t.desired, t.desired_metadata, t.desired_version, \
    t.reported, t.reported_metadata, t.reported_version \
    FROM identities i LEFT JOIN twins t ON t.device = i.device AND t.module = i.module \
    WHERE i.device = ?1 AND i.module = ?2";

#[async_trait]
impl Twins for SqliteRegistry {
    async fn twin(&self, id: &DeviceIdentity) -> Result<Option<Twin>> {
        let id = id.clone();
        self.read(move |connection| find(connection, &id)).await
    }

    async fn patch_reported(&self, id: &DeviceIdentity, patch: TwinPatch) -> Result<u64> {
        self.write_of_device(id.clone(), Work::Reported(patch))
            .await
    }
}

/// The twin of an identity, if there is such an identity.
fn find(connection: &Connection, id: &DeviceIdentity) -> Result<Option<Twin>> {
    connection
        .prepare_cached(SELECT)?
        .query_row([id.device.as_str(), module_column(id)], |row| {
            Ok(twin(row, id))
        })
        .optional()?
        .transpose()
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
            "INSERT OR REPLACE INTO twins VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute(params![
            id.device.as_str(),
            module_column(id),
            column(twin.version),
            twin.etag,
            text(&twin.desired.properties),
            text(&twin.desired.metadata),
            column(twin.desired.version),
            text(&twin.reported.properties),
            text(&twin.reported.metadata),
            column(twin.reported.version),
        ])?;
    Ok(())
}

fn twin(row: &Row<'_>, id: &DeviceIdentity) -> Result<Twin> {
    let Some(version) = row.get::<_, Option<i64>>(1)? else {
        // Of this creation of the identity, and of no other.
        let generation: String = row.get(0)?;
        return Ok(Twin::untouched(STANDARD.encode(generation)));
    };
    Ok(Twin {
        version: version.unsigned_abs(),
        etag: row.get(2)?,
        desired: section(row, 3, id)?,
        reported: section(row, 6, id)?,
    })
}

/// A section's three columns, from this one on.
fn section(row: &Row<'_>, first: usize, id: &DeviceIdentity) -> Result<Section> {
    let object = |index: usize| {
        let text: String = row.get(index)?;
        serde_json::from_str(&text).map_err(|_| damaged(Owner::Identity(id.clone()), "the twin"))
    };
    Ok(Section {
        properties: object(first)?,
        metadata: object(first + 1)?,
        version: row.get::<_, i64>(first + 2)?.unsigned_abs(),
    })
}
