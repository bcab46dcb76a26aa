//! From a call to its handler.

use std::net::SocketAddr;

use bytes::Bytes;
use http::HeaderMap;
use tokio_util::sync::CancellationToken;

use super::router::Call;
use super::{identities, jobs, messages, methods, queries, streams, twins};
use crate::answer::Answer;
use crate::auth::Caller;
use crate::refusal::Refusal;
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
    let registry = &*state.registry;
    match call {
        Call::Identities(call) => {
            let input = identities::Input {
                query: &query,
                headers: &headers,
                body: &body,
            };
            identities::handle(registry, state, call, input).await
        }
        Call::Twins(call) => {
            let input = twins::Input {
                caller: &caller,
                peer,
                headers: &headers,
                body: &body,
            };
            twins::handle(registry, state, call, input).await
        }
        Call::Jobs(call) => {
            let schedule = &state.schedule;
            jobs::handle(registry, schedule, &caller, call, &query, &headers, &body).await
        }
        Call::Query(queries::Call) => queries::handle(state, registry, &headers, &body).await,
        Call::Messages(call) => {
            messages::handle(state, &caller, call, &query, &headers, body, stop).await
        }
        Call::Method(call) => {
            methods::handle(state, registry, &caller, peer, call, &body, stop).await
        }
        Call::Stream(call) => {
            streams::handle(state, registry, &caller, peer, call, &headers, stop).await
        }
    }
}
