//! Jobs in two tables: a row for each, and a row for each device of each.

use std::sync::Arc;

use async_trait::async_trait;
use common::identity::{DeviceId, DeviceIdentity, ModuleId};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde_json::json;

use super::damaged::Damaged;
use super::device_writes::{Work, Written};
use super::rows::{column, damaged};
use super::{Result, SqliteRegistry, module_column};
use crate::limits;
use crate::registry::{
    IfMatch, Job, JobCounts, JobEnd, JobError, JobFilter, JobId, JobKind, JobPlace, JobResult,
    JobStatus, Jobs, NewJob, OnDesired, Owner, StoreError, TwinChange, activity,
};

const COLUMNS: &str = "id, kind, condition, content, policy, start, max_seconds, created, status, \
    began, ended, failure, has_all_devices";

#[async_trait]
impl Jobs for SqliteRegistry {
    async fn create_job(&self, job: NewJob, now: u64) -> Result<Job> {
        self.write(move |connection| create(connection, &job, now))
            .await
    }

    async fn job(&self, id: &JobId) -> Result<Option<Job>> {
        let id = id.clone();
        self.read(move |connection| find(connection, &id)).await
    }

    async fn jobs(
        &self,
        filter: JobFilter,
        after: Option<&JobPlace>,
        limit: usize,
    ) -> Result<Vec<Job>> {
        let (created, id) = after.map_or((i64::MAX, String::new()), |place| {
            (column(place.created), place.id.as_str().to_owned())
        });
        let damaged = Arc::clone(&self.damaged);
        self.read(move |connection| {
            let sql = format!(
                "SELECT {COLUMNS} FROM jobs WHERE (created < ?1 OR (created = ?1 AND id > ?2)) \
                 AND (?3 IS NULL OR kind = ?3) AND (?4 IS NULL OR status = ?4) \
                 ORDER BY created DESC, id LIMIT ?5"
            );
            let kind = filter.kind.map(JobKind::as_str);
            let status = filter.status.map(JobStatus::as_str);
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let with = params![created, id, kind, status, limit];
            all(connection, &sql, with, &damaged)
        })
        .await
    }

    async fn due_jobs(&self, now: u64, limit: usize) -> Result<Vec<Job>> {
        let damaged = Arc::clone(&self.damaged);
        self.read(move |connection| {
            let sql = format!(
                "SELECT {COLUMNS} FROM jobs WHERE ended IS NULL \
                 AND (status = 'running' OR start <= ?1) \
                 ORDER BY status != 'running', start, created, id LIMIT ?2"
            );
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            all(connection, &sql, params![column(now), limit], &damaged)
        })
        .await
    }

    async fn next_job(&self) -> Result<Option<u64>> {
        self.read(|connection| {
            let next: Option<i64> = connection
                .prepare_cached(
                    "SELECT min(start) FROM jobs WHERE ended IS NULL AND status != 'running'",
                )?
                .query_row([], |row| row.get(0))?;
            Ok(next.map(i64::unsigned_abs))
        })
        .await
    }

    async fn queue_jobs(&self, now: u64) -> Result<()> {
        self.write(move |connection| {
            connection
                .prepare_cached(
                    "UPDATE jobs SET status = 'queued' \
                     WHERE ended IS NULL AND start <= ?1 AND status = 'scheduled'",
                )?
                .execute([column(now)])?;
            Ok(())
        })
        .await
    }

    async fn begin_job(&self, id: &JobId, now: u64) -> Result<Option<Job>> {
        let id = id.clone();
        self.write(move |connection| {
            connection
                .prepare_cached(
                    "UPDATE jobs SET status = 'running', began = coalesce(began, ?2) \
                     WHERE id = ?1 AND ended IS NULL",
                )?
                .execute(params![id.as_str(), column(now)])?;
            let job = find(connection, &id)?;
            match job {
                Some(job) if job.counts.running > 0 => {
                    recover(connection, &job, now)?;
                    find(connection, &id)
                }
                job => Ok(job),
            }
        })
        .await
    }

    async fn add_job_devices(
        &self,
        id: &JobId,
        devices: Vec<DeviceIdentity>,
        is_all: bool,
        now: u64,
    ) -> Result<()> {
        let id = id.clone();
        self.write(move |connection| {
            let mut insert = connection.prepare_cached(
                "INSERT OR IGNORE INTO device_jobs (job, device, module, status, created, updated) \
                 SELECT id, ?2, ?3, 'pending', ?4, ?4 FROM jobs WHERE id = ?1 AND ended IS NULL",
            )?;
            for identity in &devices {
                let (device, module) = (identity.device.as_str(), module_column(identity));
                insert.execute(params![id.as_str(), device, module, column(now)])?;
            }
            if is_all {
                connection
                    .prepare_cached("UPDATE jobs SET has_all_devices = 1 WHERE id = ?1")?
                    .execute([id.as_str()])?;
            }
            Ok(())
        })
        .await
    }

    async fn claim_job_devices(
        &self,
        id: &JobId,
        limit: usize,
        now: u64,
    ) -> Result<Vec<DeviceIdentity>> {
        let id = id.clone();
        self.write(move |connection| {
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let mut claim = connection.prepare_cached(
                "UPDATE device_jobs SET status = 'running', started = ?2, updated = ?2 \
                 WHERE job = ?1 AND status = 'pending' AND (device, module) IN (SELECT device, \
                 module FROM device_jobs WHERE job = ?1 AND status = 'pending' \
                 ORDER BY device, module LIMIT ?3) RETURNING device, module",
            )?;
            let rows = claim.query_map(params![id.as_str(), column(now), limit], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
            })?;
            let mut claimed = Vec::new();
            for row in rows {
                let (device, module) = row?;
                claimed.push(identity(&device, &module).ok_or_else(a_job_damaged)?);
            }
            Ok(claimed)
        })
        .await
    }

    async fn change_twin_for_job(
        &self,
        job: &JobId,
        device: &DeviceIdentity,
        change: TwinChange,
        condition: IfMatch,
        desired: OnDesired,
    ) -> Result<bool> {
        let work = Work::ChangeForJob(job.clone(), change, condition, desired);
        match self.write_of_device(device.clone(), work).await? {
            Written::Twin(_) => Ok(true),
            Written::NotWanted => Ok(false),
            _ => Err(StoreError::WriteUnfinished.into()),
        }
    }

    async fn record_job_results(
        &self,
        id: &JobId,
        results: Vec<JobResult>,
        now: u64,
    ) -> Result<()> {
        let id = id.clone();
        self.write(move |connection| {
            let mut update = connection.prepare_cached(
                "UPDATE device_jobs SET status = ?4, ended = ?5, updated = ?5, outcome = ?6, \
                 error = ?7 WHERE job = ?1 AND device = ?2 AND module = ?3 AND status = 'running'",
            )?;
            for JobResult { device, outcome } in results {
                let (status, outcome, error) = match outcome {
                    Ok(outcome) => ("completed", outcome, None),
                    Err(error) => (
                        "failed",
                        None,
                        Some(error_text(&error.code, &error.description)),
                    ),
                };
                let now = column(now);
                update.execute(params![
                    id.as_str(),
                    device.device.as_str(),
                    module_column(&device),
                    status,
                    now,
                    outcome,
                    error
                ])?;
            }
            Ok(())
        })
        .await
    }

    async fn end_job(&self, id: &JobId, end: JobEnd, now: u64) -> Result<Option<Job>> {
        let id = id.clone();
        self.write(move |connection| {
            let (status, failure, of_devices) = match &end {
                JobEnd::Completed => ("completed", None, "failed"),
                JobEnd::Failed(reason) => ("failed", Some(reason.as_str()), "failed"),
                JobEnd::Cancelled => ("cancelled", None, "canceled"),
            };
            let ended = connection
                .prepare_cached(
                    "UPDATE jobs SET status = ?2, failure = ?3, ended = ?4 \
                     WHERE id = ?1 AND ended IS NULL",
                )?
                .execute(params![id.as_str(), status, failure, column(now)])?;
            if ended > 0 {
                let error = failure.map(|reason| error_text("JobRunTimedOut", reason));
                connection
                    .prepare_cached(
                        "UPDATE device_jobs SET status = ?2, ended = ?3, updated = ?3, error = ?4 \
                         WHERE job = ?1 AND status IN ('pending', 'running')",
                    )?
                    .execute(params![id.as_str(), of_devices, column(now), error])?;
            }
            find(connection, &id)
        })
        .await
    }

    async fn forget_jobs(&self, before: u64) -> Result<()> {
        self.write(move |connection| {
            connection.execute("DELETE FROM jobs WHERE ended < ?1", [column(before)])?;
            Ok(())
        })
        .await
    }
}

fn create(connection: &Connection, job: &NewJob, now: u64) -> Result<Job> {
    if find(connection, &job.id)?.is_some() {
        return Err(JobError::Exists(job.id.clone()).into());
    }
    let open: i64 = connection
        .prepare_cached("SELECT count(*) FROM jobs WHERE ended IS NULL")?
        .query_row([], |row| row.get(0))?;
    if open.unsigned_abs() >= limits::JOBS_OPEN {
        return Err(JobError::TooMany.into());
    }
    // The history has an end in number, too.
    connection
        .prepare_cached(
            "DELETE FROM jobs WHERE id IN (SELECT id FROM jobs WHERE ended IS NOT NULL \
             ORDER BY created DESC LIMIT -1 OFFSET ?1)",
        )?
        .execute([column(limits::JOBS_KEPT)])?;
    let status = if job.start > now {
        JobStatus::Scheduled
    } else {
        JobStatus::Queued
    };
    connection
        .prepare_cached(&format!(
            "INSERT INTO jobs ({COLUMNS}) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, NULL, NULL, NULL, 0)"
        ))?
        .execute(params![
            job.id.as_str(),
            job.kind.as_str(),
            job.condition,
            job.content,
            job.policy,
            column(job.start),
            column(job.max_seconds),
            column(now),
            status.as_str(),
        ])?;
    Ok(Job {
        new: job.clone(),
        created: now,
        status,
        began: None,
        ended: None,
        failure: None,
        has_all_devices: false,
        counts: JobCounts::default(),
    })
}

fn find(connection: &Connection, id: &JobId) -> Result<Option<Job>> {
    let sql = format!("SELECT {COLUMNS} FROM jobs WHERE id = ?1");
    let found = connection
        .prepare_cached(&sql)?
        .query_row([id.as_str()], |row| Ok(job(connection, row)))
        .optional()?;
    found.transpose()
}

/// The jobs of these rows that can be read.
fn all(
    connection: &Connection,
    sql: &str,
    with: &[&dyn rusqlite::ToSql],
    damaged: &Damaged,
) -> Result<Vec<Job>> {
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(with, |row| Ok(job(connection, row)))?;
    damaged.leave_out(rows)
}

/// Nobody is at work on the devices of a job that run.
fn recover(connection: &Connection, job: &Job, now: u64) -> Result<()> {
    let id = job.new.id.as_str();
    match job.new.kind {
        JobKind::UpdateTwin => {
            connection
                .prepare_cached(
                    "UPDATE device_jobs SET status = 'pending', started = NULL, updated = ?2 \
                     WHERE job = ?1 AND status = 'running'",
                )?
                .execute(params![id, column(now)])?;
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
                .execute(params![id, column(now), error])?;
        }
    }
    Ok(())
}

/// Whether this device runs for a job.
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

/// A device, or a module if there is one.
fn identity(device: &str, module: &str) -> Option<DeviceIdentity> {
    let device = DeviceId::parse(device).ok()?;
    if module.is_empty() {
        return Some(DeviceIdentity::of_device(device));
    }
    let module = ModuleId::parse(module).ok()?;
    Some(DeviceIdentity::of_module(device, module))
}

fn a_job_damaged() -> crate::registry::RegistryError {
    damaged(Owner::Unknown, "a job")
}

fn job(connection: &Connection, row: &Row<'_>) -> Result<Job> {
    let text = |index| row.get::<_, String>(index);
    let time = |index| -> Result<Option<u64>> {
        Ok(row.get::<_, Option<i64>>(index)?.map(i64::unsigned_abs))
    };
    let id = JobId::parse(&text(0)?).ok_or_else(a_job_damaged)?;
    let counts = counts(connection, &id)?;
    Ok(Job {
        new: NewJob {
            id,
            kind: JobKind::parse(&text(1)?).ok_or_else(a_job_damaged)?,
            condition: text(2)?,
            content: text(3)?,
            policy: text(4)?,
            start: row.get::<_, i64>(5)?.unsigned_abs(),
            max_seconds: row.get::<_, i64>(6)?.unsigned_abs(),
        },
        created: row.get::<_, i64>(7)?.unsigned_abs(),
        status: JobStatus::parse(&text(8)?).ok_or_else(a_job_damaged)?,
        began: time(9)?,
        ended: time(10)?,
        failure: row.get(11)?,
        has_all_devices: row.get(12)?,
        counts,
    })
}

fn counts(connection: &Connection, id: &JobId) -> Result<JobCounts> {
    let mut statement = connection.prepare_cached(
        "SELECT status, count(*) FROM device_jobs WHERE job = ?1 GROUP BY status",
    )?;
    let mut rows = statement.query([id.as_str()])?;
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

/// The error of a device's row, as services read it.
fn error_text(code: &str, description: &str) -> String {
    json!({ "code": code, "description": description }).to_string()
}
