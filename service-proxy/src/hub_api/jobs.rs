//! Jobs, version 2: a twin update or a direct method for every device that matches a condition.

use common::wire::initiation::encode_segment;
use http::Method;
use serde_json::{Value, json};

use super::HubApi;
use super::call::{self, Call, CallError};
use super::methods::MethodCall;
use super::queries::Paging;

use crate::limits;

/// A job to create.
#[derive(Debug, Clone, PartialEq)]
pub struct NewJob {
    /// Its id.
    pub id: String,
    /// What it does to each device.
    pub task: JobTask,
    /// Which devices: what stands behind WHERE in a query, or `*`.
    pub condition: String,
    /// When it begins, ISO 8601; now if there is none.
    pub start: Option<String>,
    /// How long it may run, in seconds, if it is not to be the hub's default.
    pub max_seconds: Option<u64>,
}

/// What a job does to each device.
#[derive(Debug, Clone, PartialEq)]
pub enum JobTask {
    /// Merge this patch into its twin.
    UpdateTwin(Value),
    /// Call a direct method.
    CallMethod(MethodCall),
}

impl NewJob {
    fn to_json(&self) -> Value {
        let mut document = json!({
            "jobId": self.id,
            "queryCondition": self.condition,
            "startTime": self.start,
        });
        let (kind, name, task) = match &self.task {
            JobTask::UpdateTwin(patch) => {
                let mut patch = patch.clone();
                // Hubs want it, also where no etag is wanted.
                if let Some(fields) = patch.as_object_mut() {
                    fields.entry("etag").or_insert_with(|| "*".into());
                }
                ("scheduleUpdateTwin", "updateTwin", patch)
            }
            JobTask::CallMethod(method) => {
                let method = method.to_json();
                ("scheduleDeviceMethod", "cloudToDeviceMethod", method)
            }
        };
        if let Some(fields) = document.as_object_mut() {
            fields.insert("type".to_owned(), kind.into());
            fields.insert(name.to_owned(), task);
            if let Some(seconds) = self.max_seconds {
                fields.insert("maxExecutionTimeInSeconds".to_owned(), seconds.into());
            }
        }
        document
    }
}

/// A job as the hub describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Job(Value);

/// How many devices of a job stand where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JobCounts {
    /// All that matched the condition.
    pub devices: u64,
    /// Those that are done.
    pub succeeded: u64,
    /// Those that are done, without success.
    pub failed: u64,
}

impl Job {
    fn new(document: Value) -> Result<Self, CallError> {
        if document.get("jobId").is_some_and(Value::is_string) {
            Ok(Self(document))
        } else {
            Err(CallError::Answer("a job"))
        }
    }

    /// The whole document.
    pub fn document(&self) -> &Value {
        &self.0
    }

    /// The document alone.
    pub fn into_document(self) -> Value {
        self.0
    }

    /// A text of the document; empty if there is none.
    pub fn text(&self, name: &str) -> &str {
        self.0.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// Its id.
    pub fn id(&self) -> &str {
        self.text("jobId")
    }

    /// Its status: `queued`, `scheduled`, `running`, `completed`, `failed`, `cancelled` and others.
    pub fn status(&self) -> &str {
        self.text("status")
    }

    /// Whether nothing more will happen.
    pub fn is_over(&self) -> bool {
        ["completed", "failed", "cancelled", "canceled"]
            .iter()
            .any(|status| self.status().eq_ignore_ascii_case(status))
    }

    /// Whether it came to its end for every device; some of them may have failed.
    pub fn is_completed(&self) -> bool {
        self.status().eq_ignore_ascii_case("completed")
    }

    /// How many devices stand where; zeros while the hub does not know.
    pub fn counts(&self) -> JobCounts {
        let statistics = self.0.get("deviceJobStatistics");
        let count = |name| {
            let count = statistics.and_then(|statistics| statistics.get(name));
            count.and_then(Value::as_u64).unwrap_or_default()
        };
        JobCounts {
            devices: count("deviceCount"),
            succeeded: count("succeededCount"),
            failed: count("failedCount"),
        }
    }
}

/// The jobs of a hub, read page by page.
#[derive(Debug)]
pub struct JobList<'a> {
    api: &'a HubApi,
    kind: Option<String>,
    status: Option<String>,
    paging: Paging,
}

impl JobList<'_> {
    /// The next page; `None` after the last one. May be dropped: the page is then read again.
    ///
    /// # Errors
    /// [`CallError`]; the page can be asked for again.
    pub async fn next_page(&mut self) -> Result<Option<Vec<Job>>, CallError> {
        let [kind, status] =
            [&self.kind, &self.status].map(|text| text.as_deref().map(encode_segment));
        let mut query = Vec::new();
        if let Some(kind) = &kind {
            query.push(("jobType", kind.as_str()));
        }
        if let Some(status) = &status {
            query.push(("jobStatus", status.as_str()));
        }
        let call = Call::new(Method::GET, call::path("/jobs/v2/query", &query));
        let Some(document) = self.paging.next(self.api, call).await? else {
            return Ok(None);
        };
        let Value::Array(jobs) = document else {
            return Err(CallError::Answer("an array of jobs"));
        };
        let jobs: Result<Vec<Job>, CallError> = jobs.into_iter().map(Job::new).collect();
        Ok(Some(jobs?))
    }
}

impl HubApi {
    /// Creates a job. When the future is dropped, there may be a job or not.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn create_job(&self, job: &NewJob) -> Result<Job, CallError> {
        let call = Call {
            body: Some(job.to_json().to_string()),
            ..Self::job_call(Method::PUT, &job.id, "")
        };
        Job::new(self.call(&call).await?.document)
    }

    /// Reads a job. May be dropped.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn read_job(&self, id: &str) -> Result<Job, CallError> {
        let call = Self::job_call(Method::GET, id, "");
        Job::new(self.call(&call).await?.document)
    }

    /// Cancels a job; devices that it has begun with come to their end. When the future is dropped,
    /// it may be cancelled or not.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn cancel_job(&self, id: &str) -> Result<Job, CallError> {
        let call = Self::job_call(Method::POST, id, "/cancel");
        Job::new(self.call(&call).await?.document)
    }

    /// The jobs of the hub, those of a type or in a status only if there is one.
    pub fn jobs(&self, kind: Option<String>, status: Option<String>) -> JobList<'_> {
        JobList {
            api: self,
            kind,
            status,
            paging: Paging::default(),
        }
    }

    fn job_call(method: Method, id: &str, action: &str) -> Call<'static> {
        let path = format!("/jobs/v2/{}{action}", encode_segment(id));
        Call {
            most: limits::METHOD_ANSWER,
            ..Call::new(method, call::path(&path, &[]))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn jobs_are_written_as_iot_hub_wants_them() {
        let mut job = NewJob {
            id: "j".to_owned(),
            task: JobTask::UpdateTwin(json!({ "tags": { "a": null } })),
            condition: "*".to_owned(),
            start: None,
            max_seconds: None,
        };
        assert_eq!(
            job.to_json(),
            json!({
                "jobId": "j", "type": "scheduleUpdateTwin", "queryCondition": "*",
                "startTime": null, "updateTwin": { "tags": { "a": null }, "etag": "*" },
            })
        );
        job.task = JobTask::CallMethod(MethodCall {
            name: "ping".to_owned(),
            payload: json!([1]),
            connect: Duration::ZERO,
            response: Duration::from_secs(30),
        });
        job.start = Some("2026-11-29T21:00:00Z".to_owned());
        job.max_seconds = Some(60);
        assert_eq!(
            job.to_json(),
            json!({
                "jobId": "j", "type": "scheduleDeviceMethod", "queryCondition": "*",
                "startTime": "2026-11-29T21:00:00Z", "maxExecutionTimeInSeconds": 60,
                "cloudToDeviceMethod": {
                    "methodName": "ping", "payload": [1],
                    "responseTimeoutInSeconds": 30, "connectTimeoutInSeconds": 0,
                },
            })
        );
    }

    #[test]
    fn a_job_says_how_far_it_is() {
        let job = |document: Value| Job::new(document).unwrap();
        let running = job(json!({
            "jobId": "j", "status": "running",
            "deviceJobStatistics": { "deviceCount": 5, "succeededCount": 2, "failedCount": 1 },
        }));
        let counts = JobCounts {
            devices: 5,
            succeeded: 2,
            failed: 1,
        };
        assert_eq!(running.counts(), counts);
        assert!(!running.is_over());
        let queued = job(json!({ "jobId": "j", "status": "queued" }));
        assert_eq!(queued.counts(), JobCounts::default());
        for (status, is_completed) in [("completed", true), ("cancelled", false), ("Failed", false)]
        {
            let job = job(json!({ "jobId": "j", "status": status }));
            assert!(job.is_over());
            assert_eq!(job.is_completed(), is_completed);
        }
        assert!(Job::new(json!({ "status": "running" })).is_err());
        assert!(Job::new(json!([])).is_err());
    }
}
