//! Notes of changes in their table. The database's triggers make them, so that none is missed.

use async_trait::async_trait;
use common::identity::{DeviceId, DeviceIdentity};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::rows::{column, id};
use super::{Result, SqliteRegistry, module_column};
use crate::registry::{Note, Notes};

#[async_trait]
impl Notes for SqliteRegistry {
    async fn notes(&self, most: usize) -> Result<Vec<Note>> {
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT id, time, operation, device, module, policy, what, actor FROM notes \
                 ORDER BY id LIMIT ?1",
            )?;
            let most = i64::try_from(most).unwrap_or(i64::MAX);
            let rows = statement.query_map([most], |row| {
                let device: Option<String> = row.get(3)?;
                let module: Option<String> = row.get(4)?;
                Ok(Note {
                    id: row.get::<_, i64>(0)?.unsigned_abs(),
                    time: row.get(1)?,
                    operation: row.get(2)?,
                    device: device
                        .and_then(|device| id(&device, module.as_deref().unwrap_or("")).ok()),
                    policy: row.get(5)?,
                    what: row.get(6)?,
                    actor: row.get(7)?,
                })
            })?;
            Ok(rows.collect::<std::result::Result<_, _>>()?)
        })
        .await
    }

    async fn forget_notes(&self, upto: u64) -> Result<()> {
        self.write(move |connection| {
            connection
                .prepare_cached("DELETE FROM notes WHERE id <= ?1")?
                .execute([column(upto)])?;
            Ok(())
        })
        .await
    }

    async fn add_note(
        &self,
        operation: &'static str,
        device: Option<DeviceIdentity>,
        policy: Option<String>,
        what: String,
    ) -> Result<()> {
        self.write(move |connection| {
            let (id, module) = match &device {
                Some(id) => (Some(DeviceId::as_str(&id.device)), Some(module_column(id))),
                None => (None, None),
            };
            connection
                .prepare_cached(
                    "INSERT INTO notes (operation, device, module, policy, what) \
                     VALUES (?1, ?2, ?3, ?4, ?5)",
                )?
                .execute(params![operation, id, module, policy, what])?;
            Ok(())
        })
        .await
    }
}

/// The last note that there is, or was.
pub(super) fn last(connection: &Connection) -> Result<i64> {
    let last = connection
        .prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = 'notes'")?
        .query_row([], |row| row.get(0))
        .optional()?;
    Ok(last.unwrap_or(0))
}

/// Adds to the notes behind this one who has caused them.
pub(super) fn sign(connection: &Connection, after: i64, actor: &str) -> Result<()> {
    connection
        .prepare_cached("UPDATE notes SET actor = ?2 WHERE id > ?1")?
        .execute(params![after, actor])?;
    Ok(())
}
