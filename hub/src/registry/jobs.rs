//! Jobs: what is to be done to many devices, and what has become of it on each.

use std::fmt;

use async_trait::async_trait;
use common::identity::DeviceIdentity;

use super::{IfMatch, OnDesired, RegistryError, TwinChange};

/// The jobs of a hub. Every change is durable when its call returns. Each future may be dropped; a
/// change that has begun is then carried out all the same. Times are Unix microseconds.
#[async_trait]
pub trait Jobs: Send + Sync + 'static {
    /// Adds a job.
    ///
    /// # Errors
    /// [`JobError::Exists`], or [`JobError::TooMany`] when too many have not ended.
    async fn create_job(&self, job: NewJob, now: u64) -> Result<Job, RegistryError>;

    /// One job.
    async fn job(&self, id: &JobId) -> Result<Option<Job>, RegistryError>;

    /// The jobs that the filter lets pass, from the newest on: at most `limit` behind a place.
    async fn jobs(
        &self,
        filter: JobFilter,
        after: Option<&JobPlace>,
        limit: usize,
    ) -> Result<Vec<Job>, RegistryError>;

    /// The jobs that are to run now: those that run already, and those whose time has come, the
    /// oldest first, at most `limit`.
    async fn due_jobs(&self, now: u64, limit: usize) -> Result<Vec<Job>, RegistryError>;

    /// When the next job is due, of those that are not due now.
    async fn next_job(&self, now: u64) -> Result<Option<u64>, RegistryError>;

    /// Jobs whose time has come are queued, if they have not begun.
    async fn queue_jobs(&self, now: u64) -> Result<(), RegistryError>;

    /// A job runs from now on, unless it has ended. Devices that ran, when the hub ended or the
    /// registry failed, run no more: they wait again if the job updates twins, since theirs are not
    /// changed; if it calls a method, they have failed, since it may have been carried out.
    async fn begin_job(&self, id: &JobId, now: u64) -> Result<Option<Job>, RegistryError>;

    /// Adds devices or modules to a running job; those that it has stay as they are. `is_all`:
    /// there are no more.
    async fn add_job_devices(
        &self,
        id: &JobId,
        devices: Vec<DeviceIdentity>,
        is_all: bool,
        now: u64,
    ) -> Result<(), RegistryError>;

    /// Takes at most `limit` of a running job's devices that wait: they run from now on.
    async fn claim_job_devices(
        &self,
        id: &JobId,
        limit: usize,
        now: u64,
    ) -> Result<Vec<DeviceIdentity>, RegistryError>;

    /// Changes the twin of one that runs, which has then completed: both or neither, so that no
    /// twin is changed twice for a job, or for one that has ended. `false`: it does not run. See
    /// [`Twins::change_twin`](super::Twins::change_twin) for the rest.
    async fn change_twin_for_job(
        &self,
        job: &JobId,
        device: &DeviceIdentity,
        change: TwinChange,
        condition: IfMatch,
        desired: OnDesired,
    ) -> Result<bool, RegistryError>;

    /// What has become of devices that ran; of others it is not noted.
    async fn record_job_results(
        &self,
        id: &JobId,
        results: Vec<JobResult>,
        now: u64,
    ) -> Result<(), RegistryError>;

    /// Ends a job that has not ended: devices that are left have failed for the given reason, or
    /// are cancelled with the job. The job as it is then; `None` when there is none.
    async fn end_job(
        &self,
        id: &JobId,
        end: JobEnd,
        now: u64,
    ) -> Result<Option<Job>, RegistryError>;

    /// Forgets jobs that have ended before this time.
    async fn forget_jobs(&self, before: u64) -> Result<(), RegistryError>;
}

/// Why a job cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// There is none of this id.
    #[error("there is no job {0}")]
    NotFound(JobId),
    /// There is one of this id already, or was in the last 30 days.
    #[error("there is a job {0} already")]
    Exists(JobId),
    /// Too many jobs have not ended.
    #[error("too many jobs wait or run: at most {} may", crate::limits::JOBS_OPEN)]
    TooMany,
}

/// A job's id: 1 to 128 ASCII letters, digits and `- . _ : = @ ( ) , ! $ ' * + %`, compared with
/// case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(String);

impl JobId {
    /// Reads an id; `None` if it is none. `query` is none: its path lists jobs.
    pub fn parse(text: &str) -> Option<Self> {
        let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:=@(),!$'*+%".contains(&byte);
        let fits = (1..=128).contains(&text.len()) && text.bytes().all(is_good);
        (fits && text != "query").then(|| Self(text.to_owned()))
    }

    /// The id itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An enum whose values have IoT Hub's words.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$value_doc:meta])* $value:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$value_doc])* $value,)*
        }

        impl $name {
            /// IoT Hub's word for it.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $word,)*
                }
            }

            /// Reads the word, in any case.
            pub fn parse(text: &str) -> Option<Self> {
                [$(Self::$value),*]
                    .into_iter()
                    .find(|value| text.eq_ignore_ascii_case(value.as_str()))
            }
        }
    };
}

words! {
    /// What a job does.
    JobKind {
        /// It changes tags and desired properties.
        UpdateTwin = "scheduleUpdateTwin",
        /// It calls a direct method.
        DeviceMethod = "scheduleDeviceMethod",
    }
}

words! {
    /// How far a job has come.
    JobStatus {
        /// It waits for its time.
        Scheduled = "scheduled",
        /// Its time has come.
        Queued = "queued",
        /// It is at work.
        Running = "running",
        /// All its devices have been at work.
        Completed = "completed",
        /// It could not be carried out to its end.
        Failed = "failed",
        /// It was called off.
        Cancelled = "cancelled",
    }
}

words! {
    /// How far a job has come on one device.
    DeviceJobStatus {
        /// Its turn has not come.
        Pending = "pending",
        /// It is at work.
        Running = "running",
        /// The twin is changed, or the device has answered.
        Completed = "completed",
        /// That did not work.
        Failed = "failed",
        /// The job was called off before its turn. IoT Hub spells it so.
        Canceled = "canceled",
    }
}

/// A job that is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewJob {
    /// Its name.
    pub id: JobId,
    /// What it does.
    pub kind: JobKind,
    /// To which devices or modules: see [`Condition`](crate::query::Condition).
    pub condition: String,
    /// The change or the method, as JSON.
    pub content: String,
    /// The shared access policy with which it was made.
    pub policy: String,
    /// When it begins.
    pub start: u64,
    /// How long it may run from then on.
    pub max_seconds: u64,
}

/// A job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// What it was made as.
    pub new: NewJob,
    /// When it was made.
    pub created: u64,
    /// How far it has come.
    pub status: JobStatus,
    /// When it began to run.
    pub began: Option<u64>,
    /// When it ended.
    pub ended: Option<u64>,
    /// Why it failed.
    pub failure: Option<String>,
    /// Whether all its devices are known.
    pub has_all_devices: bool,
    /// How many devices are how far.
    pub counts: JobCounts,
}

impl Job {
    /// Whether nothing happens to it any more.
    pub fn has_ended(&self) -> bool {
        self.ended.is_some()
    }
}

/// The devices of a job, by how far it has come on each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct JobCounts {
    /// Its turn has not come.
    pub pending: u64,
    /// It is at work.
    pub running: u64,
    /// It has worked.
    pub succeeded: u64,
    /// It has not.
    pub failed: u64,
    /// It was called off.
    pub canceled: u64,
}

impl JobCounts {
    /// All devices.
    pub fn total(self) -> u64 {
        self.pending + self.running + self.succeeded + self.failed + self.canceled
    }
}

/// Which jobs are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct JobFilter {
    /// Only of this kind.
    pub kind: Option<JobKind>,
    /// Only those that are so far.
    pub status: Option<JobStatus>,
}

/// A place in the list of jobs: behind this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobPlace {
    /// When it was made.
    pub created: u64,
    /// Its id.
    pub id: JobId,
}

/// What has become of one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobResult {
    /// Which device or module.
    pub device: DeviceIdentity,
    /// The outcome as JSON, if there is one, or why it did not work.
    pub outcome: Result<Option<String>, DeviceJobError>,
}

/// Why a job did not work on a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceJobError {
    /// IoT Hub's name for it.
    pub code: String,
    /// A sentence.
    pub description: String,
}

/// How a job ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobEnd {
    /// All devices have been at work.
    Completed,
    /// It cannot go on.
    Failed(String),
    /// Somebody has called it off.
    Cancelled,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_words() {
        for good in ["job-01", "a.b_c:d=e@(f),!$'*+%", &"j".repeat(128)] {
            assert!(JobId::parse(good).is_some(), "{good}");
        }
        for bad in ["", "a b", "a/b", "query", "a#", "ü", &"j".repeat(129)] {
            assert!(JobId::parse(bad).is_none(), "{bad}");
        }
        assert_eq!(JobStatus::parse("Completed"), Some(JobStatus::Completed));
        assert_eq!(JobKind::parse("scheduletwinupdate"), None);
        assert_eq!(
            DeviceJobStatus::parse("canceled"),
            Some(DeviceJobStatus::Canceled)
        );
    }
}
