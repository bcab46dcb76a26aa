//! The rest of the MQTT topic grammar: the CONNECT user name, and which topics and filters a device
//! may use (`docs/protocol.md`, "Names and topics").

use crate::identity::{DeviceId, DeviceIdentity, IdentityError, ModuleId};
use crate::wire::method::{self, MethodResponse};
use crate::wire::stream::{self, StreamAnswer, strip_prefix_ignore_case};
use crate::wire::twin::{self, TwinRequest};

/// The WebSocket path of MQTT on the HTTPS port.
pub const MQTT_WEBSOCKET_PATH: &str = "/$iothub/websocket";
/// The WebSocket subprotocol of MQTT, compared without case.
pub const MQTT_SUBPROTOCOL: &str = "mqtt";

/// Why an MQTT user name does not name an identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserNameError {
    /// Not `host/device[/module]/?…`.
    #[error("the user name is not of the form host/device[/module]/?api-version=…")]
    Form,
    /// An id is invalid.
    #[error(transparent)]
    Id(#[from] IdentityError),
}

/// Reads the identity from `host/device[/module]/?query`. The host may be a gateway's and is not
/// checked; the query is optional and may be anything.
///
/// # Errors
/// [`UserNameError`] states the reason.
pub fn identity_from_user_name(user_name: &str) -> Result<DeviceIdentity, UserNameError> {
    // Ids may contain `?`: the query begins at `/?`.
    let path = user_name
        .split_once("/?")
        .map_or(user_name, |(path, _)| path);
    let mut levels = path.trim_end_matches('/').split('/');
    let (host, device) = (levels.next(), levels.next());
    let (module, end) = (levels.next(), levels.next());
    let (Some(host), Some(device), None) = (host, device, end) else {
        return Err(UserNameError::Form);
    };
    if host.is_empty() {
        return Err(UserNameError::Form);
    }
    Ok(DeviceIdentity {
        device: DeviceId::parse(device)?,
        module: module.map(ModuleId::parse).transpose()?,
    })
}

/// Writes the user name of our device client. Ids are not encoded.
pub fn user_name(host: &str, identity: &DeviceIdentity, client_type: &str) -> String {
    format!("{host}/{identity}/?api-version=2020-09-30&DeviceClientType={client_type}")
}

/// What a PUBLISH from a device means to the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DevicePublish {
    /// Accept or reject of a stream request.
    StreamAnswer(StreamAnswer),
    /// A request about the identity's own twin.
    Twin(TwinRequest),
    /// The answer to a call of a direct method.
    MethodAnswer(MethodResponse),
    /// A telemetry message of the identity itself, with its properties as they stand there.
    Telemetry(String),
    /// One of the documented device topics that this hub does not implement yet.
    Known,
    /// A topic of another identity, or an undocumented one: the connection ends.
    Unknown,
}

/// The meaning of a PUBLISH topic of this identity.
pub fn device_publish(identity: &DeviceIdentity, topic: &str) -> DevicePublish {
    if let Some(answer) = StreamAnswer::from_topic(topic) {
        return DevicePublish::StreamAnswer(answer);
    }
    if let Some(request) = TwinRequest::from_topic(topic) {
        return DevicePublish::Twin(request);
    }
    if let Some(answer) = MethodResponse::from_topic(topic) {
        return DevicePublish::MethodAnswer(answer);
    }
    // Ids in topics are not encoded, and may contain `#` and `+`.
    let telemetry = format!("{}/messages/events", identity.resource_path());
    let properties = topic.strip_prefix(&telemetry);
    if let Some(properties) = properties.filter(|rest| rest.is_empty() || rest.starts_with('/')) {
        let properties = properties.trim_start_matches('/');
        return DevicePublish::Telemetry(properties.to_owned());
    }
    let known = ["$iothub/twin/", "$iothub/methods/res/", "$iothub/streams/"];
    if known
        .iter()
        .any(|prefix| strip_prefix_ignore_case(topic, prefix).is_some())
    {
        return DevicePublish::Known;
    }
    DevicePublish::Unknown
}

/// What a SUBSCRIBE filter of a device means to the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceFilter {
    /// Stream requests.
    StreamRequests,
    /// Answers to twin requests.
    TwinResponses,
    /// Changes of the desired properties.
    DesiredUpdates,
    /// Calls of direct methods.
    MethodCalls,
    /// Messages to the device.
    Messages,
    /// One of the other documented filters: granted.
    Known,
    /// Anything else: SUBACK 0x80.
    Unknown,
}

/// The filters that are the same for every identity, compared without case.
const FIXED_FILTERS: [(&str, DeviceFilter); 5] = [
    (stream::REQUEST_FILTER, DeviceFilter::StreamRequests),
    (twin::RESPONSE_FILTER, DeviceFilter::TwinResponses),
    (stream::RESPONSE_FILTER, DeviceFilter::Known),
    (twin::DESIRED_FILTER, DeviceFilter::DesiredUpdates),
    (method::FILTER, DeviceFilter::MethodCalls),
];

/// The canonical spelling of a filter.
pub fn canonical_filter(filter: &str) -> &str {
    FIXED_FILTERS
        .iter()
        .find(|(known, _)| filter.eq_ignore_ascii_case(known))
        .map_or(filter, |(known, _)| *known)
}

/// The meaning of a filter of this identity.
pub fn device_filter(identity: &DeviceIdentity, filter: &str) -> DeviceFilter {
    let fixed = FIXED_FILTERS
        .iter()
        .find(|(known, _)| filter.eq_ignore_ascii_case(known));
    if let Some((_, meaning)) = fixed {
        return *meaning;
    }
    let own = identity.resource_path();
    let rest = filter.strip_prefix(&own).unwrap_or_default();
    match rest {
        "/messages/devicebound/#" | "/messages/devicebound" if identity.module.is_none() => {
            DeviceFilter::Messages
        }
        "/messages/devicebound/#" | "/messages/devicebound" => DeviceFilter::Known,
        "/#" | "/inputs/#" if identity.module.is_some() => DeviceFilter::Known,
        _ => DeviceFilter::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(id: &str) -> DeviceIdentity {
        DeviceIdentity::of_device(DeviceId::parse(id).unwrap())
    }

    #[test]
    fn user_names_of_every_sdk() {
        let parse = |text: &str| identity_from_user_name(text).map(|id| id.to_string());
        assert_eq!(
            parse("myhub.example.net/dev1/?api-version=2020-09-30&DeviceClientType=test"),
            Ok("dev1".into())
        );
        assert_eq!(
            parse("h/dev1/mod1/?api-version=x/y"),
            Ok("dev1/mod1".into())
        );
        assert_eq!(parse("h/dev1"), Ok("dev1".into()));
        assert_eq!(parse("h/dev1/"), Ok("dev1".into()));
        assert_eq!(parse("h/a?b/?q"), Ok("a?b".into()));
        for bad in ["", "h", "/dev1", "h/a/b/c", "h//m"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let own = user_name("h", &device("dev1"), "x");
        assert_eq!(parse(&own), Ok("dev1".into()));
    }

    #[test]
    fn the_meaning_of_a_topic_depends_on_the_identity() {
        let dev = device("a+b#c");
        use DevicePublish as P;
        assert_eq!(
            device_publish(&dev, "devices/a+b#c/messages/events/"),
            P::Telemetry(String::new())
        );
        assert_eq!(
            device_publish(&dev, "devices/a+b#c/messages/events/k=v"),
            P::Telemetry("k=v".to_owned())
        );
        assert_eq!(
            device_publish(&dev, "devices/other/messages/events/"),
            P::Unknown
        );
        assert!(matches!(
            device_publish(&dev, "$iothub/twin/GET/?$rid=1"),
            P::Twin(TwinRequest::Get(_))
        ));
        assert_eq!(device_publish(&dev, "$iothub/twin/GET/?$rid=#"), P::Known);
        assert!(matches!(
            device_publish(&dev, "$iothub/streams/res/200/?$rid=1"),
            P::StreamAnswer(StreamAnswer { accepted: true, .. })
        ));
    }

    #[test]
    fn only_documented_filters_are_known() {
        let dev = device("d");
        assert_eq!(
            device_filter(&dev, "$iothub/streams/POST/#"),
            DeviceFilter::StreamRequests
        );
        assert_eq!(
            device_filter(&dev, "$iothub/twin/res/#"),
            DeviceFilter::TwinResponses
        );
        assert_eq!(
            device_filter(&dev, "devices/d/messages/devicebound/#"),
            DeviceFilter::Messages
        );
        assert_eq!(
            device_filter(&dev, "$iothub/methods/POST/#"),
            DeviceFilter::MethodCalls
        );
        for bad in [
            "#",
            "devices/other/messages/devicebound/#",
            "devices/d/#",
            "+/x",
        ] {
            assert_eq!(device_filter(&dev, bad), DeviceFilter::Unknown, "{bad}");
        }
    }
}
