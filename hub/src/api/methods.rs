//! Direct methods over REST (`docs/protocol.md`, "Direct methods"): a call waits for the device's
//! answer. Who may call is judged before.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use common::identity::{DeviceIdentity, MethodName};
use common::wire::problem::ErrorCode;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use super::draft;
use super::missing::not_found;
use crate::answer::{Answer, json_text};
use crate::auth::{AuthError, Caller};
use crate::documents::invalid;
use crate::invocation::{Invocation, Invoke, MethodCaller, NotInvoked};
use crate::limits;
use crate::pending::{AskRefused, MethodAnswer};
use crate::refusal::Refusal;
use crate::registry::Identities;

/// What a service wants: that this device or module carries out a method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The device or module.
    pub identity: DeviceIdentity,
}

/// A method as a client writes it, in a call and in a job.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MethodDraft {
    method_name: String,
    #[serde(default)]
    payload: Option<Box<RawValue>>,
    #[serde(default)]
    response_timeout_in_seconds: Option<u64>,
    #[serde(default)]
    connect_timeout_in_seconds: Option<u64>,
}

/// What is to be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Method {
    /// The method.
    pub name: MethodName,
    /// JSON.
    pub payload: Bytes,
    /// How long the device may take to connect.
    pub connect: Duration,
    /// How long it may take to answer.
    pub response: Duration,
}

impl MethodDraft {
    /// Checks it.
    ///
    /// # Errors
    /// 400004 for a bad name or time, 413001 for a payload that is too large.
    pub fn read(self) -> Result<Method, Refusal> {
        let name = MethodName::parse(&self.method_name)
            .map_err(|error| invalid(format!("methodName cannot be used: {error}.")))?;
        let payload = self.payload.as_deref().map_or("null", RawValue::get);
        if payload.len() > limits::METHOD_PAYLOAD {
            return Err(Refusal::new(
                ErrorCode::MESSAGE_TOO_LARGE,
                format!(
                    "The payload is larger than {} bytes.",
                    limits::METHOD_PAYLOAD
                ),
            ));
        }
        let seconds = |given: Option<u64>, least, default, name| match given {
            None => Ok(Duration::from_secs(default)),
            Some(given) if (least..=limits::METHOD_SECONDS).contains(&given) => {
                Ok(Duration::from_secs(given))
            }
            Some(_) => Err(invalid(format!(
                "{name} must be a number from {least} to {}.",
                limits::METHOD_SECONDS
            ))),
        };
        Ok(Method {
            name,
            payload: Bytes::copy_from_slice(payload.as_bytes()),
            connect: seconds(
                self.connect_timeout_in_seconds,
                0,
                0,
                "connectTimeoutInSeconds",
            )?,
            response: seconds(
                self.response_timeout_in_seconds,
                5,
                30,
                "responseTimeoutInSeconds",
            )?,
        })
    }
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
        answer = hub.invoke(&call) => answer,
        () = stop.cancelled() => Err(NotInvoked::Pending(AskRefused::Stopping)),
    };
    let answer = answer.map_err(refusal)?;
    let payload = payload(&answer)?;
    let status = answer.status;
    Ok(json_text(format!(
        r#"{{"status":{status},"payload":{payload}}}"#
    )))
}

/// The payload of an answer as JSON; nothing is null.
///
/// # Errors
/// 502000 when the device does not answer in JSON.
pub fn payload(answer: &MethodAnswer) -> Result<&str, Refusal> {
    if answer.payload.is_empty() {
        return Ok("null");
    }
    let text = str::from_utf8(&answer.payload).ok();
    let json = text.and_then(|text| serde_json::from_str::<&RawValue>(text).ok());
    json.map(RawValue::get).ok_or_else(|| {
        Refusal::new(
            ErrorCode::BAD_DEVICE_RESPONSE,
            "The device answered with a payload that is not JSON.",
        )
    })
}

/// What a service is told when there is no answer.
pub fn refusal(error: NotInvoked) -> Refusal {
    let code = match error {
        NotInvoked::NotOnline => ErrorCode::DEVICE_NOT_ONLINE,
        NotInvoked::NoAnswer => ErrorCode::GATEWAY_TIMEOUT,
        NotInvoked::Pending(AskRefused::TooMany) => ErrorCode::THROTTLING,
        NotInvoked::Pending(AskRefused::Stopping) => ErrorCode::SERVICE_UNAVAILABLE,
    };
    Refusal::new(code, error.to_string())
}
