//! Stream initiation: ask the device, wait, answer with the streaming endpoint or
//! the refusal (`device-streams.md` section 2).

use std::net::SocketAddr;

use common::clock::unix_now;
use common::identity::{DeviceIdentity, Leg, StreamId, StreamName};
use common::limits;
use common::telemetry::AUDIT;
use common::wire::initiation::{self, Timeouts};
use common::wire::problem::ErrorCode;
use common::wire::stream::Initiator;
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::sync::watch;
use tokio::time::{Duration, Instant, timeout_at};

use crate::answer::{Answer, empty};
use crate::auth::{Permission, ServicePrincipal};
use crate::refusal::Refusal;
use crate::rendezvous::{Busy, DeviceEndpoint, Progress};
use crate::state::HubState;
use crate::streaming;

/// What a stream initiation demands.
pub const NEEDS: Permission = Permission::ServiceConnect;

/// Runs a stream initiation. Dropping the future gives the stream up.
///
/// # Errors
/// [`Refusal`] with the status and code that SDKs expect.
pub async fn initiate(
    state: &HubState,
    principal: &ServicePrincipal,
    peer: SocketAddr,
    identity: &DeviceIdentity,
    name: &str,
    headers: &HeaderMap,
) -> Result<Answer, Refusal> {
    let name = StreamName::parse(name).map_err(invalid)?;
    let timeouts = Timeouts::from_headers(headers).map_err(invalid)?;
    if state.registry.identity(identity).await?.is_none() {
        return Err(not_found(identity));
    }
    let started = Instant::now();
    let stream = StreamId::random();
    let token_until =
        unix_now() + limits::STREAM_HANDSHAKE.as_secs() + limits::LEG_ARRIVAL.as_secs();
    let mint = |leg| {
        state
            .tokens
            .mint(stream, leg, token_until)
            .map_err(|_| Refusal::new(ErrorCode::SERVER_ERROR, "the stream token cannot be made"))
    };
    let endpoint = DeviceEndpoint {
        url: streaming::url(&state.address, identity, stream, Leg::Device),
        token: mint(Leg::Device)?,
    };
    let service_token = mint(Leg::Service)?;
    // So that a device can share what it has among those who want it.
    let initiator = Initiator {
        ip: peer.ip().to_canonical(),
        policy: principal.policy.clone(),
    };
    let mut opening = state
        .rendezvous
        .open(stream, identity, &name, endpoint, initiator)
        .map_err(busy)?;
    state.presence.wake(identity);
    let wait = Wait {
        state,
        identity,
        total: started + limits::STREAM_HANDSHAKE,
    };
    wait.for_device(&mut opening.progress, started + timeouts.connect)
        .await?;
    let accepted = wait
        .for_answer(&mut opening.progress, timeouts.response)
        .await?;
    let policy = &principal.policy;
    if accepted {
        tracing::info!(name: AUDIT, device = %identity, %name, %stream, policy, %peer, "stream accepted");
    } else {
        tracing::info!(device = %identity, %name, %stream, policy, %peer, "stream rejected");
    }
    let mut answer = empty(StatusCode::OK);
    let headers = answer.headers_mut();
    headers.insert(
        initiation::IS_ACCEPTED,
        HeaderValue::from_static(if accepted { "True" } else { "False" }),
    );
    if accepted {
        let url = streaming::url(&state.address, identity, stream, Leg::Service);
        let value = |text: &str| {
            HeaderValue::from_str(text)
                .map_err(|_| Refusal::new(ErrorCode::SERVER_ERROR, "the URL cannot be sent"))
        };
        headers.insert(initiation::URL, value(&url)?);
        let mut token = value(service_token.expose())?;
        token.set_sensitive(true);
        headers.insert(initiation::AUTH_TOKEN, token);
    }
    Ok(answer)
}

struct Wait<'a> {
    state: &'a HubState,
    identity: &'a DeviceIdentity,
    /// The end of the whole handshake.
    total: Instant,
}

impl Wait<'_> {
    /// Waits for the device to take the request, until the connect timeout.
    async fn for_device(
        &self,
        progress: &mut watch::Receiver<Progress>,
        until: Instant,
    ) -> Result<(), Refusal> {
        if self.state.presence.is_subscribed(self.identity) {
            return Ok(());
        }
        let taken = progress.wait_for(|progress| *progress != Progress::Waiting);
        let waited = timeout_at(until.min(self.total), taken).await;
        // A session that is busy or slow to take it is there all the same.
        if waited.is_ok() || self.state.presence.is_subscribed(self.identity) {
            Ok(())
        } else {
            Err(not_online())
        }
    }

    /// Waits for the device's answer: `true` for an accept.
    async fn for_answer(
        &self,
        progress: &mut watch::Receiver<Progress>,
        response: Duration,
    ) -> Result<bool, Refusal> {
        let until = (Instant::now() + response).min(self.total);
        let answered = progress
            .wait_for(|progress| !matches!(progress, Progress::Waiting | Progress::Delivered));
        let end = match timeout_at(until, answered).await {
            Ok(Ok(progress)) => Some(*progress),
            Ok(Err(_)) => Some(Progress::Ended),
            Err(_) => None,
        };
        match end {
            Some(Progress::Accepted) => Ok(true),
            Some(Progress::Rejected) => Ok(false),
            Some(_) => Err(not_online()),
            None => Err(Refusal::new(
                ErrorCode::GATEWAY_TIMEOUT,
                "Timed out waiting for the response from device.",
            )),
        }
    }
}

fn not_online() -> Refusal {
    Refusal::new(
        ErrorCode::DEVICE_NOT_ONLINE,
        "Timed out waiting for device to connect.",
    )
}

fn not_found(identity: &DeviceIdentity) -> Refusal {
    match &identity.module {
        None => Refusal::new(
            ErrorCode::DEVICE_NOT_FOUND,
            format!("Device {} not registered", identity.device),
        ),
        Some(_) => Refusal::new(
            ErrorCode::MODULE_NOT_FOUND,
            format!("Module {identity} not registered"),
        ),
    }
}

fn invalid(error: impl std::fmt::Display) -> Refusal {
    Refusal::new(ErrorCode::ARGUMENT_INVALID, error.to_string())
}

fn busy(busy: Busy) -> Refusal {
    let code = match busy {
        Busy::Hub | Busy::Device => ErrorCode::THROTTLING,
        Busy::Stopping => ErrorCode::SERVICE_UNAVAILABLE,
    };
    Refusal::new(code, busy.to_string())
}
