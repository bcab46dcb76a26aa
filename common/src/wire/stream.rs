//! Stream request and answer, as MQTT topics (`docs/protocol.md`, "Names and topics"). Payloads are
//! empty: the topic is the message.

use std::fmt;
use std::net::IpAddr;

use device_stream_session::STREAM_PREFIX;
use percent_encoding::{percent_decode_str, utf8_percent_encode};

use crate::identity::RequestId;
use crate::percent::{TOPIC_VALUE, pairs};
use crate::secret::Secret;

/// Whether a stream of this name carries a session instead of one connection
/// (`docs/session-protocol.md`).
pub fn carries_session(name: &str) -> bool {
    name.starts_with(STREAM_PREFIX)
}

/// Filter that a device subscribes for stream requests.
pub const REQUEST_FILTER: &str = "$iothub/streams/POST/#";
/// Filter for answers to device-initiated requests; nothing is ever sent there.
pub const RESPONSE_FILTER: &str = "$iothub/streams/res/#";

const REQUEST_PREFIX: &str = "$iothub/streams/POST/";
const ANSWER_PREFIX: &str = "$iothub/streams/res/";

/// The hub's request to a device to accept a stream.
#[derive(Clone, PartialEq, Eq)]
pub struct StreamRequest {
    /// Echoed in the answer.
    pub request_id: RequestId,
    /// The stream's name, raw: never percent-decoded.
    pub name: String,
    /// The streaming endpoint for the device's leg.
    pub url: String,
    /// The bearer token for the device's leg.
    pub token: Secret,
    /// Who initiated the stream; `None` when the hub does not send it.
    pub initiator: Option<Initiator>,
}

/// Who initiated a stream, as far as the hub sends it: `$ip`, which IoT Hub's preview sends as
/// `0.0.0.0`, and `$policy`, which only our hub sends and the SDKs ignore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Initiator {
    /// The address of the service; never the unspecified one.
    pub ip: IpAddr,
    /// The shared access policy of the service; may be empty.
    pub policy: String,
}

impl fmt::Debug for StreamRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamRequest")
            .field("request_id", &self.request_id)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Why a topic is not a stream request. No variant repeats the topic, which contains a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StreamRequestError {
    /// Another topic.
    #[error("not a stream request topic")]
    OtherTopic,
    /// Not exactly `…/POST/{name}/{properties}`.
    #[error("the stream request topic does not have five levels")]
    Levels,
    /// A required property is missing or empty.
    #[error("the stream request has no `{0}`")]
    Missing(&'static str),
    /// A property occurs twice.
    #[error("the stream request repeats `{0}`")]
    Repeated(&'static str),
    /// `$rid` or `$url` is invalid.
    #[error("the stream request's `{0}` cannot be read")]
    Malformed(&'static str),
}

impl StreamRequest {
    /// Writes the topic in a form that the parsers of all SDKs accept.
    pub fn to_topic(&self) -> String {
        let initiator = match &self.initiator {
            Some(Initiator { ip, policy }) if !policy.is_empty() => {
                format!("{ip}&$policy={}", utf8_percent_encode(policy, TOPIC_VALUE))
            }
            Some(Initiator { ip, .. }) => ip.to_string(),
            // Not empty: the C SDK would refuse the whole request.
            None => "0.0.0.0".to_owned(),
        };
        format!(
            "{REQUEST_PREFIX}{}/?$rid={}&$url={}&$auth={}&$ip={initiator}",
            self.name,
            self.request_id,
            utf8_percent_encode(&self.url, TOPIC_VALUE),
            self.token.expose(),
        )
    }

    /// Reads a topic, as tolerantly as the most tolerant SDK.
    ///
    /// # Errors
    /// [`StreamRequestError`]; [`StreamRequestError::OtherTopic`] for topics of other messages.
    pub fn from_topic(topic: &str) -> Result<Self, StreamRequestError> {
        use StreamRequestError as E;
        let rest = strip_prefix_ignore_case(topic, REQUEST_PREFIX).ok_or(E::OtherTopic)?;
        let (name, properties) = rest.split_once('/').ok_or(E::Levels)?;
        if name.is_empty() || properties.contains('/') {
            return Err(E::Levels);
        }
        let properties = properties.strip_prefix('?').unwrap_or(properties);
        let (mut rid, mut url, mut auth) = (None, None, None);
        let (mut ip, mut policy) = (None, None);
        for (key, value) in pairs(properties) {
            let (slot, key) = match key {
                "$rid" => (&mut rid, "$rid"),
                "$url" => (&mut url, "$url"),
                "$auth" => (&mut auth, "$auth"),
                "$ip" => (&mut ip, "$ip"),
                "$policy" => (&mut policy, "$policy"),
                _ => continue,
            };
            if slot.replace(value).is_some() {
                return Err(E::Repeated(key));
            }
        }
        let rid = rid.filter(|v| !v.is_empty()).ok_or(E::Missing("$rid"))?;
        let url = url.filter(|v| !v.is_empty()).ok_or(E::Missing("$url"))?;
        let auth = auth.filter(|v| !v.is_empty()).ok_or(E::Missing("$auth"))?;
        Ok(Self {
            request_id: RequestId::parse(rid).ok_or(E::Malformed("$rid"))?,
            name: name.to_owned(),
            url: percent_decode_str(url)
                .decode_utf8()
                .map_err(|_| E::Malformed("$url"))?
                .into_owned(),
            token: Secret::new(auth),
            initiator: initiator(ip, policy),
        })
    }
}

/// Invalid values count as missing, since the stream does not depend on them.
fn initiator(ip: Option<&str>, policy: Option<&str>) -> Option<Initiator> {
    let ip: IpAddr = ip?.parse().ok()?;
    let policy = percent_decode_str(policy.unwrap_or_default()).decode_utf8();
    (!ip.is_unspecified()).then(|| Initiator {
        ip,
        policy: policy.unwrap_or_default().into_owned(),
    })
}

/// The device's answer to a stream request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamAnswer {
    /// Which request is answered.
    pub request_id: RequestId,
    /// Accept or reject; the protocol has no reasons.
    pub accepted: bool,
}

impl StreamAnswer {
    /// Writes the topic: status 200 accepts, 400 rejects.
    pub fn to_topic(&self) -> String {
        let status = if self.accepted { 200 } else { 400 };
        format!("{ANSWER_PREFIX}{status}/?$rid={}", self.request_id)
    }

    /// Reads an answer; any status but 200 is a reject. `None` when the topic is
    /// not an answer to a stream request.
    pub fn from_topic(topic: &str) -> Option<Self> {
        let rest = strip_prefix_ignore_case(topic, ANSWER_PREFIX)?;
        let (status, properties) = rest.split_once('/')?;
        let properties = properties.strip_prefix('?').unwrap_or(properties);
        let (_, rid) = pairs(properties).find(|(key, _)| *key == "$rid")?;
        Some(Self {
            request_id: RequestId::parse(rid)?,
            accepted: status == "200",
        })
    }
}

/// Topics of the `$iothub` tree are compared without case (`docs/protocol.md`, "Names and topics").
pub(crate) fn strip_prefix_ignore_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let head = text.get(..prefix.len())?;
    head.eq_ignore_ascii_case(prefix)
        .then(|| text.get(prefix.len()..))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TOKEN: &str = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJleHAiOjE3MDAwMDAwNjUsImp0aSI6IkFBRUNBd1FGQmdjSUNRb0xEQTBPRHhBUkVoTVVGUllYR0JrYUd4d2RIaDgiLCJpb3RodWIiOiJteWh1YiJ9.11Ztu3vjf7fhp2J3DAjEMzFKU__f74P3jT1Db9XwqRo";
    const URL: &str =
        "wss://myhub.example.net:443/bridges/myhub/dev1/0123456789abcdef0123456789abcdef";

    fn vector() -> String {
        format!(
            "$iothub/streams/POST/TestStream/?$rid=1&$url=wss%3A%2F%2Fmyhub.example.net%3A443%2Fbridges%2Fmyhub%2Fdev1%2F0123456789abcdef0123456789abcdef&$auth={TOKEN}&$ip=0.0.0.0"
        )
    }

    #[test]
    fn the_test_vector_is_written_and_read() {
        let request = StreamRequest {
            request_id: RequestId::from(1),
            name: "TestStream".into(),
            url: URL.into(),
            token: Secret::new(TOKEN),
            initiator: None,
        };
        assert_eq!(request.to_topic(), vector());
        assert_eq!(vector().len(), 356);
        assert_eq!(StreamRequest::from_topic(&vector()), Ok(request));
    }

    #[test]
    fn the_initiator_is_written_and_read() {
        let initiator = |ip: &str, policy: &str| Initiator {
            ip: ip.parse().unwrap(),
            policy: policy.to_owned(),
        };
        let parse = |rest: &str| {
            let topic = format!("$iothub/streams/POST/s/?$rid=1&$url=U&$auth=T{rest}");
            StreamRequest::from_topic(&topic).unwrap()
        };
        for (written, read) in [
            (
                "&$ip=192.0.2.1&$policy=service",
                initiator("192.0.2.1", "service"),
            ),
            (
                "&$ip=2001:db8::7&$policy=a%20b",
                initiator("2001:db8::7", "a b"),
            ),
            ("&$ip=192.0.2.1", initiator("192.0.2.1", "")),
        ] {
            let request = parse(written);
            assert_eq!(request.initiator, Some(read));
            assert!(
                request.to_topic().ends_with(written),
                "{}",
                request.to_topic()
            );
        }
        for nothing in [
            "",
            "&$ip=",
            "&$ip=0.0.0.0",
            "&$ip=::",
            "&$ip=x",
            "&$policy=service",
        ] {
            assert_eq!(parse(nothing).initiator, None, "{nothing}");
        }
    }

    #[test]
    fn requests_are_read_or_refused() {
        use StreamRequestError as E;
        let parse = |rest: &str| StreamRequest::from_topic(&format!("$iothub/streams/POST/{rest}"));
        for good in [
            "s/?$rid=1&$url=U&$auth=T&$ip=0.0.0.0",
            "s/$rid=1&$url=U&$auth=T",
            "s/?$rid=1&$url=U&$auth=T&$ip=",
            "s/?$rid=1&$url=U&$auth=T&x=y",
            "s/?$rid=1&$url=U&$auth=T&novalue",
        ] {
            assert!(parse(good).is_ok(), "{good}");
        }
        assert_eq!(parse("s/?$url=U&$auth=T"), Err(E::Missing("$rid")));
        assert_eq!(parse("s/?$rid=1&$url=&$auth=T"), Err(E::Missing("$url")));
        assert_eq!(parse("a/b/?$rid=1&$url=U&$auth=T"), Err(E::Levels));
        assert_eq!(parse("s"), Err(E::Levels));
        assert_eq!(parse("s/?$rid=1&$url=wss://h/p&$auth=T"), Err(E::Levels));
        assert_eq!(
            parse("s/?$rid=1&$rid=2&$url=U&$auth=T"),
            Err(E::Repeated("$rid"))
        );
        assert_eq!(
            parse("my%20stream/?$rid=1&$url=U&$auth=T").unwrap().name,
            "my%20stream"
        );
        assert_eq!(
            StreamRequest::from_topic("$iothub/methods/POST/x/?$rid=1"),
            Err(E::OtherTopic)
        );
        assert!(StreamRequest::from_topic("$IOTHUB/STREAMS/post/s/?$rid=1&$url=U&$auth=T").is_ok());
    }

    #[test]
    fn answers_match_the_test_vectors() {
        let accept = StreamAnswer {
            request_id: RequestId::from(1),
            accepted: true,
        };
        assert_eq!(accept.to_topic(), "$iothub/streams/res/200/?$rid=1");
        assert_eq!(StreamAnswer::from_topic(&accept.to_topic()), Some(accept));
        let reject = StreamAnswer {
            request_id: RequestId::from(1),
            accepted: false,
        };
        assert_eq!(reject.to_topic(), "$iothub/streams/res/400/?$rid=1");
        assert_eq!(
            StreamAnswer::from_topic("$iothub/streams/res/503/?$rid=1"),
            Some(reject)
        );
        assert_eq!(
            StreamAnswer::from_topic("$iothub/streams/res/200/?rid=1"),
            None
        );
    }

    #[test]
    fn debug_hides_url_and_token() {
        let shown = format!("{:?}", StreamRequest::from_topic(&vector()).unwrap());
        assert!(
            !shown.contains("eyJ0") && !shown.contains("0123456789"),
            "{shown}"
        );
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in ".{0,120}") {
            let _ = StreamRequest::from_topic(&text);
            let _ = StreamRequest::from_topic(&format!("$iothub/streams/POST/{text}"));
            let _ = StreamAnswer::from_topic(&format!("$iothub/streams/res/{text}"));
        }

        #[test]
        fn requests_round_trip(
            name in "[A-Za-z0-9._-]{1,20}", rid in 0u64.., path in "[!-~]{0,60}",
            ip in 1u32.., policy in "[ -~]{0,20}",
        ) {
            let ip = std::net::Ipv4Addr::from_bits(ip).into();
            let request = StreamRequest {
                request_id: RequestId::from(rid),
                name,
                url: format!("wss://h:443/{path}"),
                token: Secret::new(TOKEN),
                initiator: Some(Initiator { ip, policy }),
            };
            let topic = request.to_topic();
            prop_assert_eq!(topic.split('/').count(), 5);
            prop_assert_eq!(StreamRequest::from_topic(&topic), Ok(request));
        }
    }
}
