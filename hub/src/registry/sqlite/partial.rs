//! Twins of which only some fields are needed. The columns of others are constants, which cost
//! nothing to read: what they stand for is in no document that is made of such a twin.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rusqlite::Row;
use serde_json::Map;

use super::rows::{self, damaged};
use super::{Result, identities};
use crate::query::Fields;
use crate::registry::{DeviceTwin, Members, Owner, Section, Twin};

/// Parts of a statement that reads what [`read`] expects.
pub(super) struct Statement {
    pub(super) columns: String,
    /// Behind `identities i`.
    pub(super) joins: String,
}

/// The columns of an identity, as [`identities::COLUMNS`] has them: each with what takes its place
/// where none of these fields is needed.
const OF_IDENTITY: &[(&str, &str, &[&str])] = &[
    ("i.device", "", &[]),
    ("i.module", "", &[]),
    ("i.generation", "", &[]),
    ("i.etag", "''", &["deviceEtag"]),
    ("d.enabled", "1", STATUS),
    ("d.status_reason", "NULL", STATUS),
    ("d.status_updated", "NULL", STATUS),
    ("i.authentication", "'none'", AUTHENTICATION),
    ("i.primary_credential", "NULL", AUTHENTICATION),
    ("i.secondary_credential", "NULL", AUTHENTICATION),
    ("i.iot_edge", "0", &["capabilities"]),
    ("i.device_scope", "NULL", &["deviceScope"]),
    ("i.parent_scopes", "'[]'", &["parentScopes"]),
    ("i.managed_by", "NULL", &["managedBy"]),
    ("coalesce(a.connected, 0)", "0", ACTIVITY),
    ("a.connection_state_updated", "NULL", ACTIVITY),
    ("a.last_activity", "NULL", ACTIVITY),
    (
        "(SELECT count(*) FROM messages m WHERE m.device = i.device AND i.module = '')",
        "0",
        &["cloudToDeviceMessageCount"],
    ),
];
const STATUS: &[&str] = &["status", "statusReason", "statusUpdateTime"];
const AUTHENTICATION: &[&str] = &["authenticationType", "x509Thumbprint"];
const ACTIVITY: &[&str] = &[
    "connectionState",
    "connectionStateUpdatedTime",
    "lastActivityTime",
];
const TWIN: &[&str] = &["etag", "version", "tags", "properties"];

/// The statement for these fields of a twin's document.
pub(super) fn statement(members: Members, fields: &Fields) -> Statement {
    let needs = |names: &[&str]| names.iter().any(|name| fields.has(name));
    let mut columns = String::new();
    for (column, constant, names) in OF_IDENTITY {
        let column = if constant.is_empty() || needs(names) {
            column
        } else {
            constant
        };
        // A device is its own row for the status.
        match (members, column.strip_prefix("d.")) {
            (Members::Devices, Some(name)) => columns.push_str(&format!("i.{name}, ")),
            _ => columns.push_str(&format!("{column}, ")),
        }
    }
    let properties = fields.get("properties");
    let (desired, reported) = (
        Parts::of(properties, "desired"),
        Parts::of(properties, "reported"),
    );
    let column = |name: &str, is_needed: bool| match is_needed {
        true => format!("t.{name}"),
        false => "NULL".to_owned(),
    };
    let of_twin = [
        column("version", needs(TWIN)),
        column("etag", fields.has("etag")),
        column("tags", fields.has("tags")),
        column("desired", desired.properties.is_some()),
        column("desired_metadata", desired.metadata.is_some()),
        column("desired_version", desired.properties.is_some()),
        column("reported", reported.properties.is_some()),
        column("reported_metadata", reported.metadata.is_some()),
        column("reported_version", reported.properties.is_some()),
    ];
    columns.push_str(&of_twin.join(", "));
    let mut joins = String::new();
    if members == Members::Modules && needs(STATUS) {
        joins.push_str(" JOIN identities d ON d.device = i.device AND d.module = ''");
    }
    if needs(ACTIVITY) {
        joins.push_str(
            " LEFT JOIN activity a ON a.device = i.device AND a.module = i.module \
             AND a.generation = i.generation",
        );
    }
    if needs(TWIN) {
        joins.push_str(" LEFT JOIN twins t ON t.device = i.device AND t.module = i.module");
    }
    Statement { columns, joins }
}

/// What is needed of a section.
struct Parts<'f> {
    properties: Option<&'f Fields>,
    metadata: Option<&'f Fields>,
}

impl<'f> Parts<'f> {
    fn of(properties: Option<&'f Fields>, name: &str) -> Self {
        let properties = properties.and_then(|properties| properties.get(name));
        Self {
            properties,
            metadata: properties.and_then(|section| section.get("$metadata")),
        }
    }
}

/// A row of such a statement.
///
/// # Errors
/// [`RegistryError::Damaged`](crate::registry::RegistryError::Damaged), also for a damaged part
/// that is not needed but read.
pub(super) fn read(row: &Row<'_>, fields: &Fields) -> Result<DeviceTwin> {
    let identity = rows::identity(row)?;
    let first = identities::COLUMN_COUNT;
    let properties = fields.get("properties");
    let Some(version) = row.get::<_, Option<i64>>(first)? else {
        // No one has written to it, or none of it is needed.
        let etag = match fields.has("etag") {
            true => STANDARD.encode(&identity.generation_id),
            false => String::new(),
        };
        let section = |name| match Parts::of(properties, name).properties {
            Some(_) => Section::default(),
            None => nothing(),
        };
        let twin = Twin {
            version: 1,
            etag,
            tags: Map::new(),
            desired: section("desired"),
            reported: section("reported"),
        };
        return Ok(DeviceTwin { identity, twin });
    };
    let object = |index: usize, fields: Option<&Fields>| {
        let Some(fields) = fields else {
            return Ok(Map::new());
        };
        let unreadable = || damaged(Owner::Identity(identity.id.clone()), "the twin");
        let text = row.get_ref(index)?.as_str().map_err(|_| unreadable())?;
        fields.read(text).map_err(|_| unreadable())
    };
    let section = |name, index| {
        let parts = Parts::of(properties, name);
        if parts.properties.is_none() {
            return Ok(nothing());
        }
        Ok::<_, crate::registry::RegistryError>(Section {
            properties: object(index, parts.properties)?,
            metadata: object(index + 1, parts.metadata)?,
            version: row.get::<_, i64>(index + 2)?.unsigned_abs(),
        })
    };
    let twin = Twin {
        version: version.unsigned_abs(),
        etag: row.get::<_, Option<String>>(first + 1)?.unwrap_or_default(),
        tags: object(first + 2, fields.get("tags"))?,
        desired: section("desired", first + 3)?,
        reported: section("reported", first + 6)?,
    };
    Ok(DeviceTwin { identity, twin })
}

fn nothing() -> Section {
    Section {
        properties: Map::new(),
        metadata: Map::new(),
        version: 1,
    }
}
