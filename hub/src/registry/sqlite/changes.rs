//! What has happened to identities, as the database's triggers have noted it.

use async_trait::async_trait;
use rusqlite::Connection;

use super::rows::id;
use super::{Result, SqliteRegistry};
use crate::registry::{ChangeLog, Changes};

/// What stands for the device in a change that may concern any.
const ANYTHING: &str = "";
/// What stands for its module where operators' tokens were changed, and nothing about devices.
const TOKENS: &str = "tokens";

/// Notes that anything may have changed.
pub(super) fn note_anything(connection: &Connection) -> Result<()> {
    connection
        .prepare_cached("INSERT INTO changes (device, module) VALUES (?1, '')")?
        .execute([ANYTHING])?;
    Ok(())
}

/// Notes that what was issued to operators has changed.
pub(super) fn note_tokens(connection: &Connection) -> Result<()> {
    connection
        .prepare_cached("INSERT INTO changes (device, module) VALUES (?1, ?2)")?
        .execute([ANYTHING, TOKENS])?;
    Ok(())
}

/// Notes that anything may have changed, if so many rows were. Whether they were.
pub(super) fn noted(connection: &Connection, rows: usize) -> Result<bool> {
    if rows > 0 {
        note_anything(connection)?;
    }
    Ok(rows > 0)
}

#[async_trait]
impl ChangeLog for SqliteRegistry {
    async fn changes_since(&self, point: u64) -> Result<Changes> {
        self.read(move |connection| changes(connection, point))
            .await
    }
}

/// Reads the history after a point. What is written between the two queries comes
/// twice, and is never missed: the present point is read first.
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
        let (device, module): (String, String) = (row.get(1)?, row.get(2)?);
        if device == ANYTHING && module == TOKENS {
            changes.tokens = true;
        } else if device == ANYTHING {
            changes.gap = true;
        } else if let Ok(id) = id(&device, &module) {
            // An identity whose id is damaged cannot be connected.
            changes.identities.push(id);
        }
    }
    // Also a point of the future: the database was put back to an earlier state.
    changes.gap |= point > changes.upto || oldest.is_none_or(|oldest| oldest > after + 1);
    Ok(changes)
}
