//! Jobs in two tables: a row for each, and a row for each device of each ([`device_jobs`]).

use std::sync::Arc;

use async_trait::async_trait;
use common::identity::DeviceIdentity;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::damaged::Damaged;
use super::device_writes::{Work, Written};
use super::rows::{column, damaged};
use super::{Result, SqliteRegistry, device_jobs};
use crate::limits;
use crate::registry::{
    IfMatch, Job, JobCounts, JobEnd, JobError, JobFilter, JobId, JobKind, JobPlace, JobResult,
    JobStatus, Jobs, NewJob, OnDesired, Owner, RegistryError, StoreError, TwinChange,
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

    async fn next_job(&self, now: u64) -> Result<Option<u64>> {
        self.read(move |connection| {
            let next: Option<i64> = connection
                .prepare_cached("SELECT min(start) FROM jobs WHERE ended IS NULL AND start > ?1")?
                .query_row([column(now)], |row| row.get(0))?;
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
                    device_jobs::recover(connection, &job, now)?;
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
            device_jobs::add(connection, &id, &devices, now)?;
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
        self.write(move |connection| device_jobs::claim(connection, &id, limit, now))
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
        self.write(move |connection| device_jobs::record(connection, &id, results, now))
            .await
    }

    async fn end_job(&self, id: &JobId, end: JobEnd, now: u64) -> Result<Option<Job>> {
        let id = id.clone();
        self.write(move |connection| {
            let (status, failure) = match &end {
                JobEnd::Completed => (JobStatus::Completed, None),
                JobEnd::Failed(reason) => (JobStatus::Failed, Some(reason.as_str())),
                JobEnd::Cancelled => (JobStatus::Cancelled, None),
            };
            let status = status.as_str();
            let ended = connection
                .prepare_cached(
                    "UPDATE jobs SET status = ?2, failure = ?3, ended = ?4 \
                     WHERE id = ?1 AND ended IS NULL",
                )?
                .execute(params![id.as_str(), status, failure, column(now)])?;
            if ended > 0 {
                device_jobs::end(connection, &id, &end, now)?;
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

fn a_job_damaged() -> RegistryError {
    damaged(Owner::Unknown, "a job")
}

fn job(connection: &Connection, row: &Row<'_>) -> Result<Job> {
    let text = |index| row.get::<_, String>(index);
    let time = |index| -> Result<Option<u64>> {
        Ok(row.get::<_, Option<i64>>(index)?.map(i64::unsigned_abs))
    };
    let id = JobId::parse(&text(0)?).ok_or_else(a_job_damaged)?;
    let counts = device_jobs::counts(connection, &id)?;
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
