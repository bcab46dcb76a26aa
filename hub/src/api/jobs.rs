//! Jobs over REST (`docs/protocol.md`, "Jobs"): made, read, listed and called off. They run in
//! [`crate::jobs`]. Who may call is judged before.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::draft;
use super::paging::{CONTINUATION, ITEM_TYPE, PAGE_SIZE, given, parameter};
use crate::answer::{Answer, List, json};
use crate::auth::{AuthError, Caller};
use crate::documents::{invalid, job};
use crate::events::{Event, JobOutcome};
use crate::limits;
use crate::refusal::Refusal;
use crate::registry::{
    JobEnd, JobError, JobFilter, JobId, JobKind, JobPlace, JobStatus, Jobs, RegistryError, activity,
};
use crate::state::HubState;

/// What a caller wants of jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// `PUT` of a job.
    Create(JobId),
    /// `GET` of a job.
    Read(JobId),
    /// `POST` to a job's `cancel`.
    Cancel(JobId),
    /// `GET` of the list.
    List,
}

/// Serves one call. May be dropped; a change that has begun is then carried out all the same.
///
/// # Errors
/// [`Refusal`] of the registry's family.
pub async fn handle(
    registry: &dyn Jobs,
    state: &HubState,
    caller: &Caller,
    call: Call,
    query: &str,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Answer, Refusal> {
    let Caller::Service(principal) = caller else {
        // The router lets only services come here.
        return Err(AuthError::Permission.into_refusal());
    };
    let policy = &principal.policy;
    let now = activity::now();
    let job = match call {
        Call::List => return list(registry, query, headers).await,
        Call::Create(id) => {
            let new = draft::read::<job::JobDraft>(body)?.read(&id, policy, now)?;
            let mut made = registry.create_job(new, now).await?;
            state
                .events
                .emit(Event::Job(id.as_str(), JobOutcome::Made { policy }));
            state.schedule.wake.notify_one();
            // IoT Hub's word for every new job.
            made.status = JobStatus::Queued;
            made
        }
        Call::Read(id) => found(registry.job(&id).await?, id)?,
        Call::Cancel(id) => {
            let job = registry.end_job(&id, JobEnd::Cancelled, now).await?;
            let job = found(job, id)?;
            if job.status == JobStatus::Cancelled {
                state.schedule.cancel(&job.new.id);
                state.events.emit(Event::Job(
                    job.new.id.as_str(),
                    JobOutcome::Cancelled { policy },
                ));
            }
            job
        }
    };
    Ok(json(&job::write(&job)))
}

fn found<T>(job: Option<T>, id: JobId) -> Result<T, RegistryError> {
    job.ok_or_else(|| JobError::NotFound(id).into())
}

async fn list(registry: &dyn Jobs, query: &str, headers: &HeaderMap) -> Result<Answer, Refusal> {
    let filter = JobFilter {
        kind: word(query, "jobType", JobKind::parse)?,
        status: word(query, "jobStatus", JobStatus::parse)?,
    };
    let text = |name: &HeaderName, named: &str| {
        let header = headers.get(name).and_then(|value| value.to_str().ok());
        header
            .map(str::to_owned)
            .or_else(|| parameter(query, named))
    };
    let limit = match text(&PAGE_SIZE, "pageSize") {
        None => limits::JOBS_PER_PAGE,
        Some(text) => {
            let limit = text.parse().ok().filter(|limit| *limit > 0);
            let limit: usize = limit.ok_or_else(|| {
                invalid("The size of a page must be a number above 0.".to_owned())
            })?;
            limit.min(limits::JOBS_PER_PAGE)
        }
    };
    let after = text(&CONTINUATION, "continuationToken").filter(|text| !text.is_empty());
    let after = after
        .map(|text| place(&text).ok_or_else(|| invalid("The continuation is none.".to_owned())))
        .transpose()?;
    // One more tells whether there are more.
    let mut jobs = registry.jobs(filter, after.as_ref(), limit + 1).await?;
    let has_more = jobs.len() > limit;
    jobs.truncate(limit);
    let mut list = List::default();
    jobs.iter().for_each(|job| list.push(&job::write(job)));
    let mut answer = list.into_answer();
    let headers = answer.headers_mut();
    headers.insert(ITEM_TYPE, HeaderValue::from_static("JobResponse"));
    if let Some(last) = jobs.last().filter(|_| has_more) {
        let place = format!("{}/{}", last.created, last.new.id);
        if let Ok(value) = HeaderValue::try_from(URL_SAFE_NO_PAD.encode(place)) {
            headers.insert(CONTINUATION, value);
        }
    }
    Ok(answer)
}

/// A place in the list, as a continuation tells it.
fn place(text: &str) -> Option<JobPlace> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
    let (created, id) = text.split_once('/')?;
    Some(JobPlace {
        created: created.parse().ok()?,
        id: JobId::parse(id)?,
    })
}

/// A word of IoT Hub's in the query, if there is one.
fn word<T>(query: &str, name: &str, parse: fn(&str) -> Option<T>) -> Result<Option<T>, Refusal> {
    let Some(text) = given(query, name) else {
        return Ok(None);
    };
    parse(&text)
        .map(Some)
        .ok_or_else(|| invalid(format!("{name} is none that this hub knows.")))
}
