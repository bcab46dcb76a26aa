//! What every part of the REST API answers with.

use bytes::Bytes;
use common::wire::problem::{self, BodyFamily, ErrorCode};
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde_json::Value;
use time::OffsetDateTime;
use time::macros::format_description;

use crate::iso8601;

/// A whole answer.
pub type Answer = Response<Full<Bytes>>;

/// Names the error code beside the body; the C# SDK compares the two.
pub(super) const ERROR_CODE: HeaderName = HeaderName::from_static("iothub-errorcode");
/// The Node SDK parses a body only under this very content type.
const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

/// A refusal: what the client sees, in IoT Hub's form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// IoT Hub's code; it decides the HTTP status.
    pub code: ErrorCode,
    /// One sentence for a person.
    pub message: String,
    /// The methods that the resource knows, where another one was used (RFC 9110, 15.5.6).
    pub allow: Option<&'static str>,
}

impl Refusal {
    /// A refusal with this code and sentence.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            allow: None,
        }
    }

    /// A method that the resource does not know; `allow` names those that it does.
    pub fn wrong_method(allow: &'static str) -> Self {
        Self {
            allow: Some(allow),
            ..Self::new(
                ErrorCode::METHOD_NOT_ALLOWED,
                format!("The resource knows {allow} only."),
            )
        }
    }

    /// The HTTP answer, with the body of the given family.
    pub fn into_answer(self, family: BodyFamily) -> Answer {
        let now = OffsetDateTime::now_utc();
        let tracking_id = format!(
            "{:032x}-TimeStamp:{}",
            u128::from_be_bytes(common::random::bytes()),
            now.format(format_description!(
                "[month]/[day]/[year] [hour]:[minute]:[second]"
            ))
            .unwrap_or_default(),
        );
        let timestamp = iso8601::format(now);
        let body = problem::body(family, self.code, &self.message, &tracking_id, &timestamp);
        let mut answer = json(&body);
        *answer.status_mut() = self.code.status();
        answer
            .headers_mut()
            .insert(ERROR_CODE, HeaderValue::from_static(self.code.name));
        if let Some(methods) = self.allow {
            let methods = HeaderValue::from_static(methods);
            answer.headers_mut().insert(ALLOW, methods);
        }
        answer
    }
}

/// A success with a JSON body.
pub fn json(body: &Value) -> Answer {
    let mut answer = Response::new(Full::from(body.to_string()));
    answer.headers_mut().insert(CONTENT_TYPE, JSON);
    answer
}

/// An answer without a body.
pub fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status;
    answer
}
