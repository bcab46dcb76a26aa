//! Messages in either direction: their topics, and their properties, which stand at a topic's end
//! as `name=value&name=value`, both percent-encoded.

use percent_encoding::{percent_decode_str, utf8_percent_encode};

use crate::identity::DeviceId;
use crate::percent::TOPIC_VALUE;

/// The system property of a message's id.
pub const MESSAGE_ID: &str = "$.mid";
/// Of the id of the message that it belongs to.
pub const CORRELATION_ID: &str = "$.cid";
/// Of who it is for.
pub const TO: &str = "$.to";
/// Of who has sent it, in the sender's words.
pub const USER_ID: &str = "$.uid";
/// Of when it is of no more use, ISO 8601.
pub const EXPIRY: &str = "$.exp";
/// Of the media type of its body.
pub const CONTENT_TYPE: &str = "$.ct";
/// Of the encoding of its body.
pub const CONTENT_ENCODING: &str = "$.ce";
/// Of the feedback that the service wants.
pub const ACK: &str = "iothub-ack";

/// The headers of IoT Hub's HTTPS API for messages, and what they stand for.
const HEADERS: &[(&str, &str)] = &[
    ("iothub-messageid", MESSAGE_ID),
    ("iothub-correlationid", CORRELATION_ID),
    ("iothub-userid", USER_ID),
    ("iothub-expiry", EXPIRY),
    ("iothub-contenttype", CONTENT_TYPE),
    ("iothub-contentencoding", CONTENT_ENCODING),
    ("iothub-ack", ACK),
];
/// Before the name of a property of the sender's own. Names of headers have no case.
const OWN_HEADER: &str = "iothub-app-";

/// The property that a header, in lower case, stands for.
pub fn property_of_header(name: &str) -> Option<String> {
    if let Some(own) = name.strip_prefix(OWN_HEADER) {
        return (!own.is_empty()).then(|| own.to_owned());
    }
    let known = HEADERS.iter().find(|(header, _)| *header == name);
    known.map(|(_, property)| (*property).to_owned())
}

/// The topic of a message to a device, with its properties as they stand there.
pub fn devicebound_topic(device: &DeviceId, properties: &str) -> String {
    format!("devices/{device}/messages/devicebound/{properties}")
}

/// The properties of a message, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Properties(Vec<(String, String)>);

impl Properties {
    /// Reads properties from the end of a topic; what is not UTF-8 is read with replacements. A `?`
    /// may stand before the first. One without `=` has no value.
    pub fn from_text(text: &str) -> Self {
        let decode = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
        let text = text.strip_prefix('?').unwrap_or(text);
        let pairs = text
            .trim_end_matches('/')
            .split('&')
            .filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        });
        Self(pairs.collect())
    }

    /// Writes them for the end of a topic. A property without a value has its `=` all the same:
    /// SDKs misread it otherwise.
    pub fn to_text(&self) -> String {
        let encode = |part: &str| utf8_percent_encode(part, TOPIC_VALUE).to_string();
        let pairs = self.0.iter();
        let pairs = pairs.map(|(name, value)| format!("{}={}", encode(name), encode(value)));
        pairs.collect::<Vec<_>>().join("&")
    }

    /// The value of a property.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(own, _)| own == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Sets a property, which takes the place of one of this name.
    pub fn set(&mut self, name: &str, value: &str) {
        match self.0.iter_mut().find(|(own, _)| own == name) {
            Some((_, own)) => value.clone_into(own),
            None => self.0.push((name.to_owned(), value.to_owned())),
        }
    }

    /// Names and values, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.0.iter();
        pairs.map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_documentations_example() {
        let properties =
            Properties::from_text("/?prop1&prop2=&prop3=a%20string".trim_start_matches('/'));
        let all: Vec<_> = properties.iter().collect();
        assert_eq!(all, [("prop1", ""), ("prop2", ""), ("prop3", "a string")]);
        assert_eq!(properties.to_text(), "prop1=&prop2=&prop3=a%20string");
        let mut properties = Properties::from_text("%24.mid=1&a=b/");
        assert_eq!(
            (properties.get(MESSAGE_ID), properties.get("a")),
            (Some("1"), Some("b"))
        );
        properties.set(TO, "/devices/d/messages/devicebound");
        properties.set("a", "c");
        let text = "%24.mid=1&a=c&%24.to=%2Fdevices%2Fd%2Fmessages%2Fdevicebound";
        assert_eq!(properties.to_text(), text);
    }

    #[test]
    fn headers_stand_for_properties() {
        for (header, property) in [
            ("iothub-app-level", Some("level")),
            ("iothub-messageid", Some("$.mid")),
            ("iothub-ack", Some("iothub-ack")),
            ("iothub-app-", None),
            ("iothub-to", None),
            ("host", None),
        ] {
            assert_eq!(property_of_header(header).as_deref(), property);
        }
    }

    proptest! {
        #[test]
        fn properties_round_trip(pairs in proptest::collection::vec((".{1,20}", ".{0,20}"), 0..5)) {
            let mut properties = Properties::default();
            for (name, value) in &pairs {
                properties.set(name, value);
            }
            let text = properties.to_text();
            prop_assert!(!text.contains('/') && !text.contains(['#', '+']));
            prop_assert_eq!(Properties::from_text(&text), properties);
        }

        #[test]
        fn any_text_can_be_read(text in ".{0,60}") {
            let properties = Properties::from_text(&text);
            let again = Properties::from_text(&properties.to_text());
            prop_assert_eq!(again.iter().count() <= properties.iter().count(), true);
        }
    }
}
