//! One HTTPS request and its whole answer, on a connection of its own: to an identity provider, a CA,
//! a webhook, or a hub that somebody logs in at. These requests are rare.

use std::error::Error;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, HeaderValue, USER_AGENT};
use http::uri::{PathAndQuery, Scheme};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Body;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::dialer::{DialError, Dialer};
use crate::outside;

/// Why there is no answer over HTTPS.
#[derive(Debug, thiserror::Error)]
pub enum HttpsError {
    /// It is no place to ask.
    #[error("{0} is no https URL")]
    Url(String),
    /// It cannot be reached.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The connection was lost, or the answer is not HTTP.
    #[error("{host} gave no answer")]
    Lost {
        /// Who.
        host: String,
        /// What was wrong.
        #[source]
        source: hyper::Error,
    },
    /// The answer's body was lost, or is too long.
    #[error("{host} gave no whole answer")]
    Body {
        /// Who.
        host: String,
        /// What the answer's head says.
        status: StatusCode,
        /// What was wrong.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The answer took too long.
    #[error("{host} did not answer within {} s", limit.as_secs())]
    Timeout {
        /// Who.
        host: String,
        /// How long it had.
        limit: Duration,
    },
}

/// Sends a request by this program, `agent`, and reads the answer of at most `most` bytes, all within
/// `limit`. Redirects are not followed. May be dropped.
///
/// # Errors
/// [`HttpsError`].
pub async fn https<B>(
    dialer: &Dialer,
    request: Request<B>,
    agent: &'static str,
    most: usize,
    limit: Duration,
) -> Result<Response<Bytes>, HttpsError>
where
    B: Body + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let (host, port, request) = in_origin_form(request, agent)?;
    let exchanging = async {
        let stream = dialer.tls(&host, port).await?;
        answer(stream, request, most)
            .await
            .map_err(|none| match none {
                NoAnswer::Lost(source) => HttpsError::Lost {
                    host: host.clone(),
                    source,
                },
                NoAnswer::Body(status, source) => HttpsError::Body {
                    host: host.clone(),
                    status,
                    source,
                },
            })
    };
    match timeout(limit, exchanging).await {
        Ok(answer) => answer,
        Err(_) => Err(HttpsError::Timeout { host, limit }),
    }
}

/// Why a connection brought no whole answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoAnswer {
    /// It was lost, or what came is not HTTP.
    #[error(transparent)]
    Lost(hyper::Error),
    /// The body was lost, or is too long.
    #[error("{1}")]
    Body(StatusCode, #[source] Box<dyn Error + Send + Sync>),
}

/// Sends a request, as it is, over a connection, which ends with it. The caller limits the time.
pub(crate) async fn answer<S, B>(
    stream: S,
    request: Request<B>,
    most: usize,
) -> Result<Response<Bytes>, NoAnswer>
where
    S: AsyncRead + AsyncWrite + Unpin,
    B: Body + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(NoAnswer::Lost)?;
    let answering = async {
        let answer = sender.send_request(request).await;
        let (head, body) = answer.map_err(NoAnswer::Lost)?.into_parts();
        let body = Limited::new(body, most).collect().await;
        let body = body.map_err(|source| NoAnswer::Body(head.status, source))?;
        Ok(Response::from_parts(head, body.to_bytes()))
    };
    let mut answering = pin!(answering);
    tokio::select! {
        answer = &mut answering => answer,
        // It has ended, and what it has brought is there.
        _ = connection => answering.await,
    }
}

/// Where a request goes, and the request as that host gets it.
fn in_origin_form<B>(
    mut request: Request<B>,
    agent: &'static str,
) -> Result<(String, u16, Request<B>), HttpsError> {
    let uri = request.uri();
    let bad = || HttpsError::Url(outside::printable(&uri.to_string()).into_owned());
    if uri.scheme() != Some(&Scheme::HTTPS) {
        return Err(bad());
    }
    let authority = uri.authority().ok_or_else(bad)?;
    let named = HeaderValue::from_str(authority.as_str()).map_err(|_| bad())?;
    // IPv6 in brackets is for URLs only.
    let host = authority.host().trim_matches(['[', ']']).to_owned();
    let port = authority.port_u16().unwrap_or(443);
    let path = uri.path_and_query().cloned();
    *request.uri_mut() = Uri::from(path.unwrap_or(PathAndQuery::from_static("/")));
    request.headers_mut().insert(HOST, named);
    let agent = HeaderValue::from_static(agent);
    request.headers_mut().insert(USER_AGENT, agent);
    Ok((host, port, request))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_goes_to_its_host_and_over_tls_only() {
        let to = |url: &str| in_origin_form(Request::get(url).body(()).unwrap(), "us/1");
        let (host, port, request) = to("https://ca.example:14000/dir?a=b").unwrap();
        assert_eq!((host.as_str(), port), ("ca.example", 14000));
        assert_eq!(request.uri(), "/dir?a=b");
        assert_eq!(request.headers()[HOST], "ca.example:14000");
        assert_eq!(request.headers()[USER_AGENT], "us/1");
        let (host, port, request) = to("https://[::1]").unwrap();
        assert_eq!(
            (host.as_str(), port, request.uri().path()),
            ("::1", 443, "/")
        );
        for url in ["http://ca.example/", "/dir", "ftp://ca.example/"] {
            assert!(matches!(to(url), Err(HttpsError::Url(_))), "{url}");
        }
    }
}
