//! The client's end of a WebSocket: dial, upgrade, and errors that tell a person what to do.

use bytes::Bytes;
use device_stream_websocket::{WebSocket, WebSocketBytes};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tungstenite::client::IntoClientRequest as _;
use tungstenite::handshake::client::{Request, generate_request};
use tungstenite::handshake::derive_accept_key;

use crate::hub_address::HubAddress;
use crate::limits;
use crate::net::dialer::{DialError, Dialer};
use crate::net::exchange::{ExchangeError, HttpError, exchange};
use crate::net::host_stream::{TlsHostStream, Via};
use crate::secret::Secret;
use crate::verdict::Verdict;
use crate::wire::streaming_endpoint::{StreamingEndpoint, StreamingEndpointError};
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
    #[error("{host}:{port} answered the WebSocket upgrade{via} with {status}{}", stripped(via, Some(*status)))]
    Refused {
        /// The host name.
        host: String,
        /// The TCP port.
        port: u16,
        /// What it answered instead of 101.
        status: StatusCode,
        /// What it was reached through.
        via: Via,
    },
    /// The host did not answer the upgrade in time.
    #[error(
        "{host}:{port} did not answer the WebSocket upgrade{via}{}",
        stripped(via, None)
    )]
    Timeout {
        /// The host name.
        host: String,
        /// The TCP port.
        port: u16,
        /// What it was reached through.
        via: Via,
    },
    /// The host's answer is no WebSocket handshake.
    #[error(
        "the WebSocket upgrade at {host}:{port}{via} failed{}",
        stripped(via, None)
    )]
    Handshake {
        /// The host name.
        host: String,
        /// The TCP port.
        port: u16,
        /// What was wrong with it.
        #[source]
        source: HandshakeError,
        /// What it was reached through.
        via: Via,
    },
}

/// What an answer means that hubs do not give: a proxy that inspects TLS may have given it.
fn stripped(via: &Via, status: Option<StatusCode>) -> &'static str {
    let is_hubs_own = |status| {
        [
            StatusCode::UNAUTHORIZED,
            StatusCode::NOT_FOUND,
            StatusCode::CONFLICT,
            StatusCode::GONE,
            StatusCode::TOO_MANY_REQUESTS,
            StatusCode::SERVICE_UNAVAILABLE,
        ]
        .contains(&status)
    };
    if via.name().is_some() && !status.is_some_and(is_hubs_own) {
        " (if the proxy inspects TLS, have its administrator exempt this host, or let WebSockets through)"
    } else {
        ""
    }
}

/// What was wrong with a WebSocket handshake.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The request cannot be written.
    #[error(transparent)]
    Request(HttpError),
    /// The host has not answered it.
    #[error(transparent)]
    Exchange(ExchangeError),
    /// What it has answered is no upgrade to a WebSocket.
    #[error("its answer is not that of a WebSocket server")]
    OtherAnswer,
}

impl From<StreamingEndpointError> for ConnectError {
    fn from(_: StreamingEndpointError) -> Self {
        Self::BadUrl
    }
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

/// One leg of a stream.
pub type Leg = WebSocket<TlsHostStream>;

/// Opens one leg of a stream at its streaming endpoint. May be dropped.
///
/// # Errors
/// [`ConnectError`]; everything ends within twice [`limits::DIAL`].
pub async fn leg(
    dialer: &Dialer,
    endpoint: &StreamingEndpoint,
    token: &Secret,
) -> Result<Leg, ConnectError> {
    let stream = dialer.tls(endpoint.host(), endpoint.port()).await?;
    leg_over(stream, endpoint, token).await
}

/// The same over a TLS connection to the endpoint's host that is there already. May be dropped.
///
/// # Errors
/// [`ConnectError`], within [`limits::DIAL`].
pub(super) async fn leg_over(
    stream: TlsHostStream,
    endpoint: &StreamingEndpoint,
    token: &Secret,
) -> Result<Leg, ConnectError> {
    let mut bearer = HeaderValue::from_str(&format!("Bearer {}", token.expose()))
        .map_err(|_| ConnectError::BadUrl)?;
    bearer.set_sensitive(true);
    let header = (header::AUTHORIZATION, bearer);
    let via = stream.get_ref().0.via();
    let at = (endpoint.host(), endpoint.port(), &via);
    let (stream, read) = upgrade(stream, endpoint.uri().clone(), at, header).await?;
    Ok(WebSocket::client(stream, &read))
}

/// Opens MQTT over WebSocket at a hub: TLS, then the upgrade. May be dropped.
///
/// # Errors
/// [`ConnectError`]; everything ends within twice [`limits::DIAL`].
pub async fn mqtt(
    dialer: &Dialer,
    host: &HubAddress,
) -> Result<WebSocketBytes<TlsHostStream>, ConnectError> {
    let (name, port, url_host) = (host.name(), host.https_port(), host.url_host());
    let uri = format!("wss://{url_host}:{port}{MQTT_WEBSOCKET_PATH}")
        .parse()
        .map_err(|_| ConnectError::BadUrl)?;
    let stream = dialer.tls(name, port).await?;
    let subprotocol = (
        header::SEC_WEBSOCKET_PROTOCOL,
        HeaderValue::from_static(MQTT_SUBPROTOCOL),
    );
    let via = stream.get_ref().0.via();
    let (stream, read) = upgrade(stream, uri, (name, port, &via), subprotocol).await?;
    Ok(WebSocketBytes::client(
        stream,
        limits::MQTT_WEBSOCKET_MESSAGE,
        &read,
    ))
}

/// Asks for the upgrade; the stream comes back with what the host sent behind its answer.
async fn upgrade<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    uri: Uri,
    (host, port, via): (&str, u16, &Via),
    (name, value): (HeaderName, HeaderValue),
) -> Result<(S, Bytes), ConnectError> {
    let mut request = uri
        .into_client_request()
        .map_err(|_| ConnectError::BadUrl)?;
    request.headers_mut().insert(name, value);
    let shaking = handshake(&mut stream, request, (host, port, via));
    match timeout(limits::DIAL, shaking).await {
        Err(_) => Err(ConnectError::Timeout {
            host: host.to_owned(),
            port,
            via: via.clone(),
        }),
        Ok(read) => Ok((stream, read?)),
    }
}

async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    request: Request,
    (host, port, via): (&str, u16, &Via),
) -> Result<Bytes, ConnectError> {
    let failed = |source| ConnectError::Handshake {
        host: host.to_owned(),
        port,
        source,
        via: via.clone(),
    };
    let (request, key) = generate_request(request)
        .map_err(|error| failed(HandshakeError::Request(HttpError(error))))?;
    let (response, read) = exchange(stream, &request)
        .await
        .map_err(|error| failed(HandshakeError::Exchange(error)))?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(ConnectError::Refused {
            host: host.to_owned(),
            port,
            status: response.status(),
            via: via.clone(),
        });
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
        return Err(failed(HandshakeError::OtherAnswer));
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
