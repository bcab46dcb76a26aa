//! Shared access policies in their table.

use std::sync::Arc;

use async_trait::async_trait;
use common::secret::SharedKey;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::rows::{damaged, key};
use super::{Result, SqliteRegistry, changes};
use crate::registry::{Owner, Permissions, Policies, Policy, PolicyKey};

const SELECT: &str = "SELECT name, registry_read, registry_write, service_connect, \
    device_connect, primary_key, secondary_key, twin_read FROM policies";

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

    async fn create_policy(&self, policy: Policy) -> Result<bool> {
        self.write(move |connection| {
            let permissions = policy.permissions;
            let rows = connection
                .prepare_cached(
                    "INSERT INTO policies (name, registry_read, registry_write, service_connect, \
                     device_connect, primary_key, secondary_key, twin_read) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING",
                )?
                .execute(params![
                    policy.name,
                    permissions.registry_read,
                    permissions.registry_write,
                    permissions.service_connect,
                    permissions.device_connect,
                    policy.primary.to_base64().expose(),
                    policy.secondary.to_base64().expose(),
                    permissions.twin_read,
                ])?;
            Ok(rows > 0)
        })
        .await
    }

    async fn delete_policy(&self, name: &str) -> Result<bool> {
        let name = name.to_owned();
        self.write(move |connection| {
            let rows = connection
                .prepare_cached("DELETE FROM policies WHERE name = ?1")?
                .execute([name])?;
            changes::noted(connection, rows)
        })
        .await
    }

    async fn set_policy_key(&self, name: &str, which: PolicyKey, key: SharedKey) -> Result<bool> {
        let name = name.to_owned();
        let statement = match which {
            PolicyKey::Primary => "UPDATE policies SET primary_key = ?2 WHERE name = ?1",
            PolicyKey::Secondary => "UPDATE policies SET secondary_key = ?2 WHERE name = ?1",
        };
        self.write(move |connection| {
            let rows = connection
                .prepare_cached(statement)?
                .execute(params![name, key.to_base64().expose()])?;
            changes::noted(connection, rows)
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
            twin_read: row.get(7)?,
        },
        primary: key(row.get(5)?)?,
        secondary: key(row.get(6)?)?,
        name,
    })
}
