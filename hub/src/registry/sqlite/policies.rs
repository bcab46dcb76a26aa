//! Shared access policies in their table.

use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension as _, Row};

use super::rows::{damaged, key};
use super::{Result, SqliteRegistry};
use crate::registry::{Owner, Permissions, Policies, Policy};

const SELECT: &str = "SELECT name, registry_read, registry_write, service_connect, \
    device_connect, primary_key, secondary_key FROM policies";

#[async_trait]
impl Policies for SqliteRegistry {
    async fn policy(&self, name: &str) -> Result<Option<Policy>> {
        let name = name.to_owned();
        self.read(move |connection| find(connection, &name)).await
    }

    async fn policies(&self) -> Result<Vec<Policy>> {
        let damaged = Arc::clone(&self.damaged);
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(&format!("{SELECT} ORDER BY name"))?;
            let rows = statement.query_map([], |row| Ok(row_of(row)))?;
            damaged.leave_out(rows)
        })
        .await
    }
}

/// A policy, if there is one of this name.
pub(super) fn find(connection: &Connection, name: &str) -> Result<Option<Policy>> {
    connection
        .prepare_cached(&format!("{SELECT} WHERE name = ?1"))?
        .query_row([name], |row| Ok(row_of(row)))
        .optional()?
        .transpose()
}

/// A row of [`SELECT`].
fn row_of(row: &Row<'_>) -> Result<Policy> {
    let name: String = row.get(0)?;
    let key = |column| key(column).ok_or_else(|| damaged(Owner::Policy(name.clone()), "a key"));
    Ok(Policy {
        permissions: Permissions {
            registry_read: row.get(1)?,
            registry_write: row.get(2)?,
            service_connect: row.get(3)?,
            device_connect: row.get(4)?,
        },
        primary: key(row.get(5)?)?,
        secondary: key(row.get(6)?)?,
        name,
    })
}
