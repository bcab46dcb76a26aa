//! Stream initiation over HTTPS: the request's path and headers, and the result's headers
//! (`docs/protocol.md`, "Time limits").

use std::time::Duration;

use http::{HeaderMap, HeaderName};
use percent_encoding::utf8_percent_encode;

use crate::identity::{DeviceIdentity, StreamName};
use crate::limits;
use crate::percent;
use crate::secret::Secret;

/// The API version that our service client sends; hubs accept any.
pub const API_VERSION: &str = "2020-09-30";

/// How long the hub waits for the device to connect: seconds, decimal.
pub const CONNECT_TIMEOUT: HeaderName =
    HeaderName::from_static("iothub-streaming-connect-timeout-in-seconds");
/// How long the hub waits for the device to answer: seconds, decimal.
pub const RESPONSE_TIMEOUT: HeaderName =
    HeaderName::from_static("iothub-streaming-response-timeout-in-seconds");
/// `True` or `False`, in this spelling: the Node SDK compares with case.
pub const IS_ACCEPTED: HeaderName = HeaderName::from_static("iothub-streaming-is-accepted");
/// The streaming endpoint of the service's leg.
pub const URL: HeaderName = HeaderName::from_static("iothub-streaming-url");
/// The bearer token of the service's leg, without a scheme.
pub const AUTH_TOKEN: HeaderName = HeaderName::from_static("iothub-streaming-auth-token");

/// Percent-encodes one segment of a REST path: everything that is not unreserved.
pub fn encode_segment(text: &str) -> String {
    utf8_percent_encode(text, percent::COMPONENT).to_string()
}

/// Path and query of the stream initiation for this device (or module) and name.
pub fn path(identity: &DeviceIdentity, name: &StreamName) -> String {
    let device = encode_segment(identity.device.as_str());
    match &identity.module {
        None => format!("/twins/{device}/streams/{name}?api-version={API_VERSION}"),
        Some(module) => format!(
            "/twins/{device}/modules/{}/streams/{name}?api-version={API_VERSION}",
            encode_segment(module.as_str())
        ),
    }
}

/// The two time limits of one stream initiation, each between 0 and 60 s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// How long to wait for an offline device to subscribe; zero: do not wait.
    pub connect: Duration,
    /// How long to wait for the device's answer.
    pub response: Duration,
}

/// A time limit header that is not a decimal number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a number of seconds")]
pub struct BadTimeout(pub HeaderName);

impl Timeouts {
    /// Reads both headers, clamped to 0…60 s; missing means 60 s.
    ///
    /// # Errors
    /// [`BadTimeout`] names the invalid header.
    pub fn from_headers(headers: &HeaderMap) -> Result<Self, BadTimeout> {
        Ok(Self {
            connect: timeout(headers, &CONNECT_TIMEOUT)?,
            response: timeout(headers, &RESPONSE_TIMEOUT)?,
        })
    }
}

fn timeout(headers: &HeaderMap, name: &HeaderName) -> Result<Duration, BadTimeout> {
    let Some(value) = headers.get(name) else {
        return Ok(limits::STREAM_HANDSHAKE);
    };
    let bad = || BadTimeout(name.clone());
    let text = value.to_str().map_err(|_| bad())?.trim();
    // Only decimals: no exponent, no "inf".
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err(bad());
    }
    let seconds: f64 = digits.parse().map_err(|_| bad())?;
    // A negative time counts as zero.
    let seconds = if text.starts_with('-') { 0.0 } else { seconds };
    Ok(Duration::from_secs_f64(
        seconds.min(limits::STREAM_HANDSHAKE.as_secs_f64()),
    ))
}

/// The outcome of a stream initiation that the device answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InitiationResult {
    /// The device accepted the stream; the service opens its leg here.
    Accepted {
        /// The streaming endpoint.
        url: String,
        /// The bearer token.
        token: Secret,
    },
    /// The device rejected the stream.
    Rejected,
}

/// Why the headers of a successful answer are not a result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResultError {
    /// `iothub-streaming-is-accepted` is missing, repeated, or neither true nor false.
    #[error("the hub's answer has no readable `iothub-streaming-is-accepted` header")]
    Verdict,
    /// The stream is accepted, but URL or token is missing.
    #[error("the hub's answer lacks the header `{0}`")]
    Missing(HeaderName),
}

impl InitiationResult {
    /// Reads the result's headers, tolerant of case and blanks in `iothub-streaming-is-accepted`.
    ///
    /// # Errors
    /// [`ResultError`] when they violate the protocol.
    pub fn from_headers(headers: &HeaderMap) -> Result<Self, ResultError> {
        let verdict = single(headers, &IS_ACCEPTED).ok_or(ResultError::Verdict)?;
        if verdict.trim().eq_ignore_ascii_case("false") {
            return Ok(Self::Rejected);
        }
        if !verdict.trim().eq_ignore_ascii_case("true") {
            return Err(ResultError::Verdict);
        }
        let need = |name: HeaderName| match single(headers, &name) {
            Some(text) if !text.is_empty() => Ok(text.to_owned()),
            _ => Err(ResultError::Missing(name)),
        };
        Ok(Self::Accepted {
            url: need(URL)?,
            token: Secret::new(need(AUTH_TOKEN)?),
        })
    }
}

fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut all = headers.get_all(name).iter();
    let first = all.next()?.to_str().ok()?;
    all.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{DeviceId, ModuleId};

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(name.clone(), value.parse().unwrap());
        }
        map
    }

    #[test]
    fn paths_encode_ids() {
        let name = StreamName::parse("TestStream").unwrap();
        let device = DeviceIdentity::of_device(DeviceId::parse("a+b@c%d").unwrap());
        assert_eq!(
            path(&device, &name),
            "/twins/a%2Bb%40c%25d/streams/TestStream?api-version=2020-09-30"
        );
        let module = DeviceIdentity::of_module(
            DeviceId::parse("dev1").unwrap(),
            ModuleId::parse("mod1").unwrap(),
        );
        assert_eq!(
            path(&module, &name),
            "/twins/dev1/modules/mod1/streams/TestStream?api-version=2020-09-30"
        );
    }

    #[test]
    fn time_limits() {
        let read = |text: &str| {
            Timeouts::from_headers(&headers(&[(CONNECT_TIMEOUT, text)])).map(|t| t.connect)
        };
        assert_eq!(read("30"), Ok(Duration::from_secs(30)));
        assert_eq!(read("0"), Ok(Duration::ZERO));
        assert_eq!(read("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(read("600"), Ok(Duration::from_secs(60)));
        assert_eq!(read(&"9".repeat(400)), Ok(Duration::from_secs(60)));
        assert_eq!(read("-1"), Ok(Duration::ZERO));
        for bad in ["-", "--1", "x", "", "NaN", "inf", "1e3", "1.2.3", "."] {
            assert!(read(bad).is_err(), "{bad}");
        }
        let missing = Timeouts::from_headers(&HeaderMap::new()).unwrap();
        assert_eq!(missing.response, Duration::from_secs(60));
    }

    #[test]
    fn results_are_read() {
        let parse = |verdict: &[&str], place: bool| {
            let mut map = headers(&[]);
            for v in verdict {
                map.append(IS_ACCEPTED, v.parse().unwrap());
            }
            if place {
                map.insert(URL, "wss://h:443/p".parse().unwrap());
                map.insert(AUTH_TOKEN, "t".parse().unwrap());
            }
            InitiationResult::from_headers(&map)
        };
        for yes in ["True", "true", " TRUE "] {
            assert!(matches!(
                parse(&[yes], true),
                Ok(InitiationResult::Accepted { .. })
            ));
        }
        for no in ["False", "false"] {
            assert_eq!(parse(&[no], false), Ok(InitiationResult::Rejected));
        }
        assert_eq!(parse(&[], true), Err(ResultError::Verdict));
        assert_eq!(parse(&["yes"], true), Err(ResultError::Verdict));
        assert_eq!(parse(&["True", "True"], true), Err(ResultError::Verdict));
        assert_eq!(parse(&["True"], false), Err(ResultError::Missing(URL)));
    }
}
