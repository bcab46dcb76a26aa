//! Jobs as JSON documents (`docs/protocol.md`, "Jobs").

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::invalid;
use super::method::{Method, MethodDraft};
use crate::iso8601;
use crate::limits;
use crate::query::Condition;
use crate::refusal::Refusal;
use crate::registry::{IfMatch, Job, JobCounts, JobId, JobKind, NewJob, RegistryError, TwinChange};

/// A job as a client writes it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobDraft {
    #[serde(default)]
    job_id: Option<String>,
    r#type: String,
    #[serde(default)]
    update_twin: Option<Box<RawValue>>,
    #[serde(default)]
    cloud_to_device_method: Option<Box<RawValue>>,
    #[serde(default)]
    query_condition: Option<String>,
    #[serde(default)]
    start_time: Option<String>,
    #[serde(default)]
    max_execution_time_in_seconds: Option<u64>,
}

/// What a job does to each of its devices.
#[derive(Debug, Clone)]
pub enum Content {
    /// It changes tags and desired properties of twins with this etag.
    Twin(TwinChange, IfMatch),
    /// It calls a method.
    Method(Method),
}

impl JobDraft {
    /// The job that is to be, of this id and policy; without a time, it begins `now`, Unix
    /// microseconds.
    ///
    /// # Errors
    /// 400004 says what is missing or wrong: a condition that is not understood is never every
    /// device.
    pub fn read(self, id: &JobId, policy: &str, now: u64) -> Result<NewJob, Refusal> {
        if self.job_id.is_some_and(|own| own != id.as_str()) {
            return Err(invalid("jobId is not the id in the path.".to_owned()));
        }
        let kind = match self.r#type.as_str() {
            // The documentation has a second word for it.
            "scheduleTwinUpdate" => Some(JobKind::UpdateTwin),
            word => JobKind::parse(word),
        };
        let kind = kind.ok_or_else(|| {
            invalid("type must be scheduleUpdateTwin or scheduleDeviceMethod.".to_owned())
        })?;
        let (given, name) = match kind {
            JobKind::UpdateTwin => (self.update_twin, "updateTwin"),
            JobKind::DeviceMethod => (self.cloud_to_device_method, "cloudToDeviceMethod"),
        };
        let given = given.ok_or_else(|| invalid(format!("{name} is missing.")))?;
        content(kind, given.get())?;
        let condition = self.query_condition.unwrap_or_default();
        if condition.trim().is_empty() {
            return Err(invalid(
                "queryCondition is missing: * selects all devices.".to_owned(),
            ));
        }
        Condition::parse(&condition)
            .map_err(|error| invalid(format!("queryCondition: {error}")))?;
        let start = match self.start_time.as_deref().filter(|text| !text.is_empty()) {
            None => now,
            Some(text) => time(text).ok_or_else(|| {
                invalid("startTime is no time, as 2026-01-31T12:00:00Z is one.".to_owned())
            })?,
        };
        let max_seconds = self
            .max_execution_time_in_seconds
            .filter(|seconds| *seconds > 0)
            .unwrap_or(limits::JOB_SECONDS);
        if max_seconds > limits::JOB_SECONDS_MOST {
            return Err(invalid(format!(
                "maxExecutionTimeInSeconds must be a number from 1 to {}.",
                limits::JOB_SECONDS_MOST
            )));
        }
        Ok(NewJob {
            id: id.clone(),
            kind,
            condition,
            content: given.get().to_owned(),
            policy: policy.to_owned(),
            start,
            max_seconds,
        })
    }
}

/// What a job does, from its JSON.
///
/// # Errors
/// 400004 and 413001 say what is wrong.
pub fn content(kind: JobKind, text: &str) -> Result<Content, Refusal> {
    let unreadable = |name: &str, error: serde_json::Error| {
        let (line, column) = (error.line(), error.column());
        invalid(format!(
            "{name} cannot be read, at its line {line} column {column}."
        ))
    };
    match kind {
        JobKind::UpdateTwin => {
            let document: Value =
                serde_json::from_str(text).map_err(|error| unreadable("updateTwin", error))?;
            let change =
                TwinChange::from_document(&document, false).map_err(RegistryError::from)?;
            let etag = document.get("etag").and_then(Value::as_str);
            let condition = etag.and_then(IfMatch::parse).unwrap_or(IfMatch::Any);
            Ok(Content::Twin(change, condition))
        }
        JobKind::DeviceMethod => {
            let draft: MethodDraft = serde_json::from_str(text)
                .map_err(|error| unreadable("cloudToDeviceMethod", error))?;
            Ok(Content::Method(draft.read()?))
        }
    }
}

/// The whole document. What has not happened yet is left out: one SDK reads no null.
pub fn write(job: &Job) -> Value {
    let Job { new, counts, .. } = job;
    let mut document = json!({
        "jobId": new.id.as_str(),
        "type": new.kind.as_str(),
        "status": job.status.as_str(),
        "queryCondition": new.condition,
        "createdTime": at(job.created),
        "startTime": at(new.start),
        "maxExecutionTimeInSeconds": new.max_seconds,
        "deviceJobStatistics": statistics(*counts),
    });
    let Some(fields) = document.as_object_mut() else {
        return document;
    };
    let mut set = |name: &str, value: Value| drop(fields.insert(name.to_owned(), value));
    let content = serde_json::from_str(&new.content).unwrap_or(Value::Null);
    match new.kind {
        JobKind::UpdateTwin => set("updateTwin", content),
        JobKind::DeviceMethod => set("cloudToDeviceMethod", content),
    }
    if let Some(ended) = job.ended {
        set("endTime", at(ended).into());
    }
    if let Some(reason) = &job.failure {
        set("failureReason", reason.as_str().into());
        set("statusMessage", reason.as_str().into());
    }
    document
}

fn statistics(counts: JobCounts) -> Value {
    json!({
        "deviceCount": counts.total(),
        "failedCount": counts.failed,
        "succeededCount": counts.succeeded,
        "runningCount": counts.running,
        "pendingCount": counts.pending,
    })
}

fn at(micros: u64) -> String {
    iso8601::from_unix_micros(Some(micros))
}

/// A time as Unix microseconds; one without an offset is of UTC. What is before 1970 is 1970.
fn time(text: &str) -> Option<u64> {
    let parse = |text: &str| OffsetDateTime::parse(text, &Rfc3339).ok();
    let time = parse(text).or_else(|| parse(&format!("{text}Z")))?;
    let micros = time.unix_timestamp_nanos().max(0) / 1_000;
    u64::try_from(micros).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(draft: Value) -> Result<NewJob, String> {
        let draft: JobDraft = serde_json::from_value(draft).unwrap();
        let id = JobId::parse("j").unwrap();
        draft
            .read(&id, "service", 7)
            .map_err(|refusal| refusal.message)
    }

    #[test]
    fn jobs_as_sdks_write_them() {
        let job = read(json!({
            "jobId": "j", "type": "scheduleUpdateTwin",
            "updateTwin": { "etag": "*", "tags": { "a": 1 },
                            "properties": { "desired": {}, "reported": {} } },
            "queryCondition": "deviceId = 'test-device'",
            "startTime": "2019-05-08T12:19:56.868Z", "maxExecutionTimeInSeconds": 20,
        }))
        .unwrap();
        assert_eq!(
            (job.kind, job.start, job.max_seconds),
            (JobKind::UpdateTwin, 1_557_317_996_868_000, 20)
        );
        let Ok(Content::Twin(change, IfMatch::Any)) = content(job.kind, &job.content) else {
            panic!("{job:?}");
        };
        assert!(!change.is_empty());
        let job = read(json!({
            "type": "scheduleDeviceMethod", "startTime": null, "queryCondition": "*",
            "cloudToDeviceMethod": { "methodName": "m", "payload": null, "responseTimeoutInSeconds": 30 },
        }))
        .unwrap();
        assert_eq!((job.start, job.max_seconds), (7, 3_600));
        assert!(matches!(
            content(job.kind, &job.content),
            Ok(Content::Method(_))
        ));
        assert_eq!(
            time("2019-05-08T12:19:56"),
            time("2019-05-08T14:19:56+02:00")
        );
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let twin = json!({ "etag": "*", "tags": {} });
        for (draft, reason) in [
            (json!({ "type": "import" }), "type must be"),
            (
                json!({ "type": "scheduleUpdateTwin" }),
                "updateTwin is missing",
            ),
            (
                json!({ "type": "scheduleDeviceMethod", "updateTwin": twin }),
                "cloudToDeviceMethod is missing",
            ),
            (
                json!({ "type": "scheduleUpdateTwin", "updateTwin": twin }),
                "queryCondition is missing",
            ),
            (
                json!({ "type": "scheduleUpdateTwin", "updateTwin": twin, "queryCondition": " " }),
                "queryCondition is missing",
            ),
            (
                json!({ "type": "scheduleUpdateTwin", "updateTwin": twin, "queryCondition": "deviceId ==" }),
                "queryCondition: ",
            ),
            (
                json!({ "type": "scheduleUpdateTwin", "updateTwin": twin, "queryCondition": "*", "startTime": "now" }),
                "startTime",
            ),
            (
                json!({ "type": "scheduleUpdateTwin", "updateTwin": twin, "queryCondition": "*", "maxExecutionTimeInSeconds": 9_999_999 }),
                "maxExecutionTimeInSeconds",
            ),
            (
                json!({ "type": "scheduleUpdateTwin", "updateTwin": { "tags": 1 }, "queryCondition": "*" }),
                "tags is not",
            ),
            (
                json!({ "type": "scheduleDeviceMethod", "cloudToDeviceMethod": { "methodName": "" }, "queryCondition": "*" }),
                "methodName",
            ),
            (
                json!({ "jobId": "k", "type": "scheduleUpdateTwin" }),
                "jobId is not",
            ),
        ] {
            let refused = read(draft).unwrap_err();
            assert!(refused.contains(reason), "{refused}");
        }
    }
}
