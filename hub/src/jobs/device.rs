//! A job's work on one device.

use std::sync::Arc;

use common::identity::{DeviceId, DeviceIdentity};

use crate::documents::job::Content;
use crate::documents::method;
use crate::invocation::{Invocation, Invoke as _, MethodCaller};
use crate::limits;
use crate::refusal::Refusal;
use crate::registry::{DeviceJobError, JobResult};
use crate::state::HubState;

/// What all devices of a job have done to them, and by whom.
pub(super) struct Work {
    pub(super) content: Content,
    pub(super) policy: String,
}

/// Does a job's work on one device. Dropped, it is broken off: a change that has begun is carried
/// out all the same, and so may a method be.
pub(super) async fn run(state: HubState, work: Arc<Work>, device: DeviceId) -> JobResult {
    let identity = DeviceIdentity::of_device(device.clone());
    let outcome = match &work.content {
        Content::Twin(change, condition) => {
            let (presence, id) = (state.presence.clone(), identity.clone());
            let changed = state.registry.change_twin(
                &identity,
                change.clone(),
                condition.clone(),
                Box::new(move |change| presence.desired_changed(&id, change)),
            );
            changed.await.map(|_| None).map_err(Refusal::from)
        }
        Content::Method(method) => {
            let call = Invocation {
                identity,
                name: method.name.clone(),
                payload: method.payload.clone(),
                caller: MethodCaller {
                    policy: work.policy.clone(),
                    peer: None,
                },
                connect: method.connect,
                response: method.response,
            };
            let answered = state.invoke(&call).await.map_err(Refusal::from);
            answered.and_then(|answer| {
                let payload = method::payload(&answer.payload)?;
                let payload = if payload.len() > limits::JOB_PAYLOAD {
                    "null"
                } else {
                    payload
                };
                let status = answer.status;
                Ok(Some(format!(
                    r#"{{"deviceMethodResponse":{{"status":{status},"payload":{payload}}}}}"#
                )))
            })
        }
    };
    JobResult {
        device,
        outcome: outcome.map_err(|refusal| DeviceJobError {
            code: refusal.code.name.to_owned(),
            description: refusal.message,
        }),
    }
}
