//! Stream initiation over REST: the ask, and the answer with the streaming endpoint or
//! the refusal (`docs/protocol.md`, the first table).

use std::net::SocketAddr;

use common::identity::{DeviceIdentity, StreamName};
use common::wire::initiation::{self, Timeouts};
use common::wire::problem::ErrorCode;
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio_util::sync::CancellationToken;

use super::missing::not_found;
use crate::answer::{Answer, empty};
use crate::auth::{AuthError, Caller, ServicePrincipal};
use crate::documents::invalid;
use crate::initiation::{Accepted, Ask, Initiate, Refused};
use crate::legs::{ExpectRefused, Grant, Opener};
use crate::pending::AskRefused;
use crate::refusal::Refusal;
use crate::registry::Identities;

/// What a service wants: a stream to this device or module, by this name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The device or module.
    pub identity: DeviceIdentity,
    /// The stream's name, by which the device chooses its target.
    pub name: StreamName,
}

/// What comes with a call.
#[derive(Clone)]
pub struct Input<'a> {
    /// Where the connection comes from.
    pub peer: SocketAddr,
    /// All headers.
    pub headers: &'a HeaderMap,
    /// What an approver has granted, if the stream ends with that.
    pub grant: Option<Grant>,
}

/// Serves one call. Dropping the future gives the stream up.
///
/// # Errors
/// [`Refusal`] with the status and code that SDKs expect; 503001 as soon as `stop` is cancelled.
pub async fn handle(
    hub: &impl Initiate,
    registry: &dyn Identities,
    caller: &Caller,
    call: Call,
    input: Input<'_>,
    stop: &CancellationToken,
) -> Result<Answer, Refusal> {
    let Caller::Service(principal) = caller else {
        // The router lets only services come here.
        return Err(AuthError::Permission.into_refusal());
    };
    tokio::select! {
        // What waits is given up next, and would look like a device that has gone.
        biased;
        () = stop.cancelled() => Err(Refusal::new(
            ErrorCode::SERVICE_UNAVAILABLE,
            "the hub is stopping",
        )),
        answer = initiate(hub, registry, principal, call, input) => answer,
    }
}

async fn initiate(
    hub: &impl Initiate,
    registry: &dyn Identities,
    principal: &ServicePrincipal,
    call: Call,
    input: Input<'_>,
) -> Result<Answer, Refusal> {
    let Call { identity, name } = call;
    let Input {
        peer,
        headers,
        grant,
    } = input;
    let timeouts = Timeouts::from_headers(headers).map_err(|error| invalid(error.to_string()))?;
    if registry.identity(&identity).await?.is_none() {
        return Err(not_found(&identity));
    }
    let ask = Ask {
        identity,
        name,
        opener: Opener {
            policy: principal.policy.clone(),
            peer,
            person: principal.person.clone(),
            token: principal.token.clone(),
            login: principal.login.clone(),
            grant,
        },
        timeouts,
    };
    let mut answer = empty(StatusCode::OK);
    let headers = answer.headers_mut();
    match hub.initiate(ask).await {
        Ok(Accepted { url, token, .. }) => {
            let value = |text: &str| {
                HeaderValue::from_str(text)
                    .map_err(|_| Refusal::new(ErrorCode::SERVER_ERROR, "the URL cannot be sent"))
            };
            headers.insert(initiation::IS_ACCEPTED, HeaderValue::from_static("True"));
            headers.insert(initiation::URL, value(&url)?);
            let mut token = value(token.expose())?;
            token.set_sensitive(true);
            headers.insert(initiation::AUTH_TOKEN, token);
        }
        Err(Refused::Rejected(_)) => {
            headers.insert(initiation::IS_ACCEPTED, HeaderValue::from_static("False"));
        }
        Err(refused) => return Err(refusal(&refused)),
    }
    Ok(answer)
}

fn refusal(refused: &Refused) -> Refusal {
    let code = match refused {
        Refused::Legs(ExpectRefused::TooMany(over)) => return Refusal::from(*over),
        Refused::NotOnline => ErrorCode::DEVICE_NOT_ONLINE,
        Refused::NoAnswer => ErrorCode::GATEWAY_TIMEOUT,
        Refused::Legs(ExpectRefused::Stopping)
        | Refused::Pending(AskRefused::Stopping)
        | Refused::Audit(_) => ErrorCode::SERVICE_UNAVAILABLE,
        Refused::Pending(AskRefused::TooMany(over)) => return Refusal::from(*over),
        Refused::Revoked(token) => return AuthError::Revoked(token.to_string()).into_refusal(),
        Refused::Registry(error) => return Refusal::from(error.clone()),
        Refused::Rejected(_) | Refused::NotSigned => ErrorCode::SERVER_ERROR,
    };
    Refusal::new(code, refused.to_string())
}
