//! HTTPS requests of the ACME library to the CA, sent as all others of the hub.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use common::locks::lock;
use common::net::{DialError, Dialer, HttpsError, https};
use common::tls::CertificateProblem;
use http::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use instant_acme::{BodyWrapper, BytesResponse, HttpClient};

use super::{ANSWER, REQUEST};

/// Let's Encrypt wants to know which program asks.
const AGENT: &str = concat!("stream-hub/", env!("CARGO_PKG_VERSION"), " instant-acme");
/// The longest pause that a CA's `Retry-After` is followed for; Let's Encrypt's limits count weeks.
const LONGEST_PAUSE: Duration = Duration::from_secs(7 * 86_400);

/// Why the CA has given no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpFault {
    /// It gives no answer.
    #[error(transparent)]
    Https(HttpsError),
    /// No root that we have has signed for it.
    #[error(
        "{0} shows a certificate that no CA has signed which is trusted here; name its root with --acme-ca-file"
    )]
    Untrusted(String),
    /// What it names is no HTTPS URL.
    #[error("the CA names {0}, which is not an https URL")]
    Url(String),
    /// The answer is none of an ACME server.
    #[error("{host} answered with status {status}; is it an ACME directory?")]
    Status {
        /// The CA's host.
        host: String,
        /// The HTTP status.
        status: StatusCode,
    },
}

/// Sends the requests of one account. Clones share what the CA has said.
#[derive(Clone)]
pub struct Client {
    dialer: Dialer,
    pause: Arc<Mutex<Option<Duration>>>,
}

impl Client {
    /// Reaches the CA by this dialer.
    pub fn new(dialer: Dialer) -> Self {
        Self {
            dialer,
            pause: Arc::default(),
        }
    }

    /// How long the last refusal wants us to wait, once.
    pub fn take_pause(&self) -> Option<Duration> {
        lock(&self.pause).take()
    }

    async fn exchange(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Result<Response<Full<Bytes>>, HttpFault> {
        let host = request.uri().host().unwrap_or_default().to_owned();
        let answered = https(&self.dialer, request, AGENT, ANSWER, REQUEST).await;
        let mut answer = answered.map_err(fault)?;
        let pause = take_retry_after(answer.headers_mut(), SystemTime::now());
        if !answer.status().is_success() {
            *lock(&self.pause) = pause;
            if !is_problem(answer.headers()) {
                let status = answer.status();
                return Err(HttpFault::Status { host, status });
            }
        }
        Ok(answer.map(Full::new))
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>> {
        let client = self.clone();
        Box::pin(async move {
            match client.exchange(request).await {
                Ok(answer) => Ok(answer.into()),
                Err(fault) => Err(instant_acme::Error::Other(Box::new(fault))),
            }
        })
    }
}

/// The words for a certificate are for clients of a hub, and those for a URL for who has typed it.
fn fault(error: HttpsError) -> HttpFault {
    use CertificateProblem as Problem;
    match error {
        HttpsError::Dial(DialError::Certificate { host, bad, .. })
            if matches!(bad.problem, Problem::Untrusted | Problem::SelfSigned) =>
        {
            HttpFault::Untrusted(host)
        }
        HttpsError::Url(url) => HttpFault::Url(url),
        error => HttpFault::Https(error),
    }
}

/// Whether a refusal has the form of ACME's (RFC 7807).
fn is_problem(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("application/problem+json"))
}

/// `Retry-After`: seconds, or a date. The library gets what we follow: it adds what it is given to the
/// time of day, and that has an end.
fn take_retry_after(headers: &mut HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.remove(RETRY_AFTER)?;
    let text = text.to_str().ok()?.trim();
    let pause = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let date = httpdate::parse_http_date(text).ok()?;
            date.duration_since(now).unwrap_or_default()
        }
    };
    let pause = pause.min(LONGEST_PAUSE);
    headers.insert(RETRY_AFTER, pause.as_secs().into());
    Some(pause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_in_seconds_or_to_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        for (text, seconds) in [
            ("0", Some(0)),
            (" 120 ", Some(120)),
            ("99999999999", Some(7 * 86_400)),
            ("Sun, 09 Sep 2001 01:47:40 GMT", Some(60)),
            // In the past.
            ("Sun, 09 Sep 2001 01:46:39 GMT", Some(0)),
            ("18446744073709551615", Some(7 * 86_400)),
            ("18446744073709551616", None),
            ("soon", None),
            ("-1", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            let wanted = seconds.map(Duration::from_secs);
            assert_eq!(take_retry_after(&mut headers, now), wanted, "{text}");
            let left = headers
                .get(RETRY_AFTER)
                .map(|value| value.to_str().unwrap());
            assert_eq!(left, seconds.map(|seconds| seconds.to_string()).as_deref());
        }
        assert_eq!(take_retry_after(&mut HeaderMap::new(), now), None);
    }
}
