//! Twins as JSON documents (`docs/protocol.md`, "Twins"), as services read them.

use common::identity::ModuleId;
use serde_json::{Value, json};

use super::{connection_state, family, status_updated, thumbprints, time};
use crate::registry::{Activity, DeviceTwin, Metadata};

/// The whole document; `activity` is the identity's as the hub's process knows it.
pub fn write(whole: &DeviceTwin, activity: Activity) -> Value {
    let DeviceTwin { identity, twin } = whole;
    let mut document = json!({
        "deviceId": identity.id.device.as_str(),
        "etag": twin.etag,
        "deviceEtag": identity.etag,
        "status": identity.status.as_str(),
        "statusUpdateTime": status_updated(identity),
        "connectionState": connection_state(activity),
        "connectionStateUpdatedTime": time(activity.connection_state_updated),
        "lastActivityTime": time(activity.last_activity),
        "cloudToDeviceMessageCount": 0,
        "authenticationType": identity.authentication.kind(),
        "x509Thumbprint": thumbprints(&identity.authentication),
        "version": twin.version,
        "tags": twin.tags,
        "properties": {
            "desired": twin.desired.document(Metadata::Shown),
            "reported": twin.reported.document(Metadata::Shown),
        },
    });
    let Some(fields) = document.as_object_mut() else {
        return document;
    };
    let mut set = |name: &str, value: Value| drop(fields.insert(name.to_owned(), value));
    if let Some(reason) = &identity.status_reason {
        set("statusReason", reason.as_str().into());
    }
    if let Some(module) = identity.id.module.as_ref().map(ModuleId::as_str) {
        set("moduleId", module.into());
    }
    family(identity, set);
    document
}
