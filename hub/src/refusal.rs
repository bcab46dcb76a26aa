//! Why the hub does not do what was asked, in IoT Hub's form: an error code, which decides the
//! HTTP status, and a sentence.

use common::wire::problem::{self, BodyFamily, ErrorCode};
use http::header::{ALLOW, RETRY_AFTER};
use http::{HeaderName, HeaderValue, StatusCode};
use time::OffsetDateTime;
use time::macros::format_description;

use crate::answer::{Answer, json};
use crate::events::{Event, Fault};
use crate::iso8601;
use crate::query::QueryError;
use crate::registry::{EnrolmentError, JobError, RegistryError};

/// Names the error code beside the body; the C# SDK compares the two.
pub const ERROR_CODE: HeaderName = HeaderName::from_static("iothub-errorcode");

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
        if self.code.status() == StatusCode::TOO_MANY_REQUESTS {
            // What there is too much of is gone soon, or nothing can be said of it.
            let seconds = HeaderValue::from_static("1");
            answer.headers_mut().insert(RETRY_AFTER, seconds);
        }
        if let Some(methods) = self.allow {
            let methods = HeaderValue::from_static(methods);
            answer.headers_mut().insert(ALLOW, methods);
        }
        answer
    }
}

impl From<QueryError> for Refusal {
    fn from(error: QueryError) -> Self {
        Self::new(ErrorCode::ARGUMENT_INVALID, error.to_string())
    }
}

impl From<RegistryError> for Refusal {
    fn from(error: RegistryError) -> Self {
        let code = match &error {
            RegistryError::NotFound(id) if id.module.is_some() => ErrorCode::MODULE_NOT_FOUND,
            RegistryError::NotFound(_) => ErrorCode::DEVICE_NOT_FOUND,
            RegistryError::AlreadyExists(id) if id.module.is_some() => {
                ErrorCode::MODULE_ALREADY_EXISTS
            }
            RegistryError::AlreadyExists(_) => ErrorCode::DEVICE_ALREADY_EXISTS,
            RegistryError::PreconditionFailed(_) => ErrorCode::PRECONDITION_FAILED,
            RegistryError::TwinRule(rule) => rule.code(),
            RegistryError::Damaged { .. } => {
                Event::Fault(Fault::Damaged(&error)).emit();
                return Self::new(ErrorCode::SERVER_ERROR, error.to_string());
            }
            RegistryError::QueueFull(_) => ErrorCode::QUEUE_FULL,
            RegistryError::Job(JobError::NotFound(_)) => ErrorCode::JOB_NOT_FOUND,
            RegistryError::Job(JobError::Exists(_)) => ErrorCode::CONFLICT,
            RegistryError::Job(JobError::TooMany) => ErrorCode::THROTTLING,
            RegistryError::Enrolment(EnrolmentError::Unknown) => ErrorCode::UNAUTHORIZED,
            RegistryError::Enrolment(_) => ErrorCode::ARGUMENT_INVALID,
            RegistryError::Busy => ErrorCode::THROTTLING,
            RegistryError::TooLong => ErrorCode::GENERIC_TIMEOUT,
            RegistryError::Scope(_) => ErrorCode::ARGUMENT_INVALID,
            RegistryError::Store(reason) => {
                // The reason is for the operator, not for the client.
                Event::Fault(Fault::Registry(reason)).emit();
                return Self::new(ErrorCode::SERVER_ERROR, "the registry failed");
            }
        };
        Self::new(code, error.to_string())
    }
}
