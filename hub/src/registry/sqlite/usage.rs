//! How many bytes were moved on a day: a row for each device, module or policy that has a limit and
//! moved something.

use async_trait::async_trait;
use common::identity::{DeviceId, DeviceIdentity, ModuleId};
use rusqlite::{Connection, params};

use super::rows::column;
use super::{Result, SqliteRegistry, module_column};
use crate::quotas::{UsageRecord, Who};
use crate::registry::Usage;

#[async_trait]
impl Usage for SqliteRegistry {
    async fn usage(&self, day: u64) -> Result<Vec<UsageRecord>> {
        self.read(move |connection| find(connection, day)).await
    }

    async fn record_usage(&self, day: u64, records: Vec<UsageRecord>) -> Result<()> {
        self.write(move |connection| record(connection, day, &records))
            .await
    }
}

/// Rows that cannot be read are left out: they are of no use the day after.
fn find(connection: &Connection, day: u64) -> Result<Vec<UsageRecord>> {
    let mut statement =
        connection.prepare_cached("SELECT kind, name, module, bytes FROM usage WHERE day = ?1")?;
    let rows = statement.query_map([column(day)], |row| {
        let texts: [String; 3] = [row.get(0)?, row.get(1)?, row.get(2)?];
        let bytes: i64 = row.get(3)?;
        Ok((texts, u64::try_from(bytes).unwrap_or_default()))
    })?;
    let mut records = Vec::new();
    for row in rows {
        let ([kind, name, module], bytes) = row?;
        records.extend(who(&kind, name, &module).map(|who| UsageRecord { who, bytes }));
    }
    Ok(records)
}

fn record(connection: &Connection, day: u64, records: &[UsageRecord]) -> Result<()> {
    connection
        .prepare_cached("DELETE FROM usage WHERE day <> ?1")?
        .execute([column(day)])?;
    let mut statement =
        connection.prepare_cached("INSERT OR REPLACE INTO usage VALUES (?1, ?2, ?3, ?4, ?5)")?;
    for UsageRecord { who, bytes } in records {
        let (kind, name, module) = match who {
            Who::Hub => ("hub", "", ""),
            Who::Policy(name) => ("policy", name.as_str(), ""),
            Who::Device(id) => ("device", id.device.as_str(), module_column(id)),
        };
        statement.execute(params![column(day), kind, name, module, column(*bytes)])?;
    }
    Ok(())
}

fn who(kind: &str, name: String, module: &str) -> Option<Who> {
    match kind {
        "hub" => Some(Who::Hub),
        "policy" => Some(Who::Policy(name)),
        "device" => {
            let device = DeviceId::parse(&name).ok()?;
            Some(Who::Device(match module {
                "" => DeviceIdentity::of_device(device),
                module => DeviceIdentity::of_module(device, ModuleId::parse(module).ok()?),
            }))
        }
        _ => None,
    }
}
