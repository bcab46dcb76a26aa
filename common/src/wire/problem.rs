//! Refusals over HTTP: IoT Hub's error codes, and the two families of bodies that SDKs parse
//! (`docs/protocol.md`, "Errors over REST").

use http::StatusCode;
use serde_json::{Value, json};

/// One of IoT Hub's error codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ErrorCode {
    /// Six digits; the first three are the HTTP status.
    pub number: u32,
    /// The name in the header `iothub-errorcode`.
    pub name: &'static str,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $constant:ident = $number:literal $name:literal;)*) => {
        impl ErrorCode {
            $($(#[$doc])* pub const $constant: Self = Self { number: $number, name: $name };)*

            const ALL: &'static [Self] = &[$(Self::$constant),*];
        }
    };
}

codes! {
    /// A value is outside its range or grammar.
    ARGUMENT_INVALID = 400004 "ArgumentInvalid";
    /// The body cannot be read.
    FORMAT_ERROR = 400006 "IotHubFormatError";
    /// The same id twice in one bulk request.
    DEVICE_DEFINED_MULTIPLE_TIMES = 400011 "DeviceDefinedMultipleTimes";
    /// Some items of a bulk request failed.
    BULK_FAILURE = 400013 "BulkRegistryOperationFailure";
    /// Bad or missing token, unknown policy, missing permission.
    UNAUTHORIZED_ACCESS = 401002 "IotHubUnauthorizedAccess";
    /// Expired token, or a device's wrong key.
    UNAUTHORIZED = 401003 "IotHubUnauthorized";
    /// A quota of a day is used up.
    QUOTA_EXCEEDED = 403002 "IotHubQuotaExceeded";
    /// Too many messages wait for the device.
    QUEUE_FULL = 403004 "DeviceMaximumQueueDepthExceeded";
    /// The access file of the hub does not allow it. Ours: IoT Hub has no such file.
    ACCESS_DENIED = 403901 "AccessDenied";
    /// An approver has refused it. Ours.
    APPROVAL_REFUSED = 403902 "ApprovalRefused";
    /// No such device.
    DEVICE_NOT_FOUND = 404001 "DeviceNotFound";
    /// No such module.
    MODULE_NOT_FOUND = 404010 "ModuleNotFound";
    /// No such resource at all.
    NOT_FOUND = 404000 "GenericNotFound";
    /// No such job.
    JOB_NOT_FOUND = 404002 "JobNotFound";
    /// The device did not connect in time.
    DEVICE_NOT_ONLINE = 404103 "DeviceNotOnline";
    /// The resource does not know the method.
    METHOD_NOT_ALLOWED = 405000 "GenericMethodNotAllowed";
    /// What is to be made exists already, and has no code of its own.
    CONFLICT = 409000 "GenericConflict";
    /// The device exists already.
    DEVICE_ALREADY_EXISTS = 409001 "DeviceAlreadyExists";
    /// The module exists already.
    MODULE_ALREADY_EXISTS = 409301 "ModuleAlreadyExistsOnDevice";
    /// The etag does not match.
    PRECONDITION_FAILED = 412001 "PreconditionFailed";
    /// The body is too large.
    MESSAGE_TOO_LARGE = 413001 "MessageTooLarge";
    /// It waits for an approver: ask again. Ours.
    APPROVAL_PENDING = 423901 "ApprovalPending";
    /// Too many or too fast.
    THROTTLING = 429001 "ThrottlingException";
    /// An internal error.
    SERVER_ERROR = 500001 "ServerError";
    /// The device's answer is none. IoT Hub documents no code for it; Node calls the status 502
    /// "bad device response".
    BAD_DEVICE_RESPONSE = 502000 "BadDeviceResponse";
    /// It took too long.
    GENERIC_TIMEOUT = 500008 "GenericTimeout";
    /// This hub does not implement it.
    NOT_IMPLEMENTED = 501000 "NotImplemented";
    /// The hub is stopping or not ready.
    SERVICE_UNAVAILABLE = 503001 "ServiceUnavailable";
    /// The device did not answer in time.
    GATEWAY_TIMEOUT = 504101 "GatewayTimeout";
}

impl ErrorCode {
    /// The HTTP status that the code belongs to.
    pub fn status(self) -> StatusCode {
        u16::try_from(self.number / 1000)
            .ok()
            .and_then(|status| StatusCode::from_u16(status).ok())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Finds a code by the name in the header `iothub-errorcode`.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.name == name)
    }
}

/// Which of the two families of bodies a part of the API answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFamily {
    /// `ErrorCode:Name;text`: registry and twins.
    Registry,
    /// A JSON text inside `Message`: direct methods and streams.
    Nested,
}

/// Builds an error body. `timestamp` is ISO 8601 UTC with seven digits of fraction. There is no
/// `info` object: one SDK fails to read the code beside it.
pub fn body(
    family: BodyFamily,
    code: ErrorCode,
    message: &str,
    tracking_id: &str,
    timestamp: &str,
) -> Value {
    // One SDK splits at `;`: it may not occur in texts.
    let message = message.replace(';', ",");
    match family {
        BodyFamily::Registry => json!({
            "Message": format!("ErrorCode:{};{message}", code.name),
            "ExceptionMessage": format!("Tracking ID:{tracking_id}"),
        }),
        BodyFamily::Nested => json!({
            "Message": json!({
                "errorCode": code.number,
                "trackingId": tracking_id,
                "message": message,
                "timestampUtc": timestamp,
            }).to_string(),
            "ExceptionMessage": "",
        }),
    }
}

/// An error body of either family, as a client reads it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Problem {
    /// The code's number, when the body has one.
    pub number: Option<u32>,
    /// The text for people, when the body has one.
    pub message: Option<String>,
}

impl Problem {
    /// Reads an error body; anything unreadable is an empty problem.
    pub fn from_body(body: &[u8]) -> Self {
        let Ok(outer) = serde_json::from_slice::<Value>(body) else {
            return Self::default();
        };
        let Some(text) = outer
            .get("Message")
            .or_else(|| outer.get("message"))
            .and_then(Value::as_str)
        else {
            return Self::default();
        };
        if let Ok(inner) = serde_json::from_str::<Value>(text) {
            return Self {
                number: inner
                    .get("errorCode")
                    .and_then(Value::as_u64)
                    .and_then(|number| u32::try_from(number).ok()),
                message: inner
                    .get("message")
                    .and_then(Value::as_str)
                    .map(str::to_owned),
            };
        }
        match text
            .strip_prefix("ErrorCode:")
            .and_then(|t| t.split_once(';'))
        {
            Some((name, message)) => Self {
                number: ErrorCode::by_name(name.trim()).map(|code| code.number),
                message: Some(message.trim().to_owned()),
            },
            None => Self {
                number: None,
                message: Some(text.to_owned()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_carry_their_status() {
        assert_eq!(ErrorCode::DEVICE_NOT_ONLINE.status(), StatusCode::NOT_FOUND);
        assert_eq!(
            ErrorCode::GATEWAY_TIMEOUT.status(),
            StatusCode::GATEWAY_TIMEOUT
        );
        assert_eq!(
            ErrorCode::by_name("ThrottlingException"),
            Some(ErrorCode::THROTTLING)
        );
    }

    #[test]
    fn both_families_round_trip() {
        for family in [BodyFamily::Registry, BodyFamily::Nested] {
            let body =
                body(family, ErrorCode::DEVICE_NOT_ONLINE, "not; here", "t", "z").to_string();
            assert!(!body.contains("\"info\""));
            let problem = Problem::from_body(body.as_bytes());
            assert_eq!(problem.number, Some(404103));
            assert_eq!(problem.message.as_deref(), Some("not, here"));
        }
    }

    #[test]
    fn a_body_of_iot_hub_is_read() {
        let body = br#"{"Message":"{\"errorCode\":504101,\"trackingId\":\"x\",\"message\":\"Timed out waiting for the response from device.\",\"info\":{\"timeout\":\"00:01:00\"},\"timestampUtc\":\"2020-02-11T01:36:39.4565857Z\"}","ExceptionMessage":""}"#;
        assert_eq!(Problem::from_body(body).number, Some(504101));
        assert_eq!(Problem::from_body(b"<html>"), Problem::default());
        assert_eq!(Problem::from_body(br#"{"Message":5}"#), Problem::default());
    }
}
