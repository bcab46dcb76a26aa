//! Rows of `devices.jobs`: what jobs have done to each device or module. Their key is the three ids
//! with a character between them that is before all those of ids: keys are in the order of the rows.

use async_trait::async_trait;
use rusqlite::types::ToSql;
use rusqlite::{Connection, Row};
use serde_json::{Value, json};

use super::{Result, SqliteRegistry};
use crate::iso8601;
use crate::query::Narrowing;
use crate::registry::{JobRow, JobRows};

const BETWEEN: char = '\0';

#[async_trait]
impl JobRows for SqliteRegistry {
    async fn job_rows(
        &self,
        narrowing: &Narrowing,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<JobRow>> {
        let (narrowing, after) = (narrowing.clone(), after.unwrap_or_default().to_owned());
        self.read(move |connection| rows(connection, &narrowing, &after, limit))
            .await
    }
}

fn rows(
    connection: &Connection,
    narrowing: &Narrowing,
    after: &str,
    limit: usize,
) -> Result<Vec<JobRow>> {
    let column = match narrowing {
        Narrowing::Ids("jobId", _) => Some("d.job"),
        Narrowing::Ids("deviceId", _) => Some("d.device"),
        _ => None,
    };
    let (condition, ids) = match (column, narrowing) {
        // The ids as one JSON text: their number is no matter of the statement.
        (Some(column), Narrowing::Ids(_, ids)) => (
            format!("{column} IN (SELECT value FROM json_each(?4))"),
            json!(ids).to_string(),
        ),
        _ => ("?4 = ''".to_owned(), String::new()),
    };
    let mut ids_after = after.splitn(3, BETWEEN).chain(std::iter::repeat(""));
    let [job, device, module] = std::array::from_fn(|_| ids_after.next().unwrap_or_default());
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut statement = connection.prepare_cached(&format!(
        "SELECT d.job, d.device, j.kind, d.status, d.created, d.updated, d.started, d.ended, \
         d.outcome, d.error, d.module FROM device_jobs d JOIN jobs j ON j.id = d.job \
         WHERE (d.job, d.device, d.module) > (?1, ?2, ?5) AND {condition} \
         ORDER BY d.job, d.device, d.module LIMIT ?3"
    ))?;
    let with: [&dyn ToSql; 5] = [&job, &device, &limit, &ids, &module];
    let rows = statement.query_map(with, row)?;
    Ok(rows.collect::<rusqlite::Result<Vec<_>>>()?)
}

fn row(row: &Row<'_>) -> rusqlite::Result<JobRow> {
    let (job, device, module): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(10)?);
    let time = |index| -> rusqlite::Result<Option<String>> {
        let at: Option<i64> = row.get(index)?;
        Ok(at.map(|at| iso8601::from_unix_micros(Some(at.unsigned_abs()))))
    };
    let parsed = |index| -> rusqlite::Result<Option<Value>> {
        let text: Option<String> = row.get(index)?;
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    };
    let mut document = json!({
        "deviceId": device,
        "jobId": job,
        "jobType": row.get::<_, String>(2)?,
        "status": row.get::<_, String>(3)?,
        "createdDateTimeUtc": time(4)?,
        "lastUpdatedDateTimeUtc": time(5)?,
    });
    if let Some(fields) = document.as_object_mut() {
        // One SDK reads no null in place of a time.
        let started = time(6)?.map(Value::from);
        let ended = time(7)?.map(Value::from);
        let module_id = (!module.is_empty()).then(|| Value::from(module.as_str()));
        for (name, value) in [
            ("moduleId", module_id),
            ("startTimeUtc", started),
            ("endTimeUtc", ended),
            ("outcome", parsed(8)?),
            ("error", parsed(9)?),
        ] {
            if let Some(value) = value {
                fields.insert(name.to_owned(), value);
            }
        }
    }
    let key = format!("{job}{BETWEEN}{device}{BETWEEN}{module}");
    Ok(JobRow { key, document })
}
