//! Twins for queries. They have connections of their own: a query over all devices takes its time,
//! for which nobody else waits.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use common::identity::{DeviceIdentity, ModuleId};
use common::locks::lock;
use rusqlite::{Connection, OptionalExtension as _, params};
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::damaged::Damaged;
use super::{Result, SqliteRegistry, blocking, module_column, partial, schema};
use crate::limits;
use crate::query::{Fields, Narrowing};
use crate::registry::{
    DeviceTwin, Members, QueryWork, RegistryError, Scan, TwinQueries, TwinSnapshot,
};

/// The connections of queries. They are opened when they are needed.
pub(super) struct QueryConnections {
    path: PathBuf,
    free: Arc<Semaphore>,
    idle: Mutex<Vec<Connection>>,
}

impl QueryConnections {
    /// None yet, to this database.
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            free: Arc::new(Semaphore::new(limits::QUERIES)),
            idle: Mutex::default(),
        }
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit> {
        let permit = Arc::clone(&self.free).acquire_owned();
        let permit = timeout(limits::QUERY_WAIT, permit).await;
        permit
            .ok()
            .and_then(|permit| permit.ok())
            .ok_or(RegistryError::Busy)
    }

    fn take(&self) -> Result<Connection> {
        if let Some(connection) = lock(&self.idle).pop() {
            return Ok(connection);
        }
        let connection = schema::connect(&self.path)?;
        connection.pragma_update(None, "query_only", true)?;
        // Negative: in KiB, and not in pages.
        connection.pragma_update(None, "cache_size", -limits::QUERY_CACHE)?;
        Ok(connection)
    }
}

#[async_trait]
impl TwinQueries for SqliteRegistry {
    async fn query_twins(&self, work: QueryWork) -> Result<()> {
        let permit = self.queries.permit().await?;
        let (queries, damaged) = (Arc::clone(&self.queries), Arc::clone(&self.damaged));
        blocking(move || {
            let _permit = permit;
            let mut connection = queries.take()?;
            // One moment for all that it reads.
            let transaction = connection.transaction()?;
            let mut snapshot = Snapshot {
                connection: &transaction,
                damaged: &damaged,
            };
            work(&mut snapshot)?;
            transaction.finish()?;
            lock(&queries.idle).push(connection);
            Ok(())
        })
        .await
    }
}

struct Snapshot<'a> {
    connection: &'a Connection,
    damaged: &'a Damaged,
}

impl TwinSnapshot for Snapshot<'_> {
    fn scan(
        &mut self,
        scan: &Scan<'_>,
        visit: &mut dyn FnMut(DeviceTwin) -> ControlFlow<()>,
    ) -> Result<()> {
        let statement = partial::statement(scan.members, scan.fields);
        let Narrowed {
            from,
            first,
            condition,
            values,
        } = narrowed(scan.narrowing);
        let members = match scan.members {
            Members::Devices => format!("{first}.module = '' AND {first}.device > ?1 AND ?2 = ''"),
            Members::Modules => {
                format!("{first}.module != '' AND ({first}.device, {first}.module) > (?1, ?2)")
            }
        };
        let mut prepared = self.connection.prepare_cached(&format!(
            "SELECT {} FROM {from}{} WHERE {members}{condition} \
             ORDER BY {first}.device, {first}.module",
            statement.columns, statement.joins
        ))?;
        let device = scan.after.map_or("", |id| id.device.as_str());
        let module = scan.after.map_or("", module_column);
        let mut rows = match values {
            Some(values) => prepared.query(params![device, module, values])?,
            None => prepared.query(params![device, module])?,
        };
        while let Some(row) = rows.next()? {
            match partial::read(row, scan.fields) {
                Ok(twin) => {
                    if visit(twin).is_break() {
                        break;
                    }
                }
                Err(RegistryError::Damaged { owner, what }) => self.damaged.report(owner, what),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn find(&mut self, id: &DeviceIdentity, fields: &Fields) -> Result<Option<DeviceTwin>> {
        let members = match id.module {
            None => Members::Devices,
            Some(_) => Members::Modules,
        };
        let statement = partial::statement(members, fields);
        self.connection
            .prepare_cached(&format!(
                "SELECT {} FROM identities i{} WHERE i.device = ?1 AND i.module = ?2",
                statement.columns, statement.joins
            ))?
            .query_row(
                [
                    id.device.as_str(),
                    id.module.as_ref().map_or("", ModuleId::as_str),
                ],
                |row| Ok(partial::read(row, fields)),
            )
            .optional()?
            .transpose()
    }
}

/// Where the identities of a scan come from.
struct Narrowed {
    from: &'static str,
    /// The table that is read in the order of the ids.
    first: &'static str,
    condition: &'static str,
    /// What the condition's third parameter is.
    values: Option<String>,
}

fn narrowed(narrowing: &Narrowing) -> Narrowed {
    let all = Narrowed {
        from: "identities i",
        first: "i",
        condition: "",
        values: None,
    };
    match narrowing {
        Narrowing::Ids("deviceId", ids) => Narrowed {
            condition: " AND i.device IN (SELECT value FROM json_each(?3))",
            values: Some(json!(ids).to_string()),
            ..all
        },
        // The index has those of one value in order. CROSS JOIN, since SQLite does not know how
        // few there may be.
        Narrowing::Tags(tags) if tags.len() == 1 => Narrowed {
            from: "tag_values v CROSS JOIN identities i \
                ON i.device = v.device AND i.module = v.module",
            first: "v",
            condition: " AND v.path = ?3 ->> 0 AND v.value = ?3 ->> 1",
            values: tags
                .first()
                .map(|tag| json!([tag.path, tag.value]).to_string()),
        },
        Narrowing::Tags(tags) => {
            let tags: Vec<_> = tags.iter().map(|tag| [&tag.path, &tag.value]).collect();
            Narrowed {
                condition: " AND (i.device, i.module) IN (SELECT v.device, v.module \
                    FROM json_each(?3) e CROSS JOIN tag_values v \
                    ON v.path = e.value ->> 0 AND v.value = e.value ->> 1)",
                values: Some(json!(tags).to_string()),
                ..all
            }
        }
        Narrowing::All | Narrowing::Ids(..) => all,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_query_waits_for_others_but_not_for_ever() {
        let connections = QueryConnections::new(PathBuf::new());
        let mut permits = Vec::new();
        for _ in 0..limits::QUERIES {
            permits.push(connections.permit().await.unwrap());
        }
        let refused = connections.permit().await;
        assert!(matches!(refused, Err(RegistryError::Busy)));
        permits.pop();
        assert!(connections.permit().await.is_ok());
    }
}
