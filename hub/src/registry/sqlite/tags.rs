//! The index of tags: which twins have which value. It is kept with every change of tags, in the
//! same transaction.

use common::identity::DeviceIdentity;
use rusqlite::{Connection, params};
use serde_json::{Map, Value};

use super::{Result, module_column};
use crate::query::tag_values;

/// Puts a twin's tags in the place of what the index has of it.
pub(super) fn index(
    connection: &Connection,
    id: &DeviceIdentity,
    tags: &Map<String, Value>,
) -> Result<()> {
    replace(connection, id.device.as_str(), module_column(id), tags)
}

/// Makes the index of tags that were written before there was one.
pub(super) fn index_all(connection: &Connection) -> Result<()> {
    let mut twins =
        connection.prepare("SELECT device, module, tags FROM twins WHERE tags != '{}'")?;
    let mut rows = twins.query([])?;
    while let Some(row) = rows.next()? {
        // What is damaged is in no result: it has no tags there either.
        let text: String = row.get(2)?;
        let tags = serde_json::from_str(&text).unwrap_or_default();
        replace(
            connection,
            &row.get::<_, String>(0)?,
            &row.get::<_, String>(1)?,
            &tags,
        )?;
    }
    Ok(())
}

fn replace(
    connection: &Connection,
    device: &str,
    module: &str,
    tags: &Map<String, Value>,
) -> Result<()> {
    connection
        .prepare_cached("DELETE FROM tag_values WHERE device = ?1 AND module = ?2")?
        .execute([device, module])?;
    let mut insert = connection.prepare_cached("INSERT INTO tag_values VALUES (?1, ?2, ?3, ?4)")?;
    for tag in tag_values(tags) {
        insert.execute(params![tag.path, tag.value, device, module])?;
    }
    Ok(())
}
