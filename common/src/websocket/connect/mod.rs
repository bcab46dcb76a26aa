//! The client's end: dial, upgrade, and errors that tell a person what to do.

use std::fmt;
use std::sync::Arc;

use ::bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tungstenite::client::IntoClientRequest as _;
use tungstenite::handshake::client::{Request, generate_request};
use tungstenite::handshake::derive_accept_key;

use super::frames::Role;
use super::{WebSocket, WebSocketBytes, exchange};
use crate::dial::{self, DialError};
use crate::limits;
use crate::secret::Secret;
use crate::verdict::Verdict;
use crate::wire::topics::{MQTT_SUBPROTOCOL, MQTT_WEBSOCKET_PATH};

/// Why a WebSocket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL is not one of a streaming endpoint. It is not repeated: it may carry secrets.
    #[error("the streaming endpoint's URL is not a wss:// URL with a host")]
    BadUrl,
    /// The host cannot be reached.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The host answered the upgrade with another status.
    #[error("{host}:{port} answered the WebSocket upgrade with {status}")]
    Refused {
        /// The host name.
        host: String,
        /// The TCP port.
        port: u16,
        /// What it answered instead of 101.
        status: StatusCode,
    },
    /// The host did not answer the upgrade in time.
    #[error("{host}:{port} did not answer the WebSocket upgrade")]
    Timeout {
        /// The host name.
        host: String,
        /// The TCP port.
        port: u16,
    },
    /// The host's answer is no WebSocket handshake.
    #[error("the WebSocket upgrade at {host}:{port} failed: {reason}")]
    Handshake {
        /// The host name.
        host: String,
        /// The TCP port.
        port: u16,
        /// What was wrong with it.
        reason: String,
    },
}

impl ConnectError {
    /// What can cure it.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Dial(error) => error.verdict(),
            Self::Refused { status, .. }
                if status.is_client_error()
                    && *status != StatusCode::TOO_MANY_REQUESTS
                    && *status != StatusCode::REQUEST_TIMEOUT =>
            {
                Verdict::Never
            }
            Self::BadUrl | Self::Refused { .. } | Self::Timeout { .. } | Self::Handshake { .. } => {
                Verdict::Retry
            }
        }
    }
}

/// Opens one leg of a stream at its streaming endpoint.
///
/// # Errors
/// [`ConnectError`]; everything ends within twice [`limits::DIAL`].
pub async fn connect(
    url: &str,
    token: &Secret,
    tls: &Arc<ClientConfig>,
) -> Result<WebSocket<TlsStream<TcpStream>>, ConnectError> {
    let endpoint = Endpoint::of(url)?;
    let stream = dial::tls(&endpoint.host, endpoint.port, tls).await?;
    connect_over(stream, url, token).await
}

/// The same over a TLS connection to the URL's host that is there already.
///
/// # Errors
/// [`ConnectError`], within [`limits::DIAL`].
pub async fn connect_over(
    stream: TlsStream<TcpStream>,
    url: &str,
    token: &Secret,
) -> Result<WebSocket<TlsStream<TcpStream>>, ConnectError> {
    let Endpoint { uri, host, port } = Endpoint::of(url)?;
    let mut bearer = HeaderValue::from_str(&format!("Bearer {}", token.expose()))
        .map_err(|_| ConnectError::BadUrl)?;
    bearer.set_sensitive(true);
    let header = (header::AUTHORIZATION, bearer);
    let (stream, read) = upgrade(stream, uri, (&host, port), header).await?;
    Ok(WebSocket::client(stream, &read))
}

/// Where a stream's URL leads.
#[derive(Clone)]
pub struct Endpoint {
    uri: Uri,
    /// Host name or address, IPv6 without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl fmt::Debug for Endpoint {
    /// Without the path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({}:{})", self.host, self.port)
    }
}

impl Endpoint {
    /// Reads a `wss://` URL.
    ///
    /// # Errors
    /// [`ConnectError::BadUrl`].
    pub fn of(url: &str) -> Result<Self, ConnectError> {
        let uri: Uri = url.parse().map_err(|_| ConnectError::BadUrl)?;
        if uri.scheme_str() != Some("wss") {
            return Err(ConnectError::BadUrl);
        }
        let authority = uri.authority().ok_or(ConnectError::BadUrl)?;
        // A user's name has no meaning here, and hides from a person what the host is.
        if authority.as_str().contains('@') {
            return Err(ConnectError::BadUrl);
        }
        let host = authority.host();
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        // A port that is no number stands in the authority, too.
        let port = match authority.port() {
            None if !has_port(authority.as_str()) => crate::hub_address::HTTPS_PORT,
            None => return Err(ConnectError::BadUrl),
            Some(port) => port.as_u16(),
        };
        if host.is_empty() || port == 0 {
            return Err(ConnectError::BadUrl);
        }
        Ok(Self { uri, host, port })
    }
}

fn has_port(authority: &str) -> bool {
    let behind = authority
        .rsplit_once(']')
        .map_or(authority, |(_, rest)| rest);
    behind.contains(':')
}

impl WebSocketBytes<TlsStream<TcpStream>> {
    /// Opens MQTT over WebSocket at a hub: TLS to `host:port`, then the upgrade.
    ///
    /// # Errors
    /// [`ConnectError`]; everything ends within twice [`limits::DIAL`].
    pub async fn connect_mqtt(
        host: &str,
        port: u16,
        url_host: &str,
        tls: &Arc<ClientConfig>,
    ) -> Result<Self, ConnectError> {
        let uri = format!("wss://{url_host}:{port}{MQTT_WEBSOCKET_PATH}")
            .parse()
            .map_err(|_| ConnectError::BadUrl)?;
        let stream = dial::tls(host, port, tls).await?;
        let subprotocol = (
            header::SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static(MQTT_SUBPROTOCOL),
        );
        let (stream, read) = upgrade(stream, uri, (host, port), subprotocol).await?;
        Ok(Self::new(stream, Role::Client, &read))
    }
}

/// Asks for the upgrade; the stream comes back with what the host sent behind its answer.
async fn upgrade<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    uri: Uri,
    (host, port): (&str, u16),
    (name, value): (HeaderName, HeaderValue),
) -> Result<(S, Bytes), ConnectError> {
    let mut request = uri
        .into_client_request()
        .map_err(|_| ConnectError::BadUrl)?;
    request.headers_mut().insert(name, value);
    match timeout(limits::DIAL, handshake(&mut stream, request)).await {
        Err(_) => Err(ConnectError::Timeout {
            host: host.to_owned(),
            port,
        }),
        Ok(Ok(read)) => Ok((stream, read)),
        Ok(Err(HandshakeError::Status(status))) => Err(ConnectError::Refused {
            host: host.to_owned(),
            port,
            status,
        }),
        Ok(Err(HandshakeError::Failed(reason))) => Err(ConnectError::Handshake {
            host: host.to_owned(),
            port,
            reason,
        }),
    }
}

enum HandshakeError {
    Status(StatusCode),
    Failed(String),
}

async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    request: Request,
) -> Result<Bytes, HandshakeError> {
    let failed = |reason: &dyn ToString| HandshakeError::Failed(reason.to_string());
    let (request, key) = generate_request(request).map_err(|error| failed(&error))?;
    let (response, read) = exchange(stream, &request)
        .await
        .map_err(|error| failed(&error))?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(HandshakeError::Status(response.status()));
    }
    // RFC 6455, 4.1.
    let headers = response.headers();
    let is_accepted = has_token(headers, header::UPGRADE, "websocket")
        && has_token(headers, header::CONNECTION, "upgrade")
        && headers
            .get(header::SEC_WEBSOCKET_ACCEPT)
            .is_some_and(|accept| {
                accept.as_bytes() == derive_accept_key(key.as_bytes()).as_bytes()
            });
    if !is_accepted {
        return Err(failed(&"its answer is not that of a WebSocket server"));
    }
    Ok(read.freeze())
}

fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|value| value.trim().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests;
