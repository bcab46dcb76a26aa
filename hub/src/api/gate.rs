//! What the access file says of a call, for callers that it governs: people that have logged in, and
//! the shared access policies that it names. These may open the streams that it allows, and read the
//! twins of the devices that those lead to, which session mode does, and list these devices; nothing
//! else: who may change tags may change who may do what.

use std::net::SocketAddr;

use common::identity::{DeviceId, DeviceIdentity};
use common::wire::problem::ErrorCode;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use super::missing::not_found;
use super::router::Call;
use super::twins;
use crate::access::{Approval, Decision, NoAccess, Rules, Wanted, Who, target_of};
use crate::approvals::{self, Admission};
use crate::auth::{AuthError, Caller, ServicePrincipal};
use crate::events::Event;
use crate::legs::Grant;
use crate::refusal::Refusal;
use crate::state::HubState;

/// A call may go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gate {
    /// At once.
    Open,
    /// Once somebody has approved it: a stream.
    Approval(Approval),
}

/// Judges a call. May be dropped.
///
/// # Errors
/// 403901 for what the access file does not allow, and the registry's.
pub async fn judge(
    state: &HubState,
    caller: &Caller,
    peer: SocketAddr,
    call: &Call,
) -> Result<Gate, Refusal> {
    let Caller::Service(principal) = caller else {
        return Ok(Gate::Open);
    };
    let rules = state.access.now();
    let Some(who) = governed(rules.as_deref(), principal) else {
        return Ok(Gate::Open);
    };
    let (identity, name) = match call {
        Call::Stream(call) => (&call.identity, Some(call.name.as_str())),
        Call::Twins(twins::Call::Read(identity)) => (identity, None),
        // What these show is judged there.
        Call::Approvals(_) | Call::Reachable(_) => return Ok(Gate::Open),
        _ => {
            return Err(denied(
                state,
                principal,
                peer,
                None,
                None,
                NoAccess::StreamsOnly,
            ));
        }
    };
    // Without a file, somebody that has logged in once may do nothing.
    let Some(rules) = rules else {
        return Err(denied(
            state,
            principal,
            peer,
            Some(identity),
            name,
            NoAccess::NoRule,
        ));
    };
    let device = tags(state, &rules, &identity.device).await?;
    let wanted = Wanted {
        identity,
        target: name.map(target_of),
        device: &device,
        now: OffsetDateTime::now_utc(),
    };
    match rules.decide(who, &wanted) {
        Decision::Allowed => Ok(Gate::Open),
        Decision::WithApproval(_) if name.is_none() => Ok(Gate::Open),
        Decision::WithApproval(approval) => Ok(Gate::Approval(approval)),
        Decision::Denied(why) => Err(denied(state, principal, peer, Some(identity), name, why)),
    }
}

/// As whom the access file governs a caller; `None`: it does not.
pub(super) fn governed<'a>(
    rules: Option<&Rules>,
    principal: &'a ServicePrincipal,
) -> Option<Who<'a>> {
    match (rules, &principal.login) {
        (_, Some(login)) => Some(Who::Person {
            name: &login.name,
            groups: &login.groups,
        }),
        (Some(rules), None) if rules.governs(&principal.policy) => {
            Some(Who::Policy(&principal.policy))
        }
        (_, None) => None,
    }
}

/// Asks for approval of a stream, and waits for it for a moment. Says with which grant the stream ends,
/// if the rule wants that it does. May be dropped.
///
/// # Errors
/// 423901 as long as nobody has decided, with the request and when to ask again; 403902 when it is
/// refused; 503001 as soon as `stop` is cancelled; and the registry's.
pub async fn wait(
    state: &HubState,
    caller: &Caller,
    call: &Call,
    approval: &Approval,
    stop: &CancellationToken,
) -> Result<Option<Grant>, Refusal> {
    let (Caller::Service(principal), Call::Stream(call)) = (caller, call) else {
        // Nothing else waits.
        return Err(AuthError::Permission.into_refusal());
    };
    if state.registry.identity(&call.identity).await?.is_none() {
        return Err(not_found(&call.identity));
    }
    let admitting = approvals::admit(state, principal, &call.identity, &call.name, approval);
    let admission = tokio::select! {
        admission = admitting => admission?,
        () = stop.cancelled() => {
            return Err(Refusal::new(ErrorCode::SERVICE_UNAVAILABLE, "the hub is stopping"));
        }
    };
    match admission {
        Admission::Granted(grant) => Ok(grant),
        Admission::Waiting { id, is_decided } => Err(Refusal {
            approval: Some((id.clone(), u64::from(!is_decided))),
            ..Refusal::new(
                ErrorCode::APPROVAL_PENDING,
                format!("request {id} waits for an approver, ask again until it is granted"),
            )
        }),
        Admission::Refused { id, by, because } => {
            let because = because.map_or_else(String::new, |text| format!(": {text}"));
            Err(Refusal::new(
                ErrorCode::APPROVAL_REFUSED,
                format!("request {id} was refused by {by}{because}"),
            ))
        }
    }
}

/// What conditions on tags are about.
pub(super) async fn tags(
    state: &HubState,
    rules: &Rules,
    device: &DeviceId,
) -> Result<Value, Refusal> {
    if !rules.reads_tags() {
        return Ok(Value::Null);
    }
    let id = DeviceIdentity::of_device(device.clone());
    let twin = state.registry.device_twin(&id).await?;
    // What does not exist has no tags; whether it exists is not said here.
    let tags = twin.map(|whole| whole.twin.tags).unwrap_or_default();
    Ok(json!({ "deviceId": device.as_str(), "tags": tags }))
}

fn denied(
    state: &HubState,
    principal: &ServicePrincipal,
    peer: SocketAddr,
    device: Option<&DeviceIdentity>,
    name: Option<&str>,
    why: NoAccess,
) -> Refusal {
    state.events.emit(Event::AccessDenied {
        device,
        name,
        policy: &principal.policy,
        person: principal.person.as_deref(),
        peer,
        reason: &why,
    });
    Refusal::new(ErrorCode::ACCESS_DENIED, why.to_string())
}
