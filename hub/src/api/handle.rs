//! From a call to its handler.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use tokio_util::sync::CancellationToken;

use super::gate::{self, Gate};
use super::router::Call;
use super::{approvals, identities, jobs, messages, methods, queries, reachable, streams, twins};
use crate::answer::Answer;
use crate::auth::Caller;
use crate::limits::Limit;
use crate::refusal::Refusal;
use crate::registry::Actor;
use crate::state::HubState;

/// What comes with a call.
pub struct Request {
    /// Who calls, and may.
    pub caller: Caller,
    /// Where the connection comes from.
    pub peer: SocketAddr,
    /// What stands behind the path's `?`; empty when there is nothing.
    pub query: String,
    /// All headers.
    pub headers: HeaderMap,
    /// The whole body, if the call has one.
    pub body: Bytes,
}

/// Carries out a call. May be dropped: a change that has begun is then carried out all the same,
/// and a stream initiation is given up.
///
/// # Errors
/// [`Refusal`] with the status and code that SDKs expect. A stream initiation is refused as soon
/// as `stop` is cancelled.
pub async fn handle(
    call: Call,
    request: Request,
    state: &HubState,
    stop: &CancellationToken,
) -> Result<Answer, Refusal> {
    let Request {
        caller,
        peer,
        query,
        headers,
        body,
    } = request;
    admit(state, &call, &caller)?;
    let grant = match gate::judge(state, &caller, peer, &call).await? {
        Gate::Open => None,
        Gate::Approval(approval) => gate::wait(state, &caller, &call, &approval, stop).await?,
    };
    let registry = &*state.registry;
    match call {
        Call::Identities(call) => {
            let input = identities::Input {
                events: &state.events,
                query: &query,
                headers: &headers,
                body: &body,
            };
            let registry = match &caller {
                Caller::Service(principal) => state.registry.acting(&Actor::Service {
                    policy: principal.policy.clone(),
                    person: principal.person.as_deref().map(str::to_owned),
                    peer,
                }),
                Caller::Device(_) => Arc::clone(&state.registry),
            };
            identities::handle(&*registry, state, call, input).await
        }
        Call::Twins(call) => {
            let input = twins::Input {
                events: &state.events,
                caller: &caller,
                peer,
                headers: &headers,
                body: &body,
            };
            twins::handle(registry, state, call, input).await
        }
        Call::Jobs(call) => {
            jobs::handle(registry, state, &caller, call, &query, &headers, &body).await
        }
        Call::Query(queries::Call) => queries::handle(state, registry, &headers, &body).await,
        Call::Messages(call) => {
            messages::handle(state, &caller, call, &query, &headers, body, stop).await
        }
        Call::Method(call) => {
            methods::handle(state, registry, &caller, peer, call, &body, stop).await
        }
        Call::Reachable(reachable::Call) => reachable::handle(state, &caller, &headers).await,
        Call::Approvals(call) => approvals::handle(state, &caller, call, &body).await,
        Call::Stream(call) => {
            let input = streams::Input {
                peer,
                headers: &headers,
                grant,
            };
            streams::handle(state, registry, &caller, call, input, stop).await
        }
    }
}

/// Judges whether the caller may have another one of these.
fn admit(state: &HubState, call: &Call, caller: &Caller) -> Result<(), Refusal> {
    let (limit, device) = match call {
        Call::Stream(call) => (Limit::Initiations, Some(&call.identity)),
        Call::Method(call) => (Limit::Methods, Some(&call.identity)),
        Call::Twins(twins::Call::Merge(id) | twins::Call::Replace(id)) => {
            (Limit::TwinWrites, Some(id))
        }
        Call::Messages(messages::Call::Report(id)) => (Limit::Telemetry, Some(id)),
        Call::Twins(twins::Call::Read(_))
        | Call::Messages(_)
        | Call::Identities(_)
        // What a job then does with devices has a rate of its own.
        | Call::Jobs(_)
        | Call::Approvals(_)
        | Call::Reachable(_)
        | Call::Query(_) => (Limit::Requests, None),
    };
    let policy = match caller {
        Caller::Service(principal) => Some(principal.policy.as_str()),
        Caller::Device(_) => None,
    };
    Ok(state.quotas.admit(limit, policy, device)?)
}
