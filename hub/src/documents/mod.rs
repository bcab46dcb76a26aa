//! Identities as JSON documents (`docs/protocol.md`, "Identities"), from the registry's types. The
//! REST API and the command line's `--json` share it.

pub mod approval;
pub mod job;
pub mod method;
pub mod twin;

use common::identity::{DeviceId, DeviceIdentity, ModuleId};
use common::wire::problem::ErrorCode;
use serde_json::{Value, json};

use crate::iso8601;
use crate::refusal::Refusal;
use crate::registry::{Activity, Authentication, Identity, Thumbprint};

/// Whether a document carries keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    /// It does: for who may read identities.
    Shown,
    /// They are left out: for lists on a terminal.
    LeftOut,
}

/// The document of a device or a module. `present` is its activity as the hub's process
/// knows it; `None` outside of that, where the connection state is not known: that field is
/// then left out, and the times are those that have been stored.
pub fn write(identity: &Identity, present: Option<Activity>, keys: Keys) -> Value {
    let activity = present.unwrap_or(identity.activity);
    let mut document = json!({
        "deviceId": identity.id.device.as_str(),
        "generationId": identity.generation_id,
        "etag": identity.etag,
        "connectionStateUpdatedTime": time(activity.connection_state_updated),
        "lastActivityTime": time(activity.last_activity),
        "cloudToDeviceMessageCount": identity.messages,
        "authentication": authentication(&identity.authentication, keys),
    });
    let Some(fields) = document.as_object_mut() else {
        return document;
    };
    let mut set = |name: &str, value: Value| drop(fields.insert(name.to_owned(), value));
    if let Some(present) = present {
        set("connectionState", connection_state(present).into());
    }
    match &identity.id.module {
        // IoT Hub gives modules no status and no capabilities of their own.
        Some(module) => {
            set("moduleId", module.as_str().into());
            set("managedBy", identity.managed_by.clone().into());
        }
        None => {
            set("status", identity.status.as_str().into());
            set("statusReason", identity.status_reason.clone().into());
            set("statusUpdatedTime", status_updated(identity).into());
        }
    }
    family(identity, set);
    document
}

/// What a device can, and where it belongs: in its identity and in its twin.
pub(super) fn family(identity: &Identity, mut set: impl FnMut(&str, Value)) {
    if identity.id.module.is_some() {
        return;
    }
    set("capabilities", json!({ "iotEdge": identity.iot_edge }));
    if let Some(scope) = &identity.device_scope {
        set("deviceScope", scope.as_str().into());
    }
    if !identity.parent_scopes.is_empty() {
        set("parentScopes", identity.parent_scopes.clone().into());
    }
}

/// IoT Hub's word for whether an identity holds a hub session.
pub(super) fn connection_state(activity: Activity) -> &'static str {
    if activity.connected {
        "Connected"
    } else {
        "Disconnected"
    }
}

/// When the status last changed, as IoT Hub writes it.
pub(super) fn status_updated(identity: &Identity) -> String {
    time(
        identity
            .status_updated
            .map(|at| at.saturating_mul(1_000_000)),
    )
}

/// A time of an identity, Unix microseconds, as IoT Hub writes it.
pub(super) fn time(at: Option<u64>) -> String {
    iso8601::from_unix_micros(at)
}

fn authentication(authentication: &Authentication, keys: Keys) -> Value {
    let (mut primary_key, mut secondary_key) = (Value::Null, Value::Null);
    if let Authentication::Sas { primary, secondary } = authentication
        && keys == Keys::Shown
    {
        primary_key = primary.to_base64().expose().into();
        secondary_key = secondary.to_base64().expose().into();
    }
    let mut document = json!({
        "x509Thumbprint": thumbprints(authentication),
        "type": authentication.kind(),
    });
    if keys == Keys::Shown
        && let Some(fields) = document.as_object_mut()
    {
        fields.insert(
            "symmetricKey".to_owned(),
            json!({ "primaryKey": primary_key, "secondaryKey": secondary_key }),
        );
    }
    document
}

/// The thumbprints of an identity's certificates; null where there are none.
pub(super) fn thumbprints(authentication: &Authentication) -> Value {
    let (primary, secondary) = match authentication {
        Authentication::SelfSigned { primary, secondary } => (primary.as_ref(), secondary.as_ref()),
        _ => (None, None),
    };
    json!({
        "primaryThumbprint": primary.map(Thumbprint::as_str),
        "secondaryThumbprint": secondary.map(Thumbprint::as_str),
    })
}

/// Reads the ids of an identity.
///
/// # Errors
/// 400004 says which rule an id breaks.
pub fn id(device: &str, module: Option<&str>) -> Result<DeviceIdentity, Refusal> {
    let refusal = |error| invalid(format!("Bad id: {error}."));
    Ok(DeviceIdentity {
        device: DeviceId::parse(device).map_err(refusal)?,
        module: module.map(ModuleId::parse).transpose().map_err(refusal)?,
    })
}

/// A value is outside its range or grammar.
pub fn invalid(message: String) -> Refusal {
    Refusal::new(ErrorCode::ARGUMENT_INVALID, message)
}

#[cfg(test)]
mod tests;
