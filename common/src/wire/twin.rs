//! Twins (`docs/protocol.md`, "Twins"): their MQTT topics for both ends, the path of the REST
//! document, and the session report, by which a device-proxy announces in its reported properties
//! that it supports session mode.

use serde_json::{Value, json};

pub use device_stream_session::{BadBootId, BootId};

use crate::identity::{DeviceIdentity, RequestId};
use crate::wire::initiation::{API_VERSION, encode_segment};
use crate::wire::properties::{property, request_id};
use crate::wire::stream::strip_prefix_ignore_case;

/// Filter that a device subscribes for answers to its twin requests.
pub const RESPONSE_FILTER: &str = "$iothub/twin/res/#";
/// Filter that a device subscribes for changes of its desired properties.
pub const DESIRED_FILTER: &str = "$iothub/twin/PATCH/properties/desired/#";

/// The version of session mode that this code supports.
pub const SESSION_VERSION: u32 = device_stream_session::proof::VERSION as u32;

const GET_PREFIX: &str = "$iothub/twin/GET/";
const REPORTED_PREFIX: &str = "$iothub/twin/PATCH/properties/reported/";
const RESPONSE_PREFIX: &str = "$iothub/twin/res/";
const DESIRED_PREFIX: &str = "$iothub/twin/PATCH/properties/desired/";

/// A device's request about its own twin, without its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TwinRequest {
    /// The whole twin, as the device sees it.
    Get(RequestId),
    /// Merge the payload into the reported properties.
    PatchReported(RequestId),
}

impl TwinRequest {
    /// Writes the topic.
    pub fn to_topic(&self) -> String {
        match self {
            Self::Get(id) => format!("{GET_PREFIX}?$rid={id}"),
            Self::PatchReported(id) => format!("{REPORTED_PREFIX}?$rid={id}"),
        }
    }

    /// Reads a topic; `None` when it is another topic, or when its `$rid` is missing or not valid
    /// in the answer's topic.
    pub fn from_topic(topic: &str) -> Option<Self> {
        if let Some(rest) = strip_prefix_ignore_case(topic, GET_PREFIX) {
            return request_id(rest).map(Self::Get);
        }
        let rest = strip_prefix_ignore_case(topic, REPORTED_PREFIX)?;
        request_id(rest).map(Self::PatchReported)
    }
}

/// The hub's answer to a twin request, without its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TwinResponse {
    /// Which request is answered.
    pub request_id: RequestId,
    /// 200 for a read, 204 for a patch; 400 and above for refusals.
    pub status: u16,
    /// The new version of the reported properties, after a patch.
    pub version: Option<u64>,
}

impl TwinResponse {
    /// Writes the topic; `$rid` comes first, since one SDK reads it only there.
    pub fn to_topic(&self) -> String {
        let Self {
            request_id, status, ..
        } = self;
        match self.version {
            None => format!("{RESPONSE_PREFIX}{status}/?$rid={request_id}"),
            Some(version) => {
                format!("{RESPONSE_PREFIX}{status}/?$rid={request_id}&$version={version}")
            }
        }
    }

    /// Reads a topic; `None` when it is not an answer to a twin request.
    pub fn from_topic(topic: &str) -> Option<Self> {
        let rest = strip_prefix_ignore_case(topic, RESPONSE_PREFIX)?;
        let (status, properties) = rest.split_once('/')?;
        // `parse` would accept a sign, and zeros that are not written again.
        let is_digits = status.bytes().all(|b| b.is_ascii_digit());
        if status.len() != 3 || !is_digits || status.starts_with('0') {
            return None;
        }
        Some(Self {
            request_id: request_id(properties)?,
            status: status.parse().ok()?,
            version: property(properties, "$version").and_then(|text| text.parse().ok()),
        })
    }

    /// Whether the request succeeded.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// The hub's notification that the desired properties have changed. Its payload is the patch as the
/// service made it, with `null` for what was removed, and with `"$version"` in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DesiredChange {
    /// The version of the desired properties after the change.
    pub version: u64,
}

impl DesiredChange {
    /// Writes the topic.
    pub fn to_topic(&self) -> String {
        format!("{DESIRED_PREFIX}?$version={}", self.version)
    }

    /// Reads a topic; `None` when it is another topic, or has no version.
    pub fn from_topic(topic: &str) -> Option<Self> {
        let rest = strip_prefix_ignore_case(topic, DESIRED_PREFIX)?;
        let version = property(rest, "$version")?;
        // `parse` would accept a sign.
        if !version.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let version = version.parse().ok()?;
        Some(Self { version })
    }
}

/// Path and query of the REST document of this identity's twin.
pub fn path(identity: &DeviceIdentity) -> String {
    let device = encode_segment(identity.device.as_str());
    match &identity.module {
        None => format!("/twins/{device}?api-version={API_VERSION}"),
        Some(module) => format!(
            "/twins/{device}/modules/{}?api-version={API_VERSION}",
            encode_segment(module.as_str())
        ),
    }
}

/// The report of a device-proxy in its twin that it supports session mode, with the id of its run:
/// `"deviceStreams": {"session": {"version": 1, "bootId": "<32 hex digits>"}}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionReport {
    /// The version of session mode: [`SESSION_VERSION`] for this code.
    pub version: u32,
    /// The run that has the sessions: when it changes, they are lost.
    pub boot_id: BootId,
}

impl SessionReport {
    /// The patch of the reported properties that adds the report.
    pub fn to_patch(&self) -> Value {
        let session = json!({ "version": self.version, "bootId": self.boot_id.to_string() });
        json!({ "deviceStreams": { "session": session } })
    }

    /// The patch of the reported properties that withdraws it.
    pub fn withdrawal() -> Value {
        json!({ "deviceStreams": { "session": null } })
    }

    /// Reads it from the REST document of a twin; `None` if it is missing or invalid.
    pub fn from_twin(twin: &Value) -> Option<Self> {
        let session = twin.pointer("/properties/reported/deviceStreams/session")?;
        let version = session.get("version")?.as_u64()?;
        let boot_id = session.get("bootId")?.as_str()?;
        Some(Self {
            version: u32::try_from(version).ok()?,
            boot_id: BootId::parse(boot_id).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{DeviceId, ModuleId};
    use proptest::prelude::*;

    fn id(text: &str) -> RequestId {
        RequestId::parse(text).unwrap()
    }

    #[test]
    fn requests_match_the_test_vectors() {
        for (request, topic) in [
            (TwinRequest::Get(id("1")), "$iothub/twin/GET/?$rid=1"),
            (
                TwinRequest::PatchReported(id("0f3c-9")),
                "$iothub/twin/PATCH/properties/reported/?$rid=0f3c-9",
            ),
        ] {
            assert_eq!(request.to_topic(), topic);
            assert_eq!(TwinRequest::from_topic(topic), Some(request.clone()));
            assert_eq!(
                TwinRequest::from_topic(&topic.replace("$iothub/twin", "$IOTHUB/Twin")),
                Some(request)
            );
        }
        assert_eq!(
            TwinRequest::from_topic("$iothub/twin/GET/$rid=1&x=y&z"),
            Some(TwinRequest::Get(id("1")))
        );
        let long = format!("$iothub/twin/GET/?$rid={}", "1".repeat(129));
        for bad in [
            "$iothub/twin/GET/",
            "$iothub/twin/GET/?",
            "$iothub/twin/GET/?rid=1",
            "$iothub/twin/GET/?$rid=",
            "$iothub/twin/GET/?$rid=a#",
            "$iothub/twin/GET/?$rid=+",
            "$iothub/twin/GET/?$rid=a/b",
            "$iothub/twin/GET/?$rid=a\u{1}",
            "$iothub/twin/GET?$rid=1",
            "$iothub/twin/PATCH/properties/desired/?$rid=1",
            "$iothub/twin/DELETE/?$rid=1",
            "",
            &long,
        ] {
            assert_eq!(TwinRequest::from_topic(bad), None, "{bad}");
        }
    }

    #[test]
    fn answers_match_the_test_vectors() {
        let read = TwinResponse {
            request_id: id("1"),
            status: 200,
            version: None,
        };
        assert_eq!(read.to_topic(), "$iothub/twin/res/200/?$rid=1");
        assert_eq!(TwinResponse::from_topic(&read.to_topic()), Some(read));
        let patched = TwinResponse {
            request_id: id("2"),
            status: 204,
            version: Some(17),
        };
        assert_eq!(
            patched.to_topic(),
            "$iothub/twin/res/204/?$rid=2&$version=17"
        );
        assert!(patched.is_success());
        assert_eq!(TwinResponse::from_topic(&patched.to_topic()), Some(patched));
        let odd = TwinResponse::from_topic("$iothub/twin/res/429/?$version=x&$rid=3").unwrap();
        assert_eq!((odd.version, odd.is_success()), (None, false));
        for bad in [
            "$iothub/twin/res/+20/?$rid=1",
            "$iothub/twin/res/2000/?$rid=1",
            "$iothub/twin/res//?$rid=1",
            "$iothub/twin/res/020/?$rid=1",
            "$iothub/twin/res/200?$rid=1",
            "$iothub/twin/res/200/?$version=1",
            "$iothub/streams/res/200/?$rid=1",
        ] {
            assert_eq!(TwinResponse::from_topic(bad), None, "{bad}");
        }
    }

    #[test]
    fn changes_of_desired_properties_match_the_test_vector() {
        let topic = "$iothub/twin/PATCH/properties/desired/?$version=12";
        let change = DesiredChange { version: 12 };
        assert_eq!(change.to_topic(), topic);
        for good in [
            topic,
            "$IOTHUB/twin/patch/properties/desired/?$version=12",
            "$iothub/twin/PATCH/properties/desired/$version=12&x=y",
        ] {
            assert_eq!(DesiredChange::from_topic(good), Some(change), "{good}");
        }
        for bad in [
            "$iothub/twin/PATCH/properties/desired/",
            "$iothub/twin/PATCH/properties/desired/?$version=",
            "$iothub/twin/PATCH/properties/desired/?$version=+12",
            "$iothub/twin/PATCH/properties/desired/?$version=-1",
            "$iothub/twin/PATCH/properties/desired/?$version=99999999999999999999",
            "$iothub/twin/PATCH/properties/reported/?$version=12",
        ] {
            assert_eq!(DesiredChange::from_topic(bad), None, "{bad}");
        }
    }

    #[test]
    fn paths_encode_ids() {
        let device = DeviceId::parse("a+b@c%d").unwrap();
        assert_eq!(
            path(&DeviceIdentity::of_device(device.clone())),
            "/twins/a%2Bb%40c%25d?api-version=2020-09-30"
        );
        let module = ModuleId::parse("m#1").unwrap();
        assert_eq!(
            path(&DeviceIdentity::of_module(device, module)),
            "/twins/a%2Bb%40c%25d/modules/m%231?api-version=2020-09-30"
        );
    }

    #[test]
    fn boot_ids_are_hex() {
        let text = "000102030405060708090a0b0c0d0e0f";
        let id: BootId = text.parse().unwrap();
        assert_eq!(id.as_bytes()[15], 15);
        assert_eq!(
            (id.to_string(), format!("{id:?}")),
            (text.into(), text.into())
        );
        assert_eq!(BootId::parse(&text.to_uppercase()), Ok(id));
        assert_eq!(BootId::from_bytes(*id.as_bytes()), id);
        assert_ne!(BootId::random(), BootId::random());
        for bad in [
            "",
            "0",
            &text[1..],
            &format!("+{}", &text[1..]),
            &format!("{text}0"),
        ] {
            assert_eq!(BootId::parse(bad), Err(BadBootId), "{bad}");
        }
    }

    #[test]
    fn reports_are_written_and_read() {
        let report = SessionReport {
            version: SESSION_VERSION,
            boot_id: BootId::from_bytes([0xab; 16]),
        };
        let patch = report.to_patch();
        assert_eq!(
            patch.to_string(),
            format!(
                r#"{{"deviceStreams":{{"session":{{"bootId":"{}","version":1}}}}}}"#,
                "ab".repeat(16)
            )
        );
        assert_eq!(
            SessionReport::withdrawal().to_string(),
            r#"{"deviceStreams":{"session":null}}"#
        );
        let twin = |reported: &Value| json!({ "properties": { "reported": reported } });
        assert_eq!(SessionReport::from_twin(&twin(&patch)), Some(report));
        assert_eq!(
            SessionReport::from_twin(&twin(&SessionReport::withdrawal())),
            None
        );
        for session in [
            json!(null),
            json!(1),
            json!([]),
            json!({}),
            json!({ "version": 1 }),
            json!({ "version": "1", "bootId": report.boot_id.to_string() }),
            json!({ "version": -1, "bootId": report.boot_id.to_string() }),
            json!({ "version": 1, "bootId": "x" }),
            json!({ "version": u64::MAX, "bootId": report.boot_id.to_string() }),
        ] {
            let reported = json!({ "deviceStreams": { "session": session } });
            assert_eq!(
                SessionReport::from_twin(&twin(&reported)),
                None,
                "{reported}"
            );
        }
        assert_eq!(SessionReport::from_twin(&json!([])), None);
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in ".{0,120}") {
            let _ = BootId::parse(&text);
            for (prefix, rid) in [
                ("", ""),
                ("$iothub/twin/", ""),
                (GET_PREFIX, "?$rid="),
                (REPORTED_PREFIX, "?$rid="),
                (RESPONSE_PREFIX, ""),
                (RESPONSE_PREFIX, "200/?$rid="),
            ] {
                let topic = format!("{prefix}{rid}{text}");
                let _ = TwinResponse::from_topic(&topic);
                let _ = DesiredChange::from_topic(&format!("{DESIRED_PREFIX}?$version={text}"));
                if let Some(request) = TwinRequest::from_topic(&topic) {
                    // Every accepted id is valid in an answer.
                    let (TwinRequest::Get(request_id) | TwinRequest::PatchReported(request_id)) =
                        request;
                    let response = TwinResponse { request_id, status: 200, version: None };
                    prop_assert!(crate::mqtt::publish(&response.to_topic()).is_ok());
                }
            }
        }

        #[test]
        fn topics_round_trip(rid in "[!-~]{1,128}", status in 100u16..600, version in any::<Option<u64>>()) {
            let Some(request_id) = RequestId::parse(&rid) else {
                return Ok(());
            };
            for request in [
                TwinRequest::Get(request_id.clone()),
                TwinRequest::PatchReported(request_id.clone()),
            ] {
                prop_assert_eq!(TwinRequest::from_topic(&request.to_topic()), Some(request));
            }
            if let Some(version) = version {
                let change = DesiredChange { version };
                prop_assert_eq!(DesiredChange::from_topic(&change.to_topic()), Some(change));
            }
            let response = TwinResponse { request_id, status, version };
            prop_assert_eq!(TwinResponse::from_topic(&response.to_topic()), Some(response));
        }
    }
}
