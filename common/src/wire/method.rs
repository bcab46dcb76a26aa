//! Direct methods, as MQTT topics for both ends: the hub's call, and the device's answer. The
//! payloads are JSON texts; a call without a payload is sent as `null`, since SDKs parse every body.

use percent_encoding::percent_decode_str;

pub use crate::identity::MethodName;
use crate::identity::RequestId;
use crate::wire::properties::{property, request_id};
use crate::wire::stream::strip_prefix_ignore_case;

/// Filter that a device subscribes for calls of its methods.
pub const FILTER: &str = "$iothub/methods/POST/#";

const REQUEST_PREFIX: &str = "$iothub/methods/POST/";
const RESPONSE_PREFIX: &str = "$iothub/methods/res/";

/// The hub's call of a method on a device, without its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MethodRequest {
    /// The method.
    pub name: MethodName,
    /// Echoed in the answer.
    pub request_id: RequestId,
}

impl MethodRequest {
    /// Writes the topic. Nothing may follow the id: the C and C# SDKs take the rest of the topic
    /// as the id.
    pub fn to_topic(&self) -> String {
        let Self { name, request_id } = self;
        format!("{REQUEST_PREFIX}{name}/?$rid={request_id}")
    }

    /// Reads a topic; `None` when it is another topic, or when its name or `$rid` is missing or
    /// not valid. The name is not percent-decoded.
    pub fn from_topic(topic: &str) -> Option<Self> {
        let rest = strip_prefix_ignore_case(topic, REQUEST_PREFIX)?;
        let (name, properties) = rest.split_once('/')?;
        Some(Self {
            name: MethodName::parse(name).ok()?,
            request_id: request_id(properties)?,
        })
    }
}

/// The device's answer to a call, without its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MethodResponse {
    /// Which call is answered.
    pub request_id: RequestId,
    /// Any number that the device chooses; by convention as in HTTP. 32 bits, as the C# SDK for
    /// services reads it.
    pub status: i32,
}

impl MethodResponse {
    /// Writes the topic. A hub decodes the id, so a percent sign in it is encoded.
    pub fn to_topic(&self) -> String {
        let Self { request_id, status } = self;
        let request_id = request_id.as_str().replace('%', "%25");
        format!("{RESPONSE_PREFIX}{status}/?$rid={request_id}")
    }

    /// Reads a topic; `None` when it is not the answer to a call. The Python SDK percent-encodes
    /// status and id, and the Node SDK may append further properties.
    pub fn from_topic(topic: &str) -> Option<Self> {
        let rest = strip_prefix_ignore_case(topic, RESPONSE_PREFIX)?;
        let (status, properties) = rest.split_once('/')?;
        let status = percent_decode_str(status).decode_utf8().ok()?;
        let rid = percent_decode_str(property(properties, "$rid")?)
            .decode_utf8()
            .ok()?;
        Some(Self {
            request_id: RequestId::parse(&rid)?,
            status: status.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(text: &str) -> RequestId {
        RequestId::parse(text).unwrap()
    }

    #[test]
    fn calls_match_the_test_vectors() {
        let call = MethodRequest {
            name: MethodName::parse("lockDoor").unwrap(),
            request_id: id("1"),
        };
        assert_eq!(call.to_topic(), "$iothub/methods/POST/lockDoor/?$rid=1");
        for topic in [
            "$iothub/methods/POST/lockDoor/?$rid=1",
            "$IOTHUB/Methods/post/lockDoor/?$rid=1",
            "$iothub/methods/POST/lockDoor/$rid=1&x=y",
        ] {
            assert_eq!(MethodRequest::from_topic(topic), Some(call.clone()));
        }
        for bad in [
            "$iothub/methods/POST/lockDoor",
            "$iothub/methods/POST/lockDoor/",
            "$iothub/methods/POST/lockDoor/?rid=1",
            "$iothub/methods/POST/lockDoor/?$rid=",
            "$iothub/methods/POST/lockDoor/x/?$rid=1/2",
            "$iothub/methods/POST//?$rid=1",
            "$iothub/methods/POST/lock door/?$rid=1",
            "$iothub/methods/res/200/?$rid=1",
            "",
        ] {
            assert_eq!(MethodRequest::from_topic(bad), None, "{bad}");
        }
    }

    #[test]
    fn answers_match_the_test_vectors() {
        let answer = |status| MethodResponse {
            request_id: id("a-1"),
            status,
        };
        assert_eq!(answer(200).to_topic(), "$iothub/methods/res/200/?$rid=a-1");
        // The hub reads back the id that it has sent, whatever is in it.
        for text in ["%1f", "%2D", "100%", "%"] {
            let answer = MethodResponse {
                request_id: id(text),
                status: 200,
            };
            let topic = answer.to_topic();
            assert_eq!(MethodResponse::from_topic(&topic), Some(answer), "{topic}");
        }
        for (topic, status) in [
            ("$iothub/methods/res/200/?$rid=a-1", 200),
            ("$iothub/methods/res/200/$rid=a-1", 200),
            ("$iothub/METHODS/res/0/?$rid=a-1&prop=value", 0),
            ("$iothub/methods/res/-7/?$rid=a-1", -7),
            ("$iothub/methods/res/%2D7/?$rid=a%2D1", -7),
            ("$iothub/methods/res/2147483647/?$rid=a-1", i32::MAX),
        ] {
            assert_eq!(
                MethodResponse::from_topic(topic),
                Some(answer(status)),
                "{topic}"
            );
        }
        for bad in [
            "$iothub/methods/res/200/",
            "$iothub/methods/res/200/?$rid=",
            "$iothub/methods/res/200/?$rid=%2F",
            "$iothub/methods/res/200/?$rid=%FF",
            "$iothub/methods/res/2147483648/?$rid=1",
            "$iothub/methods/res/2.5/?$rid=1",
            "$iothub/methods/res//?$rid=1",
            "$iothub/methods/res/200?$rid=1",
            "$iothub/methods/POST/lockDoor/?$rid=1",
        ] {
            assert_eq!(MethodResponse::from_topic(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in ".{0,120}") {
            for prefix in ["", REQUEST_PREFIX, "$iothub/methods/POST/m/?$rid="] {
                if let Some(call) = MethodRequest::from_topic(&format!("{prefix}{text}")) {
                    // Every accepted id is valid in an answer.
                    let answer = MethodResponse { request_id: call.request_id, status: 200 };
                    prop_assert!(crate::mqtt::publish(&answer.to_topic()).is_ok());
                }
            }
            for prefix in ["", RESPONSE_PREFIX, "$iothub/methods/res/200/?$rid="] {
                let _ = MethodResponse::from_topic(&format!("{prefix}{text}"));
            }
        }

        #[test]
        fn topics_round_trip(
            name in "[!%&'*.^_`|~A-Za-z0-9-]{1,128}", rid in "[!-~]{1,128}",
            status in any::<i32>(),
        ) {
            let (Ok(name), Some(request_id)) = (MethodName::parse(&name), RequestId::parse(&rid))
            else {
                return Ok(());
            };
            let call = MethodRequest { name, request_id: request_id.clone() };
            let topic = call.to_topic();
            prop_assert_eq!(topic.split('/').count(), 5);
            prop_assert!(crate::mqtt::publish(&topic).is_ok());
            prop_assert_eq!(MethodRequest::from_topic(&topic), Some(call));
            let answer = MethodResponse { request_id, status };
            prop_assert_eq!(MethodResponse::from_topic(&answer.to_topic()), Some(answer));
        }
    }
}
