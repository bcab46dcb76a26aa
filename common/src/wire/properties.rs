//! Properties at the end of MQTT topics: `?name=value&name=value`.

use crate::identity::RequestId;
use crate::percent::pairs;

/// The value of one property, not decoded. The `?` before the first may be missing.
pub(super) fn property<'a>(properties: &'a str, name: &str) -> Option<&'a str> {
    let properties = properties.strip_prefix('?').unwrap_or(properties);
    pairs(properties).find_map(|(key, value)| (key == name).then_some(value))
}

/// `$rid`; `None` also when it is not valid in the topic of an answer.
pub(super) fn request_id(properties: &str) -> Option<RequestId> {
    RequestId::parse(property(properties, "$rid")?)
}
