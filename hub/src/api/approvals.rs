//! Access that somebody has to approve, over REST (`docs/protocol.md`, "Approvals"): asking for it
//! ahead of time, and deciding.

use common::clock::unix_now;
use common::identity::{DeviceIdentity, StreamName};
use common::wire::problem::ErrorCode;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::gate::tags;
use crate::access::{Approval, Decision, Wanted, Who, target_of};
use crate::answer::{Answer, json as answer};
use crate::auth::{AuthError, Caller, ServicePrincipal};
use crate::documents::{self, approval, invalid};
use crate::limits;
use crate::refusal::Refusal;
use crate::registry::{
    ApprovalAsk, ApprovalOutcome, ApprovalRequest, ApprovalState, ApprovalVerdict, Decider,
    RegistryError,
};
use crate::state::HubState;

/// What a caller wants of approvals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// `GET`: those that the caller has asked for or may decide.
    List,
    /// `POST`: asks for access.
    Ask,
    /// `GET` of one.
    Read(String),
    /// `POST` to one: grants or refuses it.
    Decide(String),
}

/// Serves one call. May be dropped; a change that has begun is then carried out all the same.
///
/// # Errors
/// [`Refusal`] of the registry's family: 403901 for what the caller may not ask for or decide.
pub async fn handle(
    state: &HubState,
    caller: &Caller,
    call: Call,
    body: &[u8],
) -> Result<Answer, Refusal> {
    let Caller::Service(principal) = caller else {
        // The router lets only services come here.
        return Err(AuthError::Permission.into_refusal());
    };
    let now = unix_now();
    match call {
        Call::List => {
            let mut list = Vec::new();
            for request in &state.registry.approvals(now, false).await? {
                let may = !authority(state, principal, request).await?.is_empty();
                if may || is_of(request, principal) {
                    list.push(view(request, may, now));
                }
            }
            Ok(answer(&list.into()))
        }
        Call::Read(id) => {
            let (request, authority) = find(state, &id, principal).await?;
            Ok(answer(&view(&request, !authority.is_empty(), now)))
        }
        Call::Ask => ask(state, principal, &read(body)?).await,
        Call::Decide(id) => {
            let (request, authority) = find(state, &id, principal).await?;
            decide(state, principal, &request, authority, &read(body)?).await
        }
    }
}

/// With whether the caller may decide it.
fn view(request: &ApprovalRequest, may_decide: bool, now: u64) -> Value {
    let mut document = approval::write(request, now);
    if let Some(fields) = document.as_object_mut() {
        fields.insert("mayDecide".to_owned(), may_decide.into());
    }
    document
}

/// Whether it is the caller's. People are known by what the provider never gives to anybody else: their
/// names may change.
fn is_of(request: &ApprovalRequest, principal: &ServicePrincipal) -> bool {
    match (&request.ask.person, &principal.login) {
        (Some(one), Some(other)) => one.is_same(other),
        // Before people were kept, the name was all.
        (None, _) => request.ask.caller == principal.policy,
        (Some(_), None) => false,
    }
}

/// By which names and groups the caller may decide a request, none if not: those that the access file
/// has now, and, of a request that waits, also had when it was asked. Nobody decides their own.
async fn authority(
    state: &HubState,
    principal: &ServicePrincipal,
    request: &ApprovalRequest,
) -> Result<Vec<String>, Refusal> {
    let (Some(login), Some(rules)) = (&principal.login, state.access.now()) else {
        return Ok(Vec::new());
    };
    let approver = Who::Person {
        name: &login.name,
        groups: &login.groups,
    };
    if is_of(request, principal) || !rules.has_approver(approver) {
        return Ok(Vec::new());
    }
    let ask = &request.ask;
    let who = match &ask.person {
        Some(person) => Who::Person {
            name: &person.name,
            groups: &person.groups,
        },
        None => Who::Policy(&ask.caller),
    };
    let device = tags(state, &rules, &ask.identity.device).await?;
    let wanted = Wanted {
        identity: &ask.identity,
        target: Some(ask.target.as_str()),
        device: &device,
        now: OffsetDateTime::now_utc(),
    };
    let mut names = rules.approvers(who, &wanted);
    let waits = request.state == ApprovalState::Waiting;
    names.retain(|name| *name == login.name || login.groups.contains(name));
    names.retain(|name| !waits || ask.by.contains(name));
    Ok(names)
}

/// One that the caller may know of, and by which names and groups they may decide it.
async fn find(
    state: &HubState,
    id: &str,
    principal: &ServicePrincipal,
) -> Result<(ApprovalRequest, Vec<String>), Refusal> {
    let unknown = || {
        let text = "there is no such request, or it is not yours to see";
        Refusal::new(ErrorCode::NOT_FOUND, text)
    };
    let found = state.registry.approval(id).await?.ok_or_else(unknown)?;
    let authority = authority(state, principal, &found).await?;
    match is_of(&found, principal) || !authority.is_empty() {
        true => Ok((found, authority)),
        false => Err(unknown()),
    }
}

async fn ask(
    state: &HubState,
    principal: &ServicePrincipal,
    body: &Value,
) -> Result<Answer, Refusal> {
    let text = |name: &str| body.get(name).and_then(Value::as_str);
    let identity = documents::id(text("deviceId").unwrap_or_default(), text("moduleId"))?;
    let target = StreamName::parse(text("target").unwrap_or_default());
    let target = target.map_err(|error| invalid(error.to_string()))?;
    let target = StreamName::parse(target_of(target.as_str())).unwrap_or(target);
    let reason = text("reason").map(|reason| {
        let reason: String = reason.chars().take(limits::APPROVAL_REASON).collect();
        common::outside::printable(&reason).into_owned()
    });
    let approval = match needed(state, principal, &identity, &target).await? {
        Some(approval) => approval,
        None => return Ok(answer(&json!({ "state": "unneeded" }))),
    };
    let wanted = body.get("seconds").and_then(Value::as_u64);
    let lasts = approval.lasts.as_secs();
    let now = unix_now();
    let ask = ApprovalAsk {
        caller: principal.policy.clone(),
        person: principal.login.as_deref().cloned(),
        identity,
        target,
        reason,
        by: approval.by,
        lasts: wanted.map_or(lasts, |wanted| wanted.clamp(60, lasts)),
        most: lasts,
        waits_until: now.saturating_add(limits::APPROVAL_ASKED.as_secs()),
    };
    let request = state.registry.ask_approval(ask, true, now).await?;
    Ok(answer(&view(&request, false, now)))
}

/// What the access file wants of a caller for a target now; nothing when it is free.
async fn needed(
    state: &HubState,
    principal: &ServicePrincipal,
    identity: &DeviceIdentity,
    target: &StreamName,
) -> Result<Option<Approval>, Refusal> {
    let Some(rules) = state.access.now() else {
        return Ok(None);
    };
    let who = match &principal.login {
        Some(login) => Who::Person {
            name: &login.name,
            groups: &login.groups,
        },
        None if rules.governs(&principal.policy) => Who::Policy(&principal.policy),
        None => return Ok(None),
    };
    let device = tags(state, &rules, &identity.device).await?;
    let wanted = Wanted {
        identity,
        target: Some(target.as_str()),
        device: &device,
        now: OffsetDateTime::now_utc(),
    };
    match rules.decide(who, &wanted) {
        Decision::Allowed => Ok(None),
        Decision::WithApproval(approval) => {
            let found = state.registry.identity(identity).await?;
            found.ok_or_else(|| RegistryError::NotFound(identity.clone()))?;
            Ok(Some(approval))
        }
        Decision::Denied(why) => Err(Refusal::new(ErrorCode::ACCESS_DENIED, why.to_string())),
    }
}

async fn decide(
    state: &HubState,
    principal: &ServicePrincipal,
    request: &ApprovalRequest,
    authority: Vec<String>,
    body: &Value,
) -> Result<Answer, Refusal> {
    if authority.is_empty() {
        let text = "only one of its approvers may decide this request, and nobody their own";
        return Err(Refusal::new(ErrorCode::ACCESS_DENIED, text));
    }
    let now = unix_now();
    let verdict = match body.get("grant").and_then(Value::as_bool) {
        Some(true) => {
            let wanted = body.get("seconds").and_then(Value::as_u64);
            let lasts = request.ask.lasts;
            let lasts = wanted.map_or(lasts, |wanted| wanted.clamp(60, lasts.max(60)));
            ApprovalVerdict::Granted(now.saturating_add(lasts))
        }
        Some(false) => ApprovalVerdict::Refused(
            body.get("because")
                .and_then(Value::as_str)
                .map(|text| text.chars().take(limits::APPROVAL_REASON).collect()),
        ),
        None => return Err(invalid("grant: give true or false".to_owned())),
    };
    let by = Decider {
        name: principal.policy.clone(),
        through: Some(authority),
    };
    let decided = state
        .registry
        .decide_approval(&request.id, verdict, by, now);
    match decided.await? {
        ApprovalOutcome::Decided(request) => Ok(answer(&view(&request, true, now))),
        ApprovalOutcome::Closed(request) => Err(Refusal::new(
            ErrorCode::CONFLICT,
            format!(
                "the request is {}: only one that waits can be granted, and nobody waits for one that was withdrawn; whoever needs access asks anew",
                request.word(now)
            ),
        )),
        ApprovalOutcome::Unknown => {
            let text = "there is no such request any more";
            Err(Refusal::new(ErrorCode::NOT_FOUND, text))
        }
    }
}

fn read(body: &[u8]) -> Result<Value, Refusal> {
    serde_json::from_slice(body)
        .map_err(|_| Refusal::new(ErrorCode::FORMAT_ERROR, "the body is not JSON"))
}
