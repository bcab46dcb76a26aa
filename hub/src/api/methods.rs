//! Direct methods over REST (`docs/protocol.md`, "Direct methods"): a call waits for the device's
//! answer. Who may call is judged before.

use std::net::SocketAddr;

use common::identity::DeviceIdentity;
use tokio_util::sync::CancellationToken;

use super::draft;
use super::missing::not_found;
use crate::answer::{Answer, json_text};
use crate::auth::{AuthError, Caller};
use crate::documents::method::{MethodDraft, payload};
use crate::invocation::{Invocation, Invoke, MethodCaller, NotInvoked};
use crate::pending::AskRefused;
use crate::refusal::Refusal;
use crate::registry::Identities;

/// What a service wants: that this device or module carries out a method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The device or module.
    pub identity: DeviceIdentity,
}

/// Serves one call. Dropping the future gives the call up; the device may carry it out all the
/// same.
///
/// # Errors
/// [`Refusal`] with the status and code that SDKs expect; 503001 as soon as `stop` is cancelled.
pub async fn handle(
    hub: &impl Invoke,
    registry: &dyn Identities,
    caller: &Caller,
    peer: SocketAddr,
    call: Call,
    body: &[u8],
    stop: &CancellationToken,
) -> Result<Answer, Refusal> {
    let Caller::Service(principal) = caller else {
        // The router lets only services come here.
        return Err(AuthError::Permission.into_refusal());
    };
    let method = draft::read::<MethodDraft>(body)?.read()?;
    let identity = call.identity;
    if registry.identity(&identity).await?.is_none() {
        return Err(not_found(&identity));
    }
    let call = Invocation {
        identity,
        name: method.name,
        payload: method.payload,
        caller: MethodCaller {
            policy: principal.policy.clone(),
            peer: Some(peer),
        },
        connect: method.connect,
        response: method.response,
    };
    let answer = tokio::select! {
        // What waits is given up next, and would look like a device that has gone.
        biased;
        () = stop.cancelled() => Err(NotInvoked::Pending(AskRefused::Stopping)),
        answer = hub.invoke(&call) => answer,
    };
    let answer = answer?;
    let payload = payload(&answer.payload)?;
    let status = answer.status;
    Ok(json_text(format!(
        r#"{{"status":{status},"payload":{payload}}}"#
    )))
}
