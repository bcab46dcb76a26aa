//! Stream initiation: the hub is asked for a stream to a device, and answers with its streaming
//! endpoint or a refusal (`docs/protocol.md`, the first table).

use std::fmt;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use common::identity::{DeviceIdentity, StreamName};
use common::secret::Secret;
use common::wire::initiation::{
    self, CONNECT_TIMEOUT, InitiationResult, RESPONSE_TIMEOUT, Timeouts,
};
use http::{Method, StatusCode, header};

use super::client::{Answer, RequestError};
use super::problem::{AnswerError, Refusal, Whom};
use super::{HubApi, InitiateError};

use crate::limits;

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
    /// [`InitiateError`] distinguishes what calls for different actions.
    pub async fn initiate(
        &self,
        identity: &DeviceIdentity,
        name: &StreamName,
        timeouts: Timeouts,
    ) -> Result<Endpoint, InitiateError> {
        match self.initiate_once(identity, name, timeouts).await {
            Err(error) if error.is_about_credential() => match self.another_credential().await? {
                true => self.initiate_once(identity, name, timeouts).await,
                false => Err(error),
            },
            result => result,
        }
    }

    async fn initiate_once(
        &self,
        identity: &DeviceIdentity,
        name: &StreamName,
        timeouts: Timeouts,
    ) -> Result<Endpoint, InitiateError> {
        self.ready().await?;
        let limit = timeouts.connect + timeouts.response + GRACE;
        let authorization = self.authorization().map_err(|_| InitiateError::BadToken)?;
        let request = self
            .http
            .request(Method::POST, &initiation::path(identity, name))
            .header(header::AUTHORIZATION, authorization)
            .header(CONNECT_TIMEOUT, seconds(timeouts.connect))
            .header(RESPONSE_TIMEOUT, seconds(timeouts.response))
            .header(header::CONTENT_LENGTH, 0);
        let answer = self
            .http
            .send(request, Bytes::new(), limit)
            .await
            .map_err(|error| self.failure(error, limit))?;
        // Some hubs answer 202.
        if matches!(answer.status, StatusCode::OK | StatusCode::ACCEPTED) {
            return match InitiationResult::from_headers(&answer.headers) {
                Ok(InitiationResult::Accepted { url, token }) => Ok(Endpoint { url, token }),
                Ok(InitiationResult::Rejected) => Err(InitiateError::Rejected),
                Err(fault) => Err(self.not_expected(fault)),
            };
        }
        let refusal = Refusal {
            status: answer.status,
            headers: answer.headers.clone(),
            body: refusal_body(answer).await,
        };
        Err(refusal.into_error(
            &Whom {
                hub: &self.hub,
                policy: &self.token.policy(),
                token_path: self.token.path(),
                token_expired: self.token.is_expired(),
                identity: Some(identity),
                timeouts,
            },
            SystemTime::now(),
        ))
    }

    /// Why there is no answer.
    pub(super) fn failure(&self, error: RequestError, limit: Duration) -> InitiateError {
        let hub = self.place();
        match error {
            RequestError::Certificate(bad, via) => InitiateError::Certificate {
                hub,
                bad: Box::new(bad),
                via,
            },
            RequestError::Proxy(why) => InitiateError::Proxy(why),
            RequestError::Timeout => InitiateError::Silent { hub, limit },
            RequestError::Unreachable(why) => InitiateError::Unreachable { hub, why },
            RequestError::TooLarge => self.not_expected(AnswerError::TooLarge),
        }
    }

    fn not_expected(&self, fault: impl Into<AnswerError>) -> InitiateError {
        InitiateError::Answer {
            hub: self.place(),
            fault: fault.into(),
        }
    }

    /// Host and port, for a person.
    fn place(&self) -> String {
        format!("{}:{}", self.hub.url_host(), self.hub.https_port())
    }
}

/// As JavaScript and C# print it: `30`, `0.5`.
fn seconds(time: Duration) -> String {
    time.as_secs_f64().to_string()
}

/// A refusal's body; one that cannot be read, or is too large, is as good as none.
pub(super) async fn refusal_body(answer: Answer) -> Bytes {
    answer.body(limits::HTTP_ANSWER).await.unwrap_or_default()
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
