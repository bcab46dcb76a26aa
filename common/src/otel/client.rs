//! What brings spans to the collector: a request over plain HTTP/1.1, on a connection of its own. A
//! collector stands on the same machine or network; what goes further is its own affair.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri, header};
use http_body_util::Full;
use opentelemetry_http::{HttpClient, HttpError};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::net;

/// How long a request may take.
const TIME: Duration = Duration::from_secs(10);
/// Bytes of an answer.
const ANSWER: usize = 64 << 10;

/// A client without connections.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client;

/// Why a request came to no answer.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the collector's URL has to begin with http:// and name a host")]
    Url,
    #[error("the collector did not answer within {} s", TIME.as_secs())]
    Late,
}

#[async_trait::async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        match timeout(TIME, send(request)).await {
            Ok(result) => result,
            Err(_) => Err(Box::new(Failure::Late)),
        }
    }
}

async fn send(mut request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let uri = request.uri().clone();
    let host = uri.host().filter(|_| uri.scheme_str() == Some("http"));
    let host = host.ok_or(Failure::Url)?;
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let socket = TcpStream::connect((name, uri.port_u16().unwrap_or(80))).await?;
    let authority = uri.authority().ok_or(Failure::Url)?.as_str();
    let value = authority.parse()?;
    request.headers_mut().insert(header::HOST, value);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse::<Uri>()?;
    Ok(net::answer(socket, request.map(Full::new), ANSWER).await?)
}
