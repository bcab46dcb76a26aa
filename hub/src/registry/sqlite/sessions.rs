//! What hub sessions leave behind, in two tables: a row of subscriptions for each identity that has
//! subscribed anything in a session that outlives its connection, and a row of activity for each
//! that was ever here.

use async_trait::async_trait;
use common::identity::DeviceIdentity;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::device_writes::Work;
use super::rows::{column, damaged};
use super::{Result, SqliteRegistry, module_column};
use crate::registry::{ActivityRecord, Owner, Sessions, Subscriptions};

#[async_trait]
impl Sessions for SqliteRegistry {
    async fn subscriptions(&self, id: &DeviceIdentity, generation: &str) -> Result<Subscriptions> {
        let (id, generation) = (id.clone(), generation.to_owned());
        self.read(move |connection| find(connection, &id, &generation))
            .await
    }

    async fn keep_subscriptions(
        &self,
        id: &DeviceIdentity,
        generation: &str,
        filters: Subscriptions,
    ) -> Result<()> {
        let work = Work::Subscriptions(generation.to_owned(), filters);
        self.write_of_device(id.clone(), work).await.map(|_| ())
    }

    async fn record_activity(&self, records: Vec<ActivityRecord>) -> Result<()> {
        self.write(move |connection| record(connection, &records))
            .await
    }
}

/// What an identity of this generation has subscribed; nothing when there is no row.
fn find(connection: &Connection, id: &DeviceIdentity, generation: &str) -> Result<Subscriptions> {
    let text: Option<String> = connection
        .prepare_cached(
            "SELECT filters FROM subscriptions \
             WHERE device = ?1 AND module = ?2 AND generation = ?3",
        )?
        .query_row(
            params![id.device.as_str(), module_column(id), generation],
            |row| row.get(0),
        )
        .optional()?;
    text.map_or_else(
        || Ok(Subscriptions::new()),
        |text| {
            let owner = || Owner::Identity(id.clone());
            serde_json::from_str(&text).map_err(|_| damaged(owner(), "the subscriptions"))
        },
    )
}

/// Puts these in the place of what was kept. An identity that is gone, or was made anew,
/// keeps nothing.
pub(super) fn replace(
    connection: &Connection,
    id: &DeviceIdentity,
    generation: &str,
    filters: &Subscriptions,
) -> Result<()> {
    if filters.is_empty() {
        connection
            .prepare_cached("DELETE FROM subscriptions WHERE device = ?1 AND module = ?2")?
            .execute([id.device.as_str(), module_column(id)])?;
        return Ok(());
    }
    let text = serde_json::json!(filters).to_string();
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO subscriptions SELECT device, module, generation, ?4 \
             FROM identities WHERE device = ?1 AND module = ?2 AND generation = ?3",
        )?
        .execute(params![
            id.device.as_str(),
            module_column(id),
            generation,
            text
        ])?;
    Ok(())
}

/// Stores when identities were last here.
fn record(connection: &Connection, records: &[ActivityRecord]) -> Result<()> {
    let mut statement = connection.prepare_cached(
        "INSERT OR REPLACE INTO activity SELECT device, module, generation, ?4, ?5, ?6 \
         FROM identities WHERE device = ?1 AND module = ?2 AND generation = ?3",
    )?;
    for record in records {
        statement.execute(params![
            record.id.device.as_str(),
            module_column(&record.id),
            record.generation_id,
            record.activity.connected,
            record.activity.connection_state_updated.map(column),
            record.activity.last_activity.map(column),
        ])?;
    }
    Ok(())
}
