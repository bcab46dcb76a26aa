//! What identities have subscribed, in its table: a row for each that has subscribed
//! anything in a session that outlives its connection.

use common::identity::DeviceIdentity;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::super::{Owner, Subscriptions};
use super::rows::damaged;
use super::{Result, module_column};

/// What an identity of this generation has subscribed; nothing when there is no row.
pub(super) fn find(
    connection: &Connection,
    id: &DeviceIdentity,
    generation: &str,
) -> Result<Subscriptions> {
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
