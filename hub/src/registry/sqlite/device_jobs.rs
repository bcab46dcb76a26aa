//! What jobs have done to each device or module: a row for each of each job.

use common::identity::{DeviceId, DeviceIdentity, ModuleId};
use rusqlite::{Connection, params};
use serde_json::json;

use super::rows::{column, damaged};
use super::{Result, module_column};
use crate::registry::{
    DeviceJobStatus, Job, JobCounts, JobEnd, JobId, JobKind, JobResult, Owner, activity,
};

/// Adds devices that wait for their turn, unless the job has ended.
pub(super) fn add(
    connection: &Connection,
    job: &JobId,
    devices: &[DeviceIdentity],
    now: u64,
) -> Result<()> {
    let mut insert = connection.prepare_cached(
        "INSERT OR IGNORE INTO device_jobs (job, device, module, status, created, updated) \
         SELECT id, ?2, ?3, 'pending', ?4, ?4 FROM jobs WHERE id = ?1 AND ended IS NULL",
    )?;
    for id in devices {
        let (device, module) = (id.device.as_str(), module_column(id));
        insert.execute(params![job.as_str(), device, module, column(now)])?;
    }
    Ok(())
}

/// Takes some that wait: they run from now on.
pub(super) fn claim(
    connection: &Connection,
    job: &JobId,
    limit: usize,
    now: u64,
) -> Result<Vec<DeviceIdentity>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut claim = connection.prepare_cached(
        "UPDATE device_jobs SET status = 'running', started = ?2, updated = ?2 \
         WHERE job = ?1 AND status = 'pending' AND (device, module) IN (SELECT device, module \
         FROM device_jobs WHERE job = ?1 AND status = 'pending' \
         ORDER BY device, module LIMIT ?3) RETURNING device, module",
    )?;
    let rows = claim.query_map(params![job.as_str(), column(now), limit], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
    })?;
    let mut claimed = Vec::new();
    for row in rows {
        let (device, module) = row?;
        let id = identity(&device, &module);
        claimed.push(id.ok_or_else(|| damaged(Owner::Unknown, "a job"))?);
    }
    Ok(claimed)
}

/// Notes what has become of devices that run.
pub(super) fn record(
    connection: &Connection,
    job: &JobId,
    results: Vec<JobResult>,
    now: u64,
) -> Result<()> {
    let mut update = connection.prepare_cached(
        "UPDATE device_jobs SET status = ?4, ended = ?5, updated = ?5, outcome = ?6, error = ?7 \
         WHERE job = ?1 AND device = ?2 AND module = ?3 AND status = 'running'",
    )?;
    for JobResult { device, outcome } in results {
        let (status, outcome, error) = match outcome {
            Ok(outcome) => (DeviceJobStatus::Completed, outcome, None),
            Err(error) => {
                let error = error_text(&error.code, &error.description);
                (DeviceJobStatus::Failed, None, Some(error))
            }
        };
        update.execute(params![
            job.as_str(),
            device.device.as_str(),
            module_column(&device),
            status.as_str(),
            column(now),
            outcome,
            error
        ])?;
    }
    Ok(())
}

/// Whether this device runs.
pub(super) fn runs(connection: &Connection, job: &JobId, id: &DeviceIdentity) -> Result<bool> {
    let runs = connection
        .prepare_cached(
            "SELECT 1 FROM device_jobs \
             WHERE job = ?1 AND device = ?2 AND module = ?3 AND status = 'running'",
        )?
        .exists([job.as_str(), id.device.as_str(), module_column(id)])?;
    Ok(runs)
}

/// This device has done what the job wants.
pub(super) fn complete(connection: &Connection, job: &JobId, id: &DeviceIdentity) -> Result<()> {
    connection
        .prepare_cached(
            "UPDATE device_jobs SET status = 'completed', ended = ?4, updated = ?4 \
             WHERE job = ?1 AND device = ?2 AND module = ?3",
        )?
        .execute(params![
            job.as_str(),
            id.device.as_str(),
            module_column(id),
            column(activity::now()),
        ])?;
    Ok(())
}

/// Nobody is at work on those that run: see [`Jobs::begin_job`](crate::registry::Jobs::begin_job).
pub(super) fn recover(connection: &Connection, job: &Job, now: u64) -> Result<()> {
    let (id, now) = (job.new.id.as_str(), column(now));
    match job.new.kind {
        JobKind::UpdateTwin => {
            connection
                .prepare_cached(
                    "UPDATE device_jobs SET status = 'pending', started = NULL, updated = ?2 \
                     WHERE job = ?1 AND status = 'running'",
                )?
                .execute(params![id, now])?;
        }
        JobKind::DeviceMethod => {
            let error = error_text(
                "JobInterrupted",
                "the hub ended before it had noted the device's answer; the method may have been \
                 carried out",
            );
            connection
                .prepare_cached(
                    "UPDATE device_jobs SET status = 'failed', ended = ?2, updated = ?2, \
                     error = ?3 WHERE job = ?1 AND status = 'running'",
                )?
                .execute(params![id, now, error])?;
        }
    }
    Ok(())
}

/// The job has ended: those that wait or run have failed, or are cancelled with it.
pub(super) fn end(connection: &Connection, job: &JobId, end: &JobEnd, now: u64) -> Result<()> {
    let (status, error) = match end {
        JobEnd::Completed => (DeviceJobStatus::Failed, None),
        JobEnd::Failed(reason) => {
            let error = error_text("JobRunTimedOut", reason);
            (DeviceJobStatus::Failed, Some(error))
        }
        JobEnd::Cancelled => (DeviceJobStatus::Canceled, None),
    };
    connection
        .prepare_cached(
            "UPDATE device_jobs SET status = ?2, ended = ?3, updated = ?3, error = ?4 \
             WHERE job = ?1 AND status IN ('pending', 'running')",
        )?
        .execute(params![job.as_str(), status.as_str(), column(now), error])?;
    Ok(())
}

/// How many are how far.
pub(super) fn counts(connection: &Connection, job: &JobId) -> Result<JobCounts> {
    let mut statement = connection.prepare_cached(
        "SELECT status, count(*) FROM device_jobs WHERE job = ?1 GROUP BY status",
    )?;
    let mut rows = statement.query([job.as_str()])?;
    let mut counts = JobCounts::default();
    while let Some(row) = rows.next()? {
        let count = row.get::<_, i64>(1)?.unsigned_abs();
        match row.get::<_, String>(0)?.as_str() {
            "pending" => counts.pending = count,
            "running" => counts.running = count,
            "completed" => counts.succeeded = count,
            "failed" => counts.failed = count,
            _ => counts.canceled += count,
        }
    }
    Ok(counts)
}

/// A device, or a module if there is one.
fn identity(device: &str, module: &str) -> Option<DeviceIdentity> {
    let device = DeviceId::parse(device).ok()?;
    if module.is_empty() {
        return Some(DeviceIdentity::of_device(device));
    }
    let module = ModuleId::parse(module).ok()?;
    Some(DeviceIdentity::of_module(device, module))
}

/// The error of a device's row, as services read it.
fn error_text(code: &str, description: &str) -> String {
    json!({ "code": code, "description": description }).to_string()
}
