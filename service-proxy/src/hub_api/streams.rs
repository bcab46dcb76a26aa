//! Stream initiation: ask the hub for a stream to a device, and learn where it is or
//! why it is not (`device-streams.md` section 2).

use std::error::Error as _;
use std::fmt;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use common::identity::{DeviceIdentity, StreamName};
use common::limits;
use common::secret::Secret;
use common::tls::CertificateProblem;
use common::wire::initiation::{
    self, CONNECT_TIMEOUT, InitiationResult, RESPONSE_TIMEOUT, Timeouts,
};
use http::{StatusCode, header};

use super::problem::{Refusal, Whom};
use super::{HubApi, InitiateError};

/// What an answer may take beyond the time the hub waits for the device.
const GRACE: Duration = Duration::from_secs(15);

/// Where the service's leg of an accepted stream is opened.
#[derive(Clone)]
pub struct Endpoint {
    /// The streaming endpoint; not for logs.
    pub url: String,
    /// The bearer token.
    pub token: Secret,
}

impl fmt::Debug for Endpoint {
    /// Neither URL nor token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Endpoint")
    }
}

impl HubApi {
    /// Asks for a stream of this name to a device or module. Ends at latest 15 s after
    /// both timeouts; dropping the future gives the stream up.
    ///
    /// # Errors
    /// [`InitiateError`] tells apart what a person would do something different about.
    pub async fn initiate(
        &self,
        identity: &DeviceIdentity,
        name: &StreamName,
        timeouts: Timeouts,
    ) -> Result<Endpoint, InitiateError> {
        let limit = timeouts.connect + timeouts.response + GRACE;
        let authorization = self
            .authorization()
            .map_err(|_| InitiateError::Protocol("the token cannot be sent".to_owned()))?;
        let answer = self
            .http
            .post(self.url(&initiation::path(identity, name)))
            .header(header::AUTHORIZATION, authorization)
            .header(CONNECT_TIMEOUT, seconds(timeouts.connect))
            .header(RESPONSE_TIMEOUT, seconds(timeouts.response))
            .header(header::CONTENT_LENGTH, 0)
            .timeout(limit)
            .send()
            .await
            .map_err(|error| self.unreachable(error, limit))?;
        // Some hubs answer 202.
        if matches!(answer.status(), StatusCode::OK | StatusCode::ACCEPTED) {
            return match InitiationResult::from_headers(answer.headers()) {
                Ok(InitiationResult::Accepted { url, token }) => Ok(Endpoint { url, token }),
                Ok(InitiationResult::Rejected) => Err(InitiateError::Rejected),
                Err(error) => Err(InitiateError::Protocol(error.to_string())),
            };
        }
        let refusal = Refusal {
            status: answer.status(),
            headers: answer.headers().clone(),
            body: bounded_body(answer).await,
        };
        Err(refusal.into_error(
            &Whom {
                hub: &self.hub,
                policy: self.token.policy(),
                token_expired: self.token.is_expired(),
                identity,
                timeouts,
            },
            SystemTime::now(),
        ))
    }

    /// Why there is no answer.
    pub(super) fn unreachable(&self, error: reqwest::Error, limit: Duration) -> InitiateError {
        let hub = format!("{}:{}", self.hub.url_host(), self.hub.https_port());
        if let Some(problem) = CertificateProblem::find(&error) {
            return InitiateError::Certificate { hub, problem };
        }
        if error.is_timeout() && !error.is_connect() {
            return InitiateError::Silent { hub, limit };
        }
        let reason = if error.is_timeout() {
            format!("no connection within {} s", limits::DIAL.as_secs())
        } else {
            innermost(&error)
        };
        InitiateError::Unreachable { hub, reason }
    }
}

/// What the system or the library said at the bottom: its parents only say "error".
fn innermost(error: &reqwest::Error) -> String {
    let mut text = None;
    let mut cause = error.source();
    while let Some(error) = cause {
        text = Some(error.to_string());
        cause = error.source();
    }
    text.unwrap_or_else(|| "the request failed".to_owned())
}

/// As JavaScript and C# print it: `30`, `0.5`.
fn seconds(time: Duration) -> String {
    time.as_secs_f64().to_string()
}

/// A refusal's body up to a limit; what cannot be read is as good as nothing.
pub(super) async fn bounded_body(mut answer: reqwest::Response) -> Bytes {
    let mut body = BytesMut::new();
    while let Ok(Some(piece)) = answer.chunk().await {
        if body.len() + piece.len() > limits::HTTP_ANSWER {
            break;
        }
        body.extend_from_slice(&piece);
    }
    body.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_plain_decimals() {
        assert_eq!(seconds(Duration::from_secs(30)), "30");
        assert_eq!(seconds(Duration::ZERO), "0");
        assert_eq!(seconds(Duration::from_millis(500)), "0.5");
    }

    #[test]
    fn endpoints_are_silent() {
        let endpoint = Endpoint {
            url: "wss://h:1/secret".into(),
            token: Secret::new("secret"),
        };
        assert!(!format!("{endpoint:?}").contains("secret"));
    }
}
