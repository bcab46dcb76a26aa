//! Twins as JSON documents (`docs/protocol.md`, "Twins"), as services read them.

use common::identity::ModuleId;
use serde_json::{Map, Value, json};

use super::{connection_state, family, status_updated, thumbprints, time};
use crate::query::Fields;
use crate::registry::{Activity, DeviceTwin, Section};

/// The whole document; `activity` is the identity's as the hub's process knows it.
pub fn write(whole: &DeviceTwin, activity: Activity) -> Value {
    part(whole.clone(), activity, &Fields::all())
}

/// The same with these fields, and possibly others beside them in the same objects. Nothing else
/// of the twin is looked at.
pub fn part(whole: DeviceTwin, activity: Activity, fields: &Fields) -> Value {
    let DeviceTwin { identity, twin } = whole;
    let mut document = Map::new();
    let mut set = |name: &str, value: &mut dyn FnMut() -> Value| {
        if fields.has(name) {
            document.insert(name.to_owned(), value());
        }
    };
    set("deviceId", &mut || identity.id.device.as_str().into());
    if let Some(module) = identity.id.module.as_ref().map(ModuleId::as_str) {
        set("moduleId", &mut || module.into());
    }
    set("etag", &mut || twin.etag.as_str().into());
    set("deviceEtag", &mut || identity.etag.as_str().into());
    set("status", &mut || identity.status.as_str().into());
    if let Some(reason) = &identity.status_reason {
        set("statusReason", &mut || reason.as_str().into());
    }
    set("statusUpdateTime", &mut || status_updated(&identity).into());
    set("connectionState", &mut || connection_state(activity).into());
    set("connectionStateUpdatedTime", &mut || {
        time(activity.connection_state_updated).into()
    });
    set("lastActivityTime", &mut || {
        time(activity.last_activity).into()
    });
    set("cloudToDeviceMessageCount", &mut || {
        identity.messages.into()
    });
    set("authenticationType", &mut || {
        identity.authentication.kind().into()
    });
    set("x509Thumbprint", &mut || {
        thumbprints(&identity.authentication)
    });
    set("version", &mut || twin.version.into());
    if FAMILY.iter().any(|name| fields.has(name)) {
        family(&identity, |name, value| set(name, &mut || value.clone()));
    }
    let (mut tags, mut desired, mut reported) = (twin.tags, twin.desired, twin.reported);
    set("tags", &mut || std::mem::take(&mut tags).into());
    if let Some(properties) = fields.get("properties") {
        let mut sections = Map::new();
        for (name, section) in [("desired", &mut desired), ("reported", &mut reported)] {
            if let Some(fields) = properties.get(name) {
                sections.insert(name.to_owned(), self::section(section, fields));
            }
        }
        set("properties", &mut || std::mem::take(&mut sections).into());
    }
    document.into()
}

/// Whether these fields need the identity's activity.
pub fn needs_activity(fields: &Fields) -> bool {
    const ACTIVITY: &[&str] = &[
        "connectionState",
        "connectionStateUpdatedTime",
        "lastActivityTime",
    ];
    ACTIVITY.iter().any(|name| fields.has(name))
}

/// What [`family`] sets.
const FAMILY: &[&str] = &["capabilities", "deviceScope", "parentScopes"];

fn section(section: &mut Section, fields: &Fields) -> Value {
    let mut document = std::mem::take(&mut section.properties);
    if fields.has("$metadata") {
        let metadata = std::mem::take(&mut section.metadata);
        document.insert("$metadata".to_owned(), metadata.into());
    }
    if fields.has("$version") {
        document.insert("$version".to_owned(), json!(section.version));
    }
    document.into()
}
