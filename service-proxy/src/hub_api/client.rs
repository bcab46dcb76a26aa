//! HTTPS requests to one hub: connections that are kept and used again, made as all others
//! are (`common::net`).

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use common::hub_address::HubAddress;
use common::net::{DialError, Dialer, TlsHostStream, Via};
use common::report;
use common::tls::BadCertificate;
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::time::{Instant, timeout_at};
use tower_service::Service;

use crate::limits;

/// Idle connections end before a hub or something between would end them.
const POOL_IDLE: Duration = Duration::from_secs(20);
/// So many are kept for the next streams, some 20 KiB each; what a burst needed beyond
/// goes at once, and the next one shakes hands again.
const IDLE_CONNECTIONS: usize = 32;

const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("service-proxy/", env!("CARGO_PKG_VERSION")));

/// Why there is no answer, or no end of one.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    /// The hub's certificate is not acceptable.
    #[error("its certificate is not acceptable")]
    Certificate(#[source] BadCertificate, Via),
    /// The proxy on the way does not lead to the hub.
    #[error("{0}")]
    Proxy(String),
    /// The hub cannot be reached, the connection was lost, or the answer is no HTTP.
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    /// It was reached and did not answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The answer's body is larger than is wanted.
    #[error("the answer is too large")]
    TooLarge,
}

/// Why there is no connection to a hub, or none any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreachable {
    /// Nothing accepts connections.
    #[error("no connection within {} s", .0.as_secs())]
    Timeout(Duration),
    /// What the system or the library says.
    #[error("{0}")]
    System(String),
}

impl Unreachable {
    /// The words at the bottom: those of the parents only say "error".
    fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text = error.to_string();
            cause = error.source();
        }
        Self::System(text)
    }
}

/// Sends requests to a hub.
#[derive(Clone)]
pub(super) struct HttpClient {
    client: Client<HubConnector, Full<Bytes>>,
    hub: HubAddress,
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpClient({})", self.hub)
    }
}

impl HttpClient {
    /// Connects when it is used.
    pub(super) fn new(hub: &HubAddress, dialer: &Dialer) -> Self {
        let connector = HubConnector {
            host: hub.name().into(),
            port: hub.https_port(),
            dialer: dialer.clone(),
        };
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .http1_max_buf_size(limits::HTTP_ANSWER)
            .build(connector);
        Self {
            client,
            hub: hub.clone(),
        }
    }

    /// Begins a request for a path at the hub, with neither headers nor body.
    pub(super) fn request(&self, method: http::Method, path: &str) -> http::request::Builder {
        let (host, port) = (self.hub.url_host(), self.hub.https_port());
        Request::builder()
            .method(method)
            .uri(format!("https://{host}:{port}{path}"))
            .header(header::USER_AGENT, USER_AGENT)
            .header(header::ACCEPT, "*/*")
    }

    /// Sends a request, with this body unless it is empty, and waits for its answer's head, within
    /// `limit`; what is read of the answer's body falls under it, too. May be dropped: that gives
    /// the request up.
    ///
    /// # Errors
    /// [`RequestError`].
    pub(super) async fn send(
        &self,
        request: http::request::Builder,
        body: Bytes,
        limit: Duration,
    ) -> Result<Answer, RequestError> {
        let deadline = Instant::now() + limit;
        let request = request
            .body(Full::new(body))
            .map_err(|error| Unreachable::of(&error))?;
        let answer = timeout_at(deadline, self.client.request(request))
            .await
            .map_err(|_| RequestError::Timeout)?
            .map_err(|error| failure(&error))?;
        let (head, body) = answer.into_parts();
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body,
            deadline,
        })
    }
}

/// An answer whose body was not read yet.
pub(super) struct Answer {
    /// Its status.
    pub(super) status: StatusCode,
    /// Its headers.
    pub(super) headers: HeaderMap,
    body: Incoming,
    deadline: Instant,
}

impl Answer {
    /// The body, if it has at most `most` bytes and comes in time. May be dropped: that gives the
    /// answer up.
    ///
    /// # Errors
    /// [`RequestError`].
    pub(super) async fn body(mut self, most: usize) -> Result<Bytes, RequestError> {
        let mut whole = BytesMut::new();
        while let Some(frame) = timeout_at(self.deadline, self.body.frame())
            .await
            .map_err(|_| RequestError::Timeout)?
        {
            let frame = frame.map_err(|error| Unreachable::of(&error))?;
            let Ok(piece) = frame.into_data() else {
                continue;
            };
            if whole.len() + piece.len() > most {
                return Err(RequestError::TooLarge);
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }
}

fn failure(error: &hyper_util::client::legacy::Error) -> RequestError {
    match common::tls::find::<DialError>(error) {
        Some(DialError::Certificate { bad, via, .. }) => {
            RequestError::Certificate(bad.clone(), via.clone())
        }
        Some(error @ DialError::Proxy { .. }) => RequestError::Proxy(report::chain(error)),
        Some(DialError::Timeout { limit, .. }) => Unreachable::Timeout(*limit).into(),
        Some(error) => Unreachable::of(error).into(),
        None => Unreachable::of(error).into(),
    }
}

/// Connects to the hub, whatever the request's URL says: it is the hub's.
#[derive(Clone)]
struct HubConnector {
    host: Arc<str>,
    port: u16,
    dialer: Dialer,
}

impl Service<Uri> for HubConnector {
    type Response = HubConnection;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<HubConnection, DialError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { host, port, dialer } = self.clone();
        Box::pin(async move {
            let stream = dialer.tls(&host, port).await?;
            Ok(HubConnection(TokioIo::new(stream)))
        })
    }
}

/// A TLS connection to the hub, as the library wants one.
struct HubConnection(TokioIo<TlsHostStream>);

impl Connection for HubConnection {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for HubConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl Write for HubConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_the_system_reports_reaches_a_person() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let tls = rustls::ClientConfig::builder_with_provider(common::tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let hub = HubAddress::parse(&format!("127.0.0.1:{port}")).unwrap();
        let client = HttpClient::new(&hub, &Dialer::new(&Arc::new(tls)));
        let request = client.request(http::Method::GET, "/");
        let answer = client
            .send(request, Bytes::new(), Duration::from_secs(30))
            .await;
        let Err(RequestError::Unreachable(why)) = answer.map(|answer| answer.status) else {
            panic!("it was reached");
        };
        let shown = why.to_string();
        assert!(shown.to_lowercase().contains("refused"), "{shown}");
    }
}
