//! A job's work on one device or module.

use std::sync::Arc;

use common::identity::DeviceIdentity;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::documents::job::Content;
use crate::documents::method::{self, Method};
use crate::invocation::{Invocation, Invoke as _, MethodCaller};
use crate::limits::{self, Limit};
use crate::refusal::Refusal;
use crate::registry::{DeviceJobError, IfMatch, JobId, JobResult, TwinChange};
use crate::state::HubState;

/// What all devices of a job have done to them, and by whom.
pub(super) struct Work {
    pub(super) job: JobId,
    pub(super) content: Content,
    pub(super) policy: String,
    /// Until then a device may be about to connect, which it was before the hub was started.
    pub(super) connect_by: Instant,
    /// One device at a time waits for the policy's next turn.
    pub(super) turns: Semaphore,
}

/// Does a job's work on one device; `None`: nothing is left to be noted of it. Dropped, it is broken
/// off: a change that has begun is carried out all the same, and so may a method be.
pub(super) async fn run(
    state: HubState,
    work: Arc<Work>,
    device: DeviceIdentity,
) -> Option<JobResult> {
    {
        let _turn = work.turns.acquire().await;
        state.quotas.turn(Limit::JobDevices, &work.policy).await;
    }
    let outcome = match &work.content {
        Content::Twin(change, condition) => change_twin(&state, &work, &device, change, condition)
            .await
            .err()
            .map(Err)?,
        Content::Method(method) => call_method(&state, &work, &device, method).await.map(Some),
    };
    Some(JobResult {
        device,
        outcome: outcome.map_err(|refusal| {
            refusal.report(&state.events);
            DeviceJobError {
                code: refusal.code.name.to_owned(),
                description: refusal.message,
            }
        }),
    })
}

/// That it has worked is noted with the change itself.
async fn change_twin(
    state: &HubState,
    work: &Work,
    device: &DeviceIdentity,
    change: &TwinChange,
    condition: &IfMatch,
) -> Result<(), Refusal> {
    let (presence, id) = (state.presence.clone(), device.clone());
    let changed = state.registry.change_twin_for_job(
        &work.job,
        device,
        change.clone(),
        condition.clone(),
        Box::new(move |change| presence.desired_changed(&id, change)),
    );
    changed.await?;
    Ok(())
}

/// The device's answer, as its row has it.
async fn call_method(
    state: &HubState,
    work: &Work,
    device: &DeviceIdentity,
    method: &Method,
) -> Result<String, Refusal> {
    let reconnect = work.connect_by.saturating_duration_since(Instant::now());
    let call = Invocation {
        identity: device.clone(),
        name: method.name.clone(),
        payload: method.payload.clone(),
        caller: MethodCaller {
            policy: work.policy.clone(),
            peer: None,
        },
        connect: method.connect.max(reconnect),
        response: method.response,
    };
    let answer = state.invoke(&call).await?;
    let payload = method::payload(&answer.payload)?;
    let payload = if payload.len() > limits::JOB_PAYLOAD {
        "null"
    } else {
        payload
    };
    let status = answer.status;
    Ok(format!(
        r#"{{"deviceMethodResponse":{{"status":{status},"payload":{payload}}}}}"#
    ))
}
