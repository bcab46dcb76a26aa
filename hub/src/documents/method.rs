//! Direct methods as JSON documents (`docs/protocol.md`, "Direct methods").

use std::time::Duration;

use bytes::Bytes;
use common::identity::MethodName;
use common::wire::problem::ErrorCode;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::invalid;
use crate::limits;
use crate::refusal::Refusal;

/// A method as a client writes it, in a call and in a job.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MethodDraft {
    method_name: String,
    #[serde(default)]
    payload: Option<Box<RawValue>>,
    #[serde(default)]
    response_timeout_in_seconds: Option<u64>,
    #[serde(default)]
    connect_timeout_in_seconds: Option<u64>,
}

/// What is to be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Method {
    /// The method.
    pub name: MethodName,
    /// JSON.
    pub payload: Bytes,
    /// How long the device may take to connect.
    pub connect: Duration,
    /// How long it may take to answer.
    pub response: Duration,
}

impl MethodDraft {
    /// Checks it.
    ///
    /// # Errors
    /// 400004 for a bad name or time, 413001 for a payload that is too large.
    pub fn read(self) -> Result<Method, Refusal> {
        let name = MethodName::parse(&self.method_name)
            .map_err(|error| invalid(format!("methodName cannot be used: {error}.")))?;
        let payload = self.payload.as_deref().map_or("null", RawValue::get);
        if payload.len() > limits::METHOD_PAYLOAD {
            return Err(Refusal::new(
                ErrorCode::MESSAGE_TOO_LARGE,
                format!(
                    "The payload is larger than {} bytes.",
                    limits::METHOD_PAYLOAD
                ),
            ));
        }
        let seconds = |given: Option<u64>, least, default, name| match given {
            None => Ok(Duration::from_secs(default)),
            Some(given) if (least..=limits::METHOD_SECONDS).contains(&given) => {
                Ok(Duration::from_secs(given))
            }
            Some(_) => Err(invalid(format!(
                "{name} must be a number from {least} to {}.",
                limits::METHOD_SECONDS
            ))),
        };
        Ok(Method {
            name,
            payload: Bytes::copy_from_slice(payload.as_bytes()),
            connect: seconds(
                self.connect_timeout_in_seconds,
                0,
                0,
                "connectTimeoutInSeconds",
            )?,
            response: seconds(
                self.response_timeout_in_seconds,
                5,
                30,
                "responseTimeoutInSeconds",
            )?,
        })
    }
}

/// The payload of an answer as JSON; nothing is null.
///
/// # Errors
/// 502000 when the device does not answer in JSON, or with too much of it.
pub fn payload(payload: &[u8]) -> Result<&str, Refusal> {
    let bad = |reason: String| Refusal::new(ErrorCode::BAD_DEVICE_RESPONSE, reason);
    if payload.is_empty() {
        return Ok("null");
    }
    if payload.len() > limits::METHOD_PAYLOAD {
        return Err(bad(format!(
            "The device answered with a payload of more than {} bytes.",
            limits::METHOD_PAYLOAD
        )));
    }
    let text = str::from_utf8(payload).ok();
    let json = text.and_then(|text| serde_json::from_str::<&RawValue>(text).ok());
    json.map(RawValue::get)
        .ok_or_else(|| bad("The device answered with a payload that is not JSON.".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_json_of_a_limited_size() {
        for (given, read) in [
            (&b""[..], "null"),
            (b" {\"a\": 1}", "{\"a\": 1}"),
            (b"\"\"", "\"\""),
        ] {
            assert_eq!(payload(given).unwrap(), read);
        }
        let long = |size: usize| format!("\"{}\"", "x".repeat(size - 2));
        assert!(payload(long(limits::METHOD_PAYLOAD).as_bytes()).is_ok());
        let too_long = long(limits::METHOD_PAYLOAD + 1);
        for bad in [&b"{"[..], b"1 2", b"\xff", b" ", too_long.as_bytes()] {
            assert_eq!(
                payload(bad).unwrap_err().code,
                ErrorCode::BAD_DEVICE_RESPONSE
            );
        }
    }
}
