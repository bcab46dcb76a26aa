//! One call of the service API with JSON in its body and in its answer, and why it fails, by what a
//! person would do about it.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use common::backoff::Backoff;
use common::identity::DeviceIdentity;
use common::verdict::Verdict;
use common::wire::initiation::Timeouts;
use common::wire::problem::ErrorCode;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::client::{Answer, RequestError};
use super::problem::{Refusal, Whom};
use super::streams::refusal_body;
use super::{HubApi, InitiateError};

use crate::limits;

/// The API version of all calls except stream initiations.
const API_VERSION: &str = "2021-04-12";
/// Delays between attempts when the hub throttles and does not say for how long.
const THROTTLE_SHORTEST: Duration = Duration::from_millis(500);
const THROTTLE_LONGEST: Duration = Duration::from_secs(8);

/// Why a call has no result. Each, with its cause, is a sentence with what to do next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The hub cannot be reached, or refuses: as for a stream.
    #[error(transparent)]
    Hub(#[from] InitiateError),
    /// The device cannot be called now.
    #[error(
        "the device is not connected to the hub, or takes no direct methods (waited {} s); start device-proxy there, and check that the device is enabled",
        waited.as_secs()
    )]
    Offline {
        /// How long the hub was asked to wait.
        waited: Duration,
    },
    /// The device is connected, but did not answer a direct method.
    #[error(
        "the device did not answer within {} s; is it busy, or does it not know the method? --timeout waits longer",
        waited.as_secs()
    )]
    NoAnswer {
        /// How long the hub was asked to wait.
        waited: Duration,
    },
    /// The twin was changed since its etag was read.
    #[error("its etag has changed: read the twin again and repeat the change")]
    EtagChanged,
    /// The etag cannot stand in a request.
    #[error("the etag has characters that cannot be sent; give it as the twin shows it")]
    BadEtag,
    /// The hub has no job of that id.
    #[error("the hub has no such job; `service-proxy job list` shows those that it has")]
    UnknownJob,
    /// The hub has a job of that id already.
    #[error("the hub has a job of that id already; give another --id")]
    JobExists,
    /// The hub does not know the part of the API.
    #[error("the hub does not offer this (status {0})")]
    NotOffered(StatusCode),
    /// The answer is larger than it can be.
    #[error("the hub's answer is larger than {0} bytes; is HostName really a hub?")]
    TooLarge(usize),
    /// The answer is not what the protocol says.
    #[error("the hub's answer is not {0}; is HostName really a hub?")]
    Answer(&'static str),
}

impl CallError {
    /// Whether its text says which hub it is about.
    pub fn names_hub(&self) -> bool {
        matches!(
            self,
            Self::Hub(
                InitiateError::Unreachable { .. }
                    | InitiateError::Certificate { .. }
                    | InitiateError::Proxy(_)
                    | InitiateError::Silent { .. }
                    | InitiateError::Answer { .. }
            )
        )
    }

    /// What can cure it.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Hub(error) => error.verdict(),
            Self::Offline { .. } | Self::NoAnswer { .. } => Verdict::Retry,
            Self::EtagChanged
            | Self::BadEtag
            | Self::UnknownJob
            | Self::JobExists
            | Self::NotOffered(_)
            | Self::TooLarge(_)
            | Self::Answer(_) => Verdict::Never,
        }
    }
}

/// What is asked of the hub.
pub(super) struct Call<'a> {
    pub(super) method: Method,
    /// With its query.
    pub(super) path: String,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// JSON, if there is a body.
    pub(super) body: Option<String>,
    /// The device or module that it is about, if it is about one.
    pub(super) identity: Option<&'a DeviceIdentity>,
    /// How long the hub was asked to wait for the device.
    pub(super) timeouts: Timeouts,
    /// How long the answer may take.
    pub(super) limit: Duration,
    /// The most bytes of an answer.
    pub(super) most: usize,
}

impl Call<'_> {
    /// One without headers and body, that the hub answers by itself.
    pub(super) fn new(method: Method, path: String) -> Self {
        Self {
            method,
            path,
            headers: Vec::new(),
            body: None,
            identity: None,
            timeouts: Timeouts {
                connect: Duration::ZERO,
                response: Duration::ZERO,
            },
            limit: limits::CALL,
            most: limits::HTTP_ANSWER,
        }
    }
}

/// Path and query of a call; the names and values of `query` are encoded already.
pub(super) fn path(path: &str, query: &[(&str, &str)]) -> String {
    let mut text = format!("{path}?api-version={API_VERSION}");
    for (name, value) in query {
        text.extend(["&", name, "=", value]);
    }
    text
}

/// The JSON of a successful answer.
pub(super) struct Reply {
    pub(super) headers: HeaderMap,
    pub(super) document: Value,
}

/// Why a call was not answered with success.
pub(super) enum Failure {
    /// There is no answer.
    Hub(InitiateError),
    /// The hub refuses.
    Refused(Refusal),
}

impl HubApi {
    /// Calls the hub, again when its key was rotated, and while it throttles, for
    /// [`limits::THROTTLED`] at most. Other refusals and failures are final: a call may have had its
    /// effect.
    pub(super) async fn call(&self, call: &Call<'_>) -> Result<Reply, CallError> {
        let started = Instant::now();
        let mut backoff = Backoff::new(THROTTLE_SHORTEST, THROTTLE_LONGEST);
        loop {
            let (why, retry_after) = match self.call_once(call).await {
                Err(CallError::Hub(error)) if error.is_about_credential() => {
                    return match self.another_credential().await? {
                        true => self.call_once(call).await,
                        false => Err(error.into()),
                    };
                }
                Err(CallError::Hub(InitiateError::Throttled { why, retry_after })) => {
                    (why, retry_after)
                }
                result => return result,
            };
            let delay = retry_after.unwrap_or_default().max(backoff.next_delay());
            if started.elapsed() + delay >= limits::THROTTLED {
                return Err(InitiateError::Throttled { why, retry_after }.into());
            }
            sleep(delay).await;
        }
    }

    pub(super) async fn call_once(&self, call: &Call<'_>) -> Result<Reply, CallError> {
        let answer = self.ask(call).await.map_err(|failure| match failure {
            Failure::Hub(error) => error.into(),
            Failure::Refused(refusal) => self.judge(refusal, call),
        })?;
        let headers = answer.headers.clone();
        let body = answer.body(call.most).await.map_err(|error| match error {
            RequestError::TooLarge => CallError::TooLarge(call.most),
            error => self.failure(error, call.limit).into(),
        })?;
        let document = if body.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&body).map_err(|_| CallError::Answer("JSON"))?
        };
        Ok(Reply { headers, document })
    }

    /// Sends a call once; its answer is a success whose body was not read yet.
    pub(super) async fn ask(&self, call: &Call<'_>) -> Result<Answer, Failure> {
        self.ready().await.map_err(Failure::Hub)?;
        let authorization = self
            .authorization()
            .map_err(|_| Failure::Hub(InitiateError::BadToken))?;
        let mut request = self
            .http
            .request(call.method.clone(), &call.path)
            .header(header::AUTHORIZATION, authorization);
        for (name, value) in &call.headers {
            request = request.header(name, value);
        }
        let body = match &call.body {
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json; charset=utf-8");
                Bytes::copy_from_slice(body.as_bytes())
            }
            None => {
                if call.method != Method::GET {
                    request = request.header(header::CONTENT_LENGTH, 0);
                }
                Bytes::new()
            }
        };
        let answer = self
            .http
            .send(request, body, call.limit)
            .await
            .map_err(|error| Failure::Hub(self.failure(error, call.limit)))?;
        if answer.status.is_success() {
            return Ok(answer);
        }
        Err(Failure::Refused(Refusal {
            status: answer.status,
            headers: answer.headers.clone(),
            body: refusal_body(answer).await,
        }))
    }

    /// What a refusal means.
    fn judge(&self, refusal: Refusal, call: &Call<'_>) -> CallError {
        let code = refusal.code();
        let is = |wanted: ErrorCode| code == Some(wanted.number);
        let is_of_job = call.path.starts_with("/jobs/");
        match refusal.status {
            StatusCode::NOT_FOUND if is_of_job && is(ErrorCode::JOB_NOT_FOUND) => {
                CallError::UnknownJob
            }
            StatusCode::CONFLICT if is_of_job && call.method == Method::PUT => CallError::JobExists,
            StatusCode::PRECONDITION_FAILED => CallError::EtagChanged,
            StatusCode::NOT_FOUND if is(ErrorCode::DEVICE_NOT_ONLINE) => CallError::Offline {
                waited: call.timeouts.connect,
            },
            StatusCode::GATEWAY_TIMEOUT if is(ErrorCode::GATEWAY_TIMEOUT) => CallError::NoAnswer {
                waited: call.timeouts.response,
            },
            // Of a device or a job there is a code that says what was not found.
            StatusCode::NOT_FOUND if code.is_none() || is(ErrorCode::NOT_FOUND) => {
                CallError::NotOffered(refusal.status)
            }
            StatusCode::NOT_IMPLEMENTED | StatusCode::METHOD_NOT_ALLOWED => {
                CallError::NotOffered(refusal.status)
            }
            _ => self.refused(refusal, call).into(),
        }
    }

    /// What a refusal means that is the same for every call.
    pub(super) fn refused(&self, refusal: Refusal, call: &Call<'_>) -> InitiateError {
        refusal.into_error(
            &Whom {
                hub: &self.hub,
                policy: &self.token.policy(),
                token_path: self.token.path(),
                token_expired: self.token.is_expired(),
                identity: call.identity,
                timeouts: call.timeouts,
            },
            SystemTime::now(),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use common::connection_string::ServiceConnectionString;
    use common::identity::DeviceId;
    use common::net::Dialer;
    use common::wire::problem::{BodyFamily, body};

    use super::*;

    fn api() -> HubApi {
        let tls = rustls::ClientConfig::builder_with_provider(common::tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let text = "HostName=localhost:1;SharedAccessKeyName=p;SharedAccessKey=AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        let service = ServiceConnectionString::parse(text).unwrap();
        HubApi::new(&service, None, &Dialer::new(&Arc::new(tls)))
    }

    fn judged(path: &str, status: u16, code: Option<ErrorCode>) -> CallError {
        let identity = DeviceIdentity::of_device(DeviceId::parse("d").unwrap());
        let call = Call {
            identity: path.starts_with("/twins/").then_some(&identity),
            timeouts: Timeouts {
                connect: Duration::from_secs(3),
                response: Duration::from_secs(5),
            },
            ..Call::new(Method::PUT, path.to_owned())
        };
        let body = code.map(|code| body(BodyFamily::Registry, code, "text", "t", "z").to_string());
        let refusal = Refusal {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: body.unwrap_or_default().into(),
        };
        api().judge(refusal, &call)
    }

    #[test]
    fn refusals_are_told_apart() {
        use CallError as E;
        use ErrorCode as C;
        let jobs = "/jobs/v2/j";
        assert_eq!(judged(jobs, 404, Some(C::JOB_NOT_FOUND)), E::UnknownJob);
        assert_eq!(judged(jobs, 409, None), E::JobExists);
        assert_eq!(
            judged(jobs, 404, None),
            E::NotOffered(StatusCode::NOT_FOUND)
        );
        assert_eq!(
            judged("/twins/d/methods", 504, Some(C::GATEWAY_TIMEOUT)),
            E::NoAnswer {
                waited: Duration::from_secs(5)
            }
        );
        let offline = E::Offline {
            waited: Duration::from_secs(3),
        };
        let error = judged("/twins/d/methods", 404, Some(C::DEVICE_NOT_ONLINE));
        assert_eq!(error, offline);
        let error = judged("/twins/d", 404, Some(C::DEVICE_NOT_FOUND));
        assert_eq!(error, E::Hub(InitiateError::UnknownDevice("d".to_owned())));
        let error = judged("/twins/d", 412, Some(C::PRECONDITION_FAILED));
        assert_eq!(error, E::EtagChanged);
        let error = judged("/messages/events", 404, Some(C::NOT_FOUND));
        assert_eq!(error, E::NotOffered(StatusCode::NOT_FOUND));
        let error = judged("/devices/query", 400, Some(C::ARGUMENT_INVALID)).to_string();
        assert!(error.contains("400") && error.contains("text"), "{error}");
    }
}
