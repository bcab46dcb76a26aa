//! What a device asks of its twin, and the answer as an MQTT packet.

use common::identity::{DeviceIdentity, RequestId};
use common::mqtt;
use common::wire::problem::ErrorCode;
use common::wire::twin::TwinResponse;
use serde_json::{Value, json};

use crate::api::answer::Refusal;
use crate::registry::{Registry, RegistryError, TwinPatch};

/// Reads the twin of this identity: 200 with the document, or a refusal.
pub(super) async fn get(
    registry: &dyn Registry,
    identity: &DeviceIdentity,
    request_id: RequestId,
) -> Option<Vec<u8>> {
    let read = async {
        let twin = registry.twin(identity).await?;
        let twin = twin.ok_or_else(|| RegistryError::NotFound(identity.clone()))?;
        Ok(twin.for_device())
    };
    match read.await {
        Ok(document) => {
            let response = TwinResponse {
                request_id,
                status: 200,
                version: None,
            };
            publish(&response, Some(&document))
        }
        Err(error) => refuse(identity, request_id, error),
    }
}

/// Merges a patch into the reported properties of this identity: 204 with their new
/// version, or a refusal.
pub(super) async fn patch_reported(
    registry: &dyn Registry,
    identity: &DeviceIdentity,
    request_id: RequestId,
    body: &[u8],
) -> Option<Vec<u8>> {
    let patched = async {
        let patch = TwinPatch::parse(body)?;
        registry.patch_reported(identity, patch).await
    };
    match patched.await {
        Ok(version) => {
            tracing::debug!(device = %identity, version, "reported properties");
            let response = TwinResponse {
                request_id,
                status: 204,
                version: Some(version),
            };
            publish(&response, None)
        }
        Err(error) => refuse(identity, request_id, error),
    }
}

/// One SDK ignores the status: it looks for `errorCode` in the body.
fn refuse(
    identity: &DeviceIdentity,
    request_id: RequestId,
    error: RegistryError,
) -> Option<Vec<u8>> {
    let Refusal { code, message } = error.into();
    tracing::debug!(device = %identity, code = code.number, "twin request refused: {message}");
    let ErrorCode { number, .. } = code;
    let response = TwinResponse {
        request_id,
        status: code.status().as_u16(),
        version: None,
    };
    let body = json!({ "errorCode": number, "message": message });
    publish(&response, Some(&body))
}

fn publish(response: &TwinResponse, body: Option<&Value>) -> Option<Vec<u8>> {
    let body = body.map(Value::to_string).unwrap_or_default();
    mqtt::publish_with(&response.to_topic(), body.as_bytes())
        .inspect_err(|error| tracing::error!("a twin answer cannot be written: {error:?}"))
        .ok()
}
