//! `job`: twin updates and direct methods for every device that matches.

use common::output;
use serde_json::Value;
use time::OffsetDateTime;
use time::macros::format_description;
use tokio_util::sync::CancellationToken;

use super::method::prepare;
use super::print::Printer;
use super::table::{Form, Rows, cell, time};
use super::{Fleet, FleetError};
use crate::cli::{FormArgs, JobCommand, ScheduleArgs};
use crate::config::MethodLimits;
use crate::hub_api::select;
use crate::hub_api::{Job, JobCounts, JobTask, NewJob};

const HEAD: [&str; 7] = [
    "ID",
    "TYPE",
    "STATUS",
    "CREATED",
    "DEVICES",
    "SUCCEEDED",
    "FAILED",
];
const DEVICES_HEAD: [&str; 4] = ["ID", "STATUS", "ENDED", "RESULT"];
/// Failed devices that are named after a job.
const NAMED: usize = 10;

impl Fleet {
    pub(super) async fn job(
        &self,
        command: JobCommand,
        limits: MethodLimits,
        stop: &CancellationToken,
        out: &mut Printer,
    ) -> Result<(), FleetError> {
        match command {
            JobCommand::Twin { patch, schedule } => {
                let patch = patch.read_object("the patch").await?;
                let task = JobTask::UpdateTwin(patch);
                self.create(task, schedule, stop, out).await
            }
            JobCommand::Method { method, schedule } => {
                let task = JobTask::CallMethod(prepare(method, limits).await?);
                self.create(task, schedule, stop, out).await
            }
            JobCommand::List { status, kind, form } => self.list(kind, status, form, out).await,
            JobCommand::Show {
                id,
                devices: true,
                form,
                ..
            } => self.rows_of(&id, form, out).await,
            JobCommand::Show { id, wait, form, .. } => {
                let mut job = self.read(&id).await?;
                if wait {
                    job = self.watch(job, stop).await?;
                }
                show(&job, form, out).await?;
                match wait {
                    true => judge(&job, self.results(&job).await?),
                    false => Ok(()),
                }
            }
            JobCommand::Cancel { id } => {
                let failed = self.failed(format!("cancel job {id}"));
                let job = self.api.cancel_job(&id).await.map_err(failed)?;
                out.line(&format!("job {id} is {}", job.status())).await
            }
        }
    }

    async fn create(
        &self,
        task: JobTask,
        schedule: ScheduleArgs,
        stop: &CancellationToken,
        out: &mut Printer,
    ) -> Result<(), FleetError> {
        let new = NewJob {
            id: schedule.id.unwrap_or_else(new_id),
            task,
            condition: schedule.condition,
            start: schedule.at,
            max_seconds: schedule.max_seconds,
        };
        let failed = self.failed(format!("create job {}", new.id));
        let job = self.api.create_job(&new).await.map_err(failed)?;
        if schedule.no_wait {
            return out.line(job.id()).await;
        }
        let job = self.watch(job, stop).await?;
        let counts = self.results(&job).await?;
        out.line(&summary(&job, counts)).await?;
        judge(&job, counts)
    }

    pub(super) async fn read(&self, id: &str) -> Result<Job, FleetError> {
        let failed = self.failed(format!("read job {id}"));
        self.api.read_job(id).await.map_err(failed)
    }

    async fn list(
        &self,
        kind: Option<String>,
        status: Option<String>,
        form: FormArgs,
        out: &mut Printer,
    ) -> Result<(), FleetError> {
        let mut rows = Rows::new(Form::of(form, Form::Table), &HEAD, cells);
        let mut jobs = self.api.jobs(kind, status);
        while let Some(page) = jobs
            .next_page()
            .await
            .map_err(self.failed("list the jobs"))?
        {
            let page: Vec<Value> = page.into_iter().map(Job::into_document).collect();
            rows.page(&page, out).await?;
        }
        if rows.end(out).await? == 0 {
            output::stderr().line("no jobs");
        }
        Ok(())
    }

    /// What became of each device of a job.
    async fn rows_of(&self, id: &str, form: FormArgs, out: &mut Printer) -> Result<(), FleetError> {
        let mut rows = Rows::new(Form::of(form, Form::Table), &DEVICES_HEAD, device_cells);
        let mut query = self.api.query(&rows_query(id));
        while let Some(page) = query
            .next_page()
            .await
            .map_err(self.failed(format!("list the devices of job {id}")))?
        {
            rows.page(&page, out).await?;
        }
        if rows.end(out).await? == 0 {
            // The hub gives no rows of a job that it does not have, either.
            self.read(id).await?;
            output::stderr().line("no devices");
        }
        Ok(())
    }

    /// What became of the devices of a job that is over; names the first that failed. Those that
    /// answered to a direct method with an error have failed, while the hub counts every answer as a
    /// success.
    async fn results(&self, job: &Job) -> Result<JobCounts, FleetError> {
        let mut counts = job.counts();
        let is_of_methods = job
            .text("type")
            .eq_ignore_ascii_case("scheduleDeviceMethod");
        if counts.failed > 0 || is_of_methods {
            let more = self
                .name_failed(job.id())
                .await?
                .saturating_sub(counts.failed);
            counts.failed += more;
            counts.succeeded = counts.succeeded.saturating_sub(more);
        }
        Ok(counts)
    }

    /// Prints the first devices that failed; returns how many there are.
    async fn name_failed(&self, id: &str) -> Result<u64, FleetError> {
        let mut query = self.api.query(&rows_query(id));
        let mut count = 0;
        while let Some(page) = query
            .next_page()
            .await
            .map_err(self.failed(format!("list the devices of job {id}")))?
        {
            for row in page.iter().filter(|row| has_failed(row)) {
                count += 1;
                if count <= NAMED as u64 {
                    output::stderr().line(&format!("{}: {}", device(row), result(row)));
                }
            }
        }
        if count > NAMED as u64 {
            let more = count - NAMED as u64;
            output::stderr().line(&format!("… and {more} more"));
        }
        Ok(count)
    }
}

/// Whether a job that is over came to its end and succeeded for every device.
fn judge(job: &Job, counts: JobCounts) -> Result<(), FleetError> {
    let id = job.id().to_owned();
    if counts.failed > 0 {
        return Err(FleetError::DevicesFailed {
            id,
            failed: counts.failed,
            devices: counts.devices.max(counts.failed),
        });
    }
    if job.is_completed() {
        return Ok(());
    }
    let reason = [job.text("failureReason"), job.text("statusMessage")];
    Err(FleetError::JobEnded {
        id,
        status: job.status().to_owned(),
        reason: reason
            .into_iter()
            .find(|reason| !reason.is_empty())
            .map(str::to_owned),
    })
}

/// Where a job stands; of one that waits, for when.
pub(super) fn status(job: &Job) -> String {
    match job.status() {
        "scheduled" => format!("scheduled for {}", short(job.text("startTime"))),
        status => status.to_owned(),
    }
}

/// One line about a job.
pub(super) fn summary(job: &Job, counts: JobCounts) -> String {
    let head = format!("job {} {}", job.id(), status(job));
    if counts.devices == 0 && !job.is_over() {
        return head;
    }
    format!(
        "{head}: {} devices, {} succeeded, {} failed",
        counts.devices, counts.succeeded, counts.failed
    )
}

async fn show(job: &Job, form: FormArgs, out: &mut Printer) -> Result<(), FleetError> {
    match Form::of(form, Form::Table) {
        Form::Array => return out.json(job.document()).await,
        Form::Lines => return out.json_line(job.document()).await,
        Form::Table => {}
    }
    let counts = job.counts();
    let seconds = cell(job.document().get("maxExecutionTimeInSeconds"));
    let rows = [
        ("id", job.id().to_owned()),
        ("type", job.text("type").to_owned()),
        ("status", job.status().to_owned()),
        ("devices matching", job.text("queryCondition").to_owned()),
        ("created", short(job.text("createdTime"))),
        ("start", short(job.text("startTime"))),
        ("end", short(job.text("endTime"))),
        ("at most, seconds", seconds),
        ("devices", counts.devices.to_string()),
        ("succeeded", counts.succeeded.to_string()),
        ("failed", counts.failed.to_string()),
        ("reason", job.text("failureReason").to_owned()),
        ("message", job.text("statusMessage").to_owned()),
    ];
    for (name, value) in rows {
        if !value.is_empty() {
            out.line(&format!("{name:<17} {value}")).await?;
        }
    }
    Ok(())
}

/// As [`time`], but nothing for none.
fn short(text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        time(text)
    }
}

fn cells(row: &Value) -> Vec<String> {
    let text = |name| row.get(name).and_then(Value::as_str).unwrap_or_default();
    let count = |name| {
        let statistics = row.get("deviceJobStatistics");
        cell(statistics.and_then(|statistics| statistics.get(name)))
    };
    vec![
        text("jobId").to_owned(),
        text("type").to_owned(),
        text("status").to_owned(),
        short(text("createdTime")),
        count("deviceCount"),
        count("succeededCount"),
        count("failedCount"),
    ]
}

fn device_cells(row: &Value) -> Vec<String> {
    let text = |name| row.get(name).and_then(Value::as_str).unwrap_or_default();
    vec![
        device(row),
        text("status").to_owned(),
        short(text("endTimeUtc")),
        result(row),
    ]
}

/// The device, or `device/module`.
fn device(row: &Value) -> String {
    let text = |name| row.get(name).and_then(Value::as_str).unwrap_or_default();
    match text("moduleId") {
        "" => text("deviceId").to_owned(),
        module => format!("{}/{module}", text("deviceId")),
    }
}

/// The device's answer, or why there is none.
fn result(row: &Value) -> String {
    if let Some(error) = row.get("error").filter(|error| !error.is_null()) {
        let part = |name| error.get(name).and_then(Value::as_str).unwrap_or_default();
        let parts = [part("code"), part("description")];
        let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        return parts.join(": ");
    }
    match row.pointer("/outcome/deviceMethodResponse") {
        None | Some(Value::Null) => String::new(),
        Some(response) => {
            let status = cell(response.get("status"));
            let payload = response.get("payload").filter(|payload| !payload.is_null());
            match payload {
                Some(payload) => format!("status {status} {payload}"),
                None => format!("status {status}"),
            }
        }
    }
}

/// Whether a device of a job did not do what it was to do.
fn has_failed(row: &Value) -> bool {
    let status = row.get("status").and_then(Value::as_str);
    let answered = row.pointer("/outcome/deviceMethodResponse/status");
    status.is_some_and(|status| status.eq_ignore_ascii_case("failed"))
        || answered
            .and_then(Value::as_i64)
            .is_some_and(|status| status >= 300)
}

fn rows_query(id: &str) -> String {
    format!(
        "SELECT * FROM devices.jobs WHERE devices.jobs.jobId = {}",
        select::quoted(id)
    )
}

/// An id that sorts by its time, and that no other has.
fn new_id() -> String {
    let now = OffsetDateTime::now_utc()
        .format(format_description!(
            "[year][month][day]-[hour][minute][second]"
        ))
        .unwrap_or_default();
    format!("job-{now}-{:06x}", fastrand::u32(..1 << 24))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn devices_of_a_job_have_a_result() {
        let error = json!({
            "status": "failed", "error": { "code": "404103", "description": "Not online." },
        });
        assert_eq!(result(&error), "404103: Not online.");
        assert!(has_failed(&error));
        let answer = |status: i64, payload: Value| {
            let response = json!({ "status": status, "payload": payload });
            json!({ "status": "completed", "outcome": { "deviceMethodResponse": response } })
        };
        assert_eq!(result(&answer(200, Value::Null)), "status 200");
        assert!(!has_failed(&answer(299, Value::Null)));
        assert_eq!(result(&answer(404, json!([1]))), "status 404 [1]");
        assert!(has_failed(&answer(404, json!([1]))));
        assert_eq!(result(&json!({ "status": "pending", "error": null })), "");
        assert_eq!(device(&json!({ "deviceId": "d" })), "d");
        assert_eq!(device(&json!({ "deviceId": "d", "moduleId": "m" })), "d/m");
    }

    #[test]
    fn ids_of_jobs_differ() {
        let id = new_id();
        assert_ne!(id, new_id());
        assert!(id.starts_with("job-20") && id.len() == 26, "{id}");
    }
}
