//! Telemetry of devices, from stream-hub's own endpoint: IoT Hub gives telemetry over AMQP only.

use std::time::Duration;

use common::identity::DeviceId;
use common::wire::initiation::encode_segment;
use http::Method;
use serde_json::Value;

use super::HubApi;
use super::call::{self, Call, CallError};

use crate::limits;

/// What the hub has of telemetry behind a cursor.
#[derive(Debug, Clone, PartialEq)]
pub struct Messages {
    /// The messages, oldest first.
    pub messages: Vec<Message>,
    /// Where to read on.
    pub next: String,
    /// How many messages the hub dropped before they were read.
    pub lost: u64,
}

/// One message of a device or module.
#[derive(Debug, Clone, PartialEq)]
pub struct Message(Value);

impl From<Value> for Message {
    fn from(document: Value) -> Self {
        Self(document)
    }
}

impl Message {
    /// The whole document.
    pub fn document(&self) -> &Value {
        &self.0
    }

    /// A text of the document; empty if there is none.
    pub fn text(&self, name: &str) -> &str {
        self.0.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// The body, if it is JSON.
    pub fn body(&self) -> Option<&Value> {
        self.0.get("body")
    }

    /// The properties that the device gave, if there are any.
    pub fn properties(&self) -> Option<&Value> {
        let properties = self.0.get("properties")?;
        let is_empty = properties.as_object().is_none_or(serde_json::Map::is_empty);
        (!is_empty).then_some(properties)
    }
}

impl HubApi {
    /// Telemetry after the cursor, of one device or of all; waits up to `wait` for some. Ends at
    /// latest 15 s after that. May be dropped.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn messages(
        &self,
        device: Option<&DeviceId>,
        after: Option<&str>,
        wait: Duration,
    ) -> Result<Messages, CallError> {
        let device = device.map(|device| encode_segment(device.as_str()));
        let after = after.map(encode_segment);
        let seconds = wait.as_secs().to_string();
        let mut query = vec![("wait", seconds.as_str())];
        if let Some(device) = &device {
            query.push(("deviceId", device));
        }
        if let Some(after) = &after {
            query.push(("after", after));
        }
        let call = Call {
            limit: wait + limits::CALL_GRACE,
            most: limits::TELEMETRY_PAGE,
            ..Call::new(Method::GET, call::path("/messages/events", &query))
        };
        read(self.call(&call).await?.document).ok_or(CallError::Answer("a page of telemetry"))
    }
}

fn read(mut document: Value) -> Option<Messages> {
    let Value::Array(messages) = document.get_mut("messages")?.take() else {
        return None;
    };
    let next = document.get("next").and_then(Value::as_str)?.to_owned();
    Some(Messages {
        messages: messages.into_iter().map(Message).collect(),
        next,
        lost: document.get("lost").and_then(Value::as_u64).unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pages_are_read() {
        let page = read(json!({
            "messages": [{ "deviceId": "d", "properties": {}, "body": [1] }],
            "next": "7", "lost": 2,
        }))
        .unwrap();
        assert_eq!(page.messages[0].text("deviceId"), "d");
        assert_eq!(page.messages[0].body(), Some(&json!([1])));
        assert_eq!(page.messages[0].properties(), None);
        assert_eq!((page.next.as_str(), page.lost), ("7", 2));
        assert_eq!(read(json!({ "messages": 1 })), None);
        assert_eq!(read(json!([])), None);
    }
}
