//! Why the hub does not do what was asked, in IoT Hub's form: an error code, which decides the
//! HTTP status, and a sentence.

use std::sync::Arc;

use common::wire::access::APPROVAL_HEADER;
use common::wire::problem::{self, BodyFamily, ErrorCode};
use http::header::{ALLOW, RETRY_AFTER};
use http::{HeaderName, HeaderValue, StatusCode};
use time::OffsetDateTime;
use time::macros::format_description;

use crate::answer::{Answer, json};
use crate::events::{Event, Events, Fault};
use crate::iso8601;
use crate::limits::{Limit, Over};
use crate::query::QueryError;
use crate::registry::{EnrolmentError, JobError, RegistryError};

/// Names the error code beside the body; the C# SDK compares the two.
pub const ERROR_CODE: HeaderName = HeaderName::from_static("iothub-errorcode");

/// A refusal: what the client sees, in IoT Hub's form.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// IoT Hub's code; it decides the HTTP status.
    pub code: ErrorCode,
    /// One sentence for a person.
    pub message: String,
    /// The methods that the resource knows, where another one was used (RFC 9110, 15.5.6).
    pub allow: Option<&'static str>,
    /// After so many seconds it may be tried again, if that is known.
    pub retry_after: Option<u64>,
    /// The request that an approver decides, and in how many seconds to ask again.
    pub approval: Option<(String, u64)>,
    /// The fault of the registry's that is behind it, which [`Refusal::report`] reports.
    pub fault: Option<Arc<RegistryError>>,
}

impl Refusal {
    /// A refusal with this code and sentence.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            allow: None,
            retry_after: None,
            approval: None,
            fault: None,
        }
    }

    /// Reports the fault of the hub's that is behind it, if there is one: for the operator, once for
    /// each request that it refuses. Whoever answers with a refusal does that.
    pub fn report(&self, events: &Events) {
        match self.fault.as_deref() {
            Some(RegistryError::Store(reason)) => {
                events.emit(Event::Fault(Fault::Registry(reason)));
            }
            Some(error) => events.emit(Event::Fault(Fault::Damaged(error))),
            None => {}
        }
    }

    /// A fault of the registry's. The sentence is all that the client learns of it.
    fn of_fault(error: RegistryError, message: String) -> Self {
        Self {
            fault: Some(Arc::new(error)),
            ..Self::new(ErrorCode::SERVER_ERROR, message)
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
        // What there is too much of is gone soon, or nothing can be said of it.
        let is_throttled = self.code.status() == StatusCode::TOO_MANY_REQUESTS;
        if let Some(seconds) = self.retry_after.or(is_throttled.then_some(1)) {
            answer.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        if let Some((id, seconds)) = self.approval {
            let headers = answer.headers_mut();
            headers.insert(RETRY_AFTER, seconds.into());
            if let Ok(id) = HeaderValue::from_str(&id) {
                headers.insert(APPROVAL_HEADER, id);
            }
        }
        if let Some(methods) = self.allow {
            let methods = HeaderValue::from_static(methods);
            answer.headers_mut().insert(ALLOW, methods);
        }
        answer
    }
}

/// IoT Hub's for quotas of a day is another one than for rates.
impl From<Over> for Refusal {
    fn from(over: Over) -> Self {
        let code = match over.limit {
            Limit::BytesPerDay => ErrorCode::QUOTA_EXCEEDED,
            _ => ErrorCode::THROTTLING,
        };
        let seconds = over.retry_seconds();
        Self {
            retry_after: Some(seconds),
            ..Self::new(code, format!("{over}, try again in {seconds} s"))
        }
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
                let message = error.to_string();
                return Self::of_fault(error, message);
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
            // The reason is for the operator, not for the client.
            RegistryError::Store(_) => {
                return Self::of_fault(error, "the registry failed".to_owned());
            }
        };
        Self::new(code, error.to_string())
    }
}
