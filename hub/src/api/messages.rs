//! Messages over REST (`docs/protocol.md`, "Messages"): to a device, from a device, and what
//! devices have sent lately. Who may call is judged before.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use common::identity::{DeviceId, DeviceIdentity, ModuleId};
use common::wire::message::{self, Properties};
use common::wire::problem::ErrorCode;
use http::{HeaderMap, StatusCode, header};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::paging::given;
use crate::answer::{Answer, empty, json as answer};
use crate::auth::{AuthError, Caller};
use crate::documents::invalid;
use crate::iso8601;
use crate::limits;
use crate::refusal::Refusal;
use crate::registry::{Messages, NewMessage, activity};
use crate::state::HubState;
use crate::telemetry::{Telemetry, TelemetryCursor};

/// What a caller wants of messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// `POST` of a message to a device. IoT Hub takes them over AMQP only.
    Send(DeviceId),
    /// `DELETE` of a device's queue.
    Purge(DeviceId),
    /// `POST` of telemetry, by the device itself.
    Report(DeviceIdentity),
    /// `GET` of what devices have sent lately.
    Recent,
}

/// Serves one call. May be dropped; a change that has begun is then carried out all the same.
///
/// # Errors
/// [`Refusal`] of the registry's family.
pub async fn handle(
    state: &HubState,
    caller: &Caller,
    call: Call,
    query: &str,
    headers: &HeaderMap,
    body: Bytes,
    stop: &CancellationToken,
) -> Result<Answer, Refusal> {
    match call {
        Call::Send(device) => {
            let message = read(&device, headers, body)?;
            let registry: &dyn Messages = &*state.registry;
            registry
                .send_message(&device, message, activity::now())
                .await?;
            state
                .presence
                .message_sent(&DeviceIdentity::of_device(device));
            Ok(empty(StatusCode::NO_CONTENT))
        }
        Call::Purge(device) => {
            let purged = state.registry.purge_messages(&device).await?;
            Ok(answer(&json!({
                "totalMessagesPurged": purged,
                "deviceId": device.as_str(),
                "moduleId": null,
            })))
        }
        Call::Report(identity) => {
            if !matches!(caller, Caller::Device(_)) {
                return Err(AuthError::Permission.into_refusal());
            }
            check_size(&body, limits::TELEMETRY)?;
            let properties = properties(headers)?.to_text();
            let now = activity::now();
            state.telemetry.push(&identity, properties, body, now);
            Ok(empty(StatusCode::NO_CONTENT))
        }
        Call::Recent => tokio::select! {
            recent = recent(state, query) => recent,
            () = stop.cancelled() => Err(Refusal::new(
                ErrorCode::SERVICE_UNAVAILABLE,
                "the hub is stopping",
            )),
        },
    }
}

fn check_size(body: &Bytes, most: usize) -> Result<(), Refusal> {
    if body.len() <= most {
        return Ok(());
    }
    Err(Refusal::new(
        ErrorCode::MESSAGE_TOO_LARGE,
        format!("The message is larger than {most} bytes."),
    ))
}

/// A message to a device, from a request.
fn read(device: &DeviceId, headers: &HeaderMap, body: Bytes) -> Result<NewMessage, Refusal> {
    check_size(&body, limits::MESSAGE)?;
    let mut properties = properties(headers)?;
    let now = activity::now();
    let expires = match properties.get(message::EXPIRY) {
        None => now.saturating_add(micros(limits::MESSAGE_LIFE)),
        Some(text) => {
            let time = OffsetDateTime::parse(text, &Rfc3339).ok();
            let time = time.ok_or_else(|| {
                invalid("iothub-expiry is no time, as 2026-01-31T12:00:00Z is one.".to_owned())
            })?;
            let at = time.unix_timestamp_nanos().max(0) / 1_000;
            let at = u64::try_from(at).unwrap_or(u64::MAX);
            at.min(now.saturating_add(micros(limits::MESSAGE_LIFE_MOST)))
        }
    };
    let own = format!("/devices/{device}/messages/devicebound");
    properties.set(message::TO, &own);
    let properties = properties.to_text();
    if properties.len() > limits::MESSAGE_PROPERTIES {
        return Err(Refusal::new(
            ErrorCode::MESSAGE_TOO_LARGE,
            format!(
                "The properties are larger than {} bytes.",
                limits::MESSAGE_PROPERTIES
            ),
        ));
    }
    Ok(NewMessage {
        properties,
        payload: body,
        expires,
    })
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The properties of a message, from the headers of a request, as IoT Hub has them over HTTPS.
fn properties(headers: &HeaderMap) -> Result<Properties, Refusal> {
    let mut properties = Properties::default();
    for (name, value) in headers {
        let Some(property) = message::property_of_header(name.as_str()) else {
            continue;
        };
        let value = value.to_str().map_err(|_| {
            invalid(format!(
                "The header {name} has characters other than ASCII."
            ))
        })?;
        properties.set(&property, value);
    }
    for (header, property) in [
        (header::CONTENT_TYPE, message::CONTENT_TYPE),
        (header::CONTENT_ENCODING, message::CONTENT_ENCODING),
    ] {
        if let Some(value) = headers.get(header).and_then(|value| value.to_str().ok()) {
            properties.set(property, value);
        }
    }
    Ok(properties)
}

/// `GET /messages/events?deviceId=…&after=…&wait=…`.
async fn recent(state: &HubState, query: &str) -> Result<Answer, Refusal> {
    let device = given(query, "deviceId")
        .map(|text| DeviceId::parse(&text).map_err(|error| invalid(format!("Bad id: {error}."))))
        .transpose()?;
    let after = given(query, "after")
        .map(|text| {
            TelemetryCursor::parse(&text).ok_or_else(|| invalid("after is no cursor.".to_owned()))
        })
        .transpose()?;
    let wait = match given(query, "wait") {
        None => 0,
        Some(text) => text
            .parse()
            .ok()
            .filter(|seconds| *seconds <= limits::TELEMETRY_WAIT)
            .ok_or_else(|| {
                invalid(format!(
                    "wait must be a number of seconds from 0 to {}.",
                    limits::TELEMETRY_WAIT
                ))
            })?,
    };
    let until = Instant::now() + Duration::from_secs(wait);
    let most = limits::TELEMETRY_PAGE;
    let page = state
        .telemetry
        .read(after, device.as_ref(), most, until)
        .await;
    let messages: Vec<Value> = page.messages.iter().map(document).collect();
    Ok(answer(&json!({
        "messages": messages,
        "next": page.next.to_text(),
        "lost": page.lost,
    })))
}

/// A message as it is shown: its body as JSON, if it is JSON, else in base64.
fn document(message: &Telemetry) -> Value {
    let properties = Properties::from_text(&message.properties);
    let (system, own): (BTreeMap<_, _>, BTreeMap<_, _>) = properties
        .iter()
        .partition(|(name, _)| name.starts_with('$') || name.starts_with("iothub-"));
    let identity = &message.identity;
    let mut document = json!({
        "sequence": message.sequence,
        "enqueuedTime": iso8601::from_unix_micros(Some(message.enqueued)),
        "deviceId": identity.device.as_str(),
        "moduleId": identity.module.as_ref().map(ModuleId::as_str),
        "properties": own,
        "systemProperties": system,
        "contentType": properties.get(message::CONTENT_TYPE),
    });
    let text = str::from_utf8(&message.payload).ok();
    let json = text.filter(|text| serde_json::from_str::<&RawValue>(text).is_ok());
    let body = json.and_then(|text| serde_json::from_str::<Value>(text).ok());
    let (name, value) = match body {
        Some(body) => ("body", body),
        None => ("bodyBase64", STANDARD.encode(&message.payload).into()),
    };
    if let Some(fields) = document.as_object_mut() {
        fields.insert(name.to_owned(), value);
    }
    document
}
