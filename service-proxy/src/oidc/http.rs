//! Requests to the hub and to the identity provider, with bodies as the OAuth library has them.

use std::time::Duration;

use ::http::{Request, Response};
use bytes::Bytes;
use common::net::{Dialer, HttpsError, https};
use http_body_util::Full;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(30);
/// Its most bytes.
const ANSWER: usize = 1 << 20;
const AGENT: &str = concat!("service-proxy/", env!("CARGO_PKG_VERSION"));

/// Sends a request and reads the answer. Redirects are not followed. May be dropped.
///
/// # Errors
/// [`HttpsError`].
pub(super) async fn send(
    dialer: Dialer,
    request: Request<Vec<u8>>,
) -> Result<Response<Vec<u8>>, HttpsError> {
    let request = request.map(|body| Full::new(Bytes::from(body)));
    let answer = https(&dialer, request, AGENT, ANSWER, LIMIT).await?;
    Ok(answer.map(|body| body.to_vec()))
}
