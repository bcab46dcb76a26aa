//! What is written about identities.

use std::time::{SystemTime, UNIX_EPOCH};

use common::identity::{DeviceId, DeviceIdentity};
use common::secret::Secret;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::rows::{column, credentials};
use super::{Result, module_column, new_etag};
use crate::registry::{IdentitySettings, IfMatch, RegistryError, Status, scope};

/// What a change has to know of an identity. It is read without the credentials: a damaged
/// identity can still be updated and deleted.
pub(super) struct Present {
    etag: String,
    enabled: bool,
    /// Unix seconds.
    status_updated: Option<i64>,
    generation: String,
    iot_edge: bool,
    parent_scopes: Vec<String>,
}

fn present(connection: &Connection, id: &DeviceIdentity) -> Result<Option<Present>> {
    Ok(connection
        .prepare_cached(
            "SELECT i.etag, d.enabled, d.status_updated, i.generation, i.iot_edge, \
             i.parent_scopes FROM identities i \
             JOIN identities d ON d.device = i.device AND d.module = '' \
             WHERE i.device = ?1 AND i.module = ?2",
        )?
        .query_row([id.device.as_str(), module_column(id)], |row| {
            Ok(Present {
                etag: row.get(0)?,
                enabled: row.get(1)?,
                status_updated: row.get(2)?,
                generation: row.get(3)?,
                iot_edge: row.get(4)?,
                parent_scopes: serde_json::from_str(&row.get::<_, String>(5)?).unwrap_or_default(),
            })
        })
        .optional()?)
}

/// The identity that a change is about, if it exists and meets the condition.
pub(super) fn check(
    connection: &Connection,
    id: &DeviceIdentity,
    condition: IfMatch,
) -> Result<Present> {
    let present = present(connection, id)?.ok_or_else(|| RegistryError::NotFound(id.clone()))?;
    match condition {
        IfMatch::Etag(etag) if etag != present.etag => {
            Err(RegistryError::PreconditionFailed(id.clone()))
        }
        IfMatch::Etag(_) | IfMatch::Any => Ok(present),
    }
}

/// Adds an identity.
pub(super) fn create(
    connection: &Connection,
    id: &DeviceIdentity,
    settings: &IdentitySettings,
) -> Result<()> {
    if id.module.is_some() {
        let device = DeviceIdentity::of_device(id.device.clone());
        if present(connection, &device)?.is_none() {
            return Err(RegistryError::NotFound(device));
        }
    }
    if present(connection, id)?.is_some() {
        return Err(RegistryError::AlreadyExists(id.clone()));
    }
    write(connection, id, &generation(), settings, None)
}

/// Replaces an identity's settings.
pub(super) fn update(
    connection: &Connection,
    id: &DeviceIdentity,
    settings: &IdentitySettings,
    condition: IfMatch,
) -> Result<()> {
    let present = check(connection, id, condition)?;
    write(
        connection,
        id,
        &present.generation,
        settings,
        Some(&present),
    )
}

fn write(
    connection: &Connection,
    id: &DeviceIdentity,
    generation: &str,
    settings: &IdentitySettings,
    present: Option<&Present>,
) -> Result<()> {
    let is_edge_device = |device: &DeviceId, generation: &str| -> Result<bool> {
        let id = DeviceIdentity::of_device(device.clone());
        let found = self::present(connection, &id)?;
        Ok(found.is_some_and(|found| found.iot_edge && found.generation == generation))
    };
    let known = present.map_or(&[][..], |present| &present.parent_scopes);
    let (device_scope, parent_scopes) =
        scope::resolve(id, generation, settings, known, is_edge_device)?;
    let (primary, secondary) = credentials(&settings.authentication);
    let enabled = settings.status == Status::Enabled;
    // A module's status columns mean nothing: they are not worth a special case.
    let status_updated = match present {
        Some(present) if present.enabled == enabled => present.status_updated,
        Some(_) => Some(column(common::clock::unix_now())),
        None => None,
    };
    let is_module = id.module.is_some();
    connection
        .prepare_cached(
            "INSERT INTO identities (device, module, generation, etag, enabled, status_reason, \
             status_updated, authentication, primary_credential, secondary_credential, \
             iot_edge, device_scope, parent_scopes, managed_by) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14) \
             ON CONFLICT (device, module) DO UPDATE SET etag = excluded.etag, \
             enabled = excluded.enabled, status_reason = excluded.status_reason, \
             status_updated = excluded.status_updated, \
             authentication = excluded.authentication, \
             primary_credential = excluded.primary_credential, \
             secondary_credential = excluded.secondary_credential, \
             iot_edge = excluded.iot_edge, device_scope = excluded.device_scope, \
             parent_scopes = excluded.parent_scopes, managed_by = excluded.managed_by",
        )?
        .execute(params![
            id.device.as_str(),
            module_column(id),
            generation,
            new_etag(),
            enabled,
            settings.status_reason,
            status_updated,
            settings.authentication.kind(),
            primary.as_ref().map(Secret::expose),
            secondary.as_ref().map(Secret::expose),
            settings.iot_edge && !is_module,
            device_scope,
            serde_json::Value::from(parent_scopes).to_string(),
            settings.managed_by.as_ref().filter(|_| is_module),
        ])?;
    Ok(())
}

/// Tells this creation from every other: ticks of 100 ns since the year 1, as IoT Hub's.
fn generation() -> String {
    const UNIX_EPOCH_TICKS: u128 = 621_355_968_000_000_000;
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    (UNIX_EPOCH_TICKS + since.as_nanos() / 100).to_string()
}
