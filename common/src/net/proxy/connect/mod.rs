//! One CONNECT request to an HTTP proxy and its answer (RFC 9110, 9.3.6). The answer is parsed by
//! `httparse`, in any version of HTTP: proxies answer with 1.0, too.

use std::io;

use bytes::{Buf as _, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use zeroize::Zeroizing;

use super::error::ProxyError;
use super::login::Login;
use crate::limits;

/// Header lines of an answer; proxies send about ten.
const HEADERS: usize = 64;
/// Bytes of the page behind a refusal that are read to keep its connection: an NTLM handshake goes
/// on over it.
const PAGE: u64 = 256 << 10;

const USER_AGENT: &str = concat!("device-streams/", env!("CARGO_PKG_VERSION"));
const NO_PROXY: ProxyError = ProxyError::Malformed("an HTTP proxy");

/// What came of one request.
#[derive(Debug)]
pub enum Answer {
    /// The stream leads to the target. These bytes came behind the answer, and belong to the target.
    Open(BytesMut),
    /// The request is to be repeated, since the login has something else to send.
    Again {
        /// On the same connection; else that is of no more use.
        is_reusable: bool,
    },
}

/// Asks the proxy at the other end for a connection to `target`, which is `HOST:PORT`. The caller
/// limits the time. When the future is dropped, the stream is of no more use.
///
/// # Errors
/// [`ProxyError`].
pub async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    target: &str,
    login: &mut Login,
) -> Result<Answer, ProxyError> {
    let request = request(target, login)?;
    stream
        .write_all(request.as_bytes())
        .await
        .map_err(ProxyError::Lost)?;
    stream.flush().await.map_err(ProxyError::Lost)?;
    let mut read = BytesMut::with_capacity(1 << 10);
    let head = loop {
        match Head::parse(&mut read)? {
            // One that only says that the answer follows (RFC 9110, 15.2).
            Some(head) if head.status.is_informational() => {}
            Some(head) => break head,
            None if read.len() > limits::HTTP_HEAD => return Err(ProxyError::TooLong),
            None => receive(stream, &mut read).await?,
        }
    };
    let status = head.status;
    if status.is_success() {
        return Ok(Answer::Open(read));
    }
    match status {
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
            login.challenged(&head.headers)?;
            let is_reusable = head.keeps_alive() && skip(stream, read, head.body()?).await?;
            Ok(Answer::Again { is_reusable })
        }
        StatusCode::FORBIDDEN | StatusCode::METHOD_NOT_ALLOWED => {
            Err(ProxyError::Forbidden { status })
        }
        StatusCode::NOT_FOUND
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Err(ProxyError::NoWay { status }),
        _ => Err(ProxyError::Status { status }),
    }
}

/// The request, which may hold a password.
fn request(target: &str, login: &Login) -> Result<Zeroizing<String>, ProxyError> {
    // Nothing can be smuggled into the request.
    let is_authority = target.parse::<http::uri::Authority>().is_ok();
    if !is_authority || target.contains('@') {
        return Err(ProxyError::Name);
    }
    let mut text = Zeroizing::new(String::with_capacity(1 << 10));
    for part in [
        "CONNECT ",
        target,
        " HTTP/1.1\r\nHost: ",
        target,
        "\r\nUser-Agent: ",
        USER_AGENT,
        // For proxies of HTTP/1.0.
        "\r\nProxy-Connection: keep-alive\r\n",
    ] {
        text.push_str(part);
    }
    if let Some(value) = login.authorization() {
        text.push_str("Proxy-Authorization: ");
        text.push_str(value.expose());
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    Ok(text)
}

async fn receive<S: AsyncRead + Unpin>(
    stream: &mut S,
    read: &mut BytesMut,
) -> Result<(), ProxyError> {
    match stream.read_buf(read).await {
        Ok(0) => Err(ProxyError::Lost(io::ErrorKind::UnexpectedEof.into())),
        Ok(_) => Ok(()),
        Err(error) => Err(ProxyError::Lost(error)),
    }
}

/// The head of an answer.
struct Head {
    status: StatusCode,
    is_http_1_0: bool,
    headers: HeaderMap,
}

/// What follows the head of a refusal.
#[derive(Debug, PartialEq, Eq)]
enum Body {
    /// So many bytes.
    Length(u64),
    /// Pieces that say how long they are.
    Chunks,
    /// Everything until the end.
    Rest,
}

impl Head {
    /// Takes a complete head from the bytes.
    fn parse(read: &mut BytesMut) -> Result<Option<Self>, ProxyError> {
        let mut lines = [httparse::EMPTY_HEADER; HEADERS];
        let mut answer = httparse::Response::new(&mut lines);
        let size = match answer.parse(read) {
            Ok(httparse::Status::Complete(size)) => size,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(httparse::Error::TooManyHeaders) => return Err(ProxyError::TooLong),
            Err(_) => return Err(NO_PROXY),
        };
        let status = answer.code.and_then(|code| StatusCode::from_u16(code).ok());
        let mut head = Self {
            status: status.ok_or(NO_PROXY)?,
            is_http_1_0: answer.version == Some(0),
            headers: HeaderMap::new(),
        };
        for line in answer.headers.iter() {
            let name = HeaderName::from_bytes(line.name.as_bytes());
            let value = HeaderValue::from_bytes(line.value);
            if let (Ok(name), Ok(value)) = (name, value) {
                head.headers.append(name, value);
            }
        }
        read.advance(size);
        Ok(Some(head))
    }

    fn keeps_alive(&self) -> bool {
        let has = |word: &str| {
            [
                header::CONNECTION,
                HeaderName::from_static("proxy-connection"),
            ]
            .iter()
            .flat_map(|name| self.headers.get_all(name))
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|value| value.trim().eq_ignore_ascii_case(word))
        };
        !has("close") && (!self.is_http_1_0 || has("keep-alive"))
    }

    fn body(&self) -> Result<Body, ProxyError> {
        if self.headers.contains_key(header::TRANSFER_ENCODING) {
            return Ok(Body::Chunks);
        }
        match self.headers.get(header::CONTENT_LENGTH) {
            None => Ok(Body::Rest),
            Some(length) => {
                let length = length
                    .to_str()
                    .ok()
                    .and_then(|text| text.trim().parse().ok());
                length.map(Body::Length).ok_or(NO_PROXY)
            }
        }
    }
}

/// Reads the page behind a refusal; whether the connection can be used again.
async fn skip<S: AsyncRead + Unpin>(
    stream: &mut S,
    mut read: BytesMut,
    body: Body,
) -> Result<bool, ProxyError> {
    let mut budget = PAGE;
    match body {
        Body::Rest => Ok(false),
        Body::Length(length) => drop_bytes(stream, &mut read, length, &mut budget).await,
        Body::Chunks => loop {
            let (size, length) = match httparse::parse_chunk_size(&read) {
                Ok(httparse::Status::Complete(found)) => found,
                Ok(httparse::Status::Partial) if read.len() <= limits::HTTP_HEAD => {
                    receive(stream, &mut read).await?;
                    continue;
                }
                Ok(httparse::Status::Partial) | Err(_) => return Err(NO_PROXY),
            };
            read.advance(size);
            // With the line end behind each piece; behind the last one no trailers are expected.
            let length = length.saturating_add(2);
            if !drop_bytes(stream, &mut read, length, &mut budget).await? {
                return Ok(false);
            }
            if length == 2 {
                return Ok(true);
            }
        },
    }
}

/// Whether so many bytes were read and dropped, within what may be read altogether.
async fn drop_bytes<S: AsyncRead + Unpin>(
    stream: &mut S,
    read: &mut BytesMut,
    length: u64,
    budget: &mut u64,
) -> Result<bool, ProxyError> {
    let Some(rest) = budget.checked_sub(length) else {
        return Ok(false);
    };
    *budget = rest;
    let mut length = usize::try_from(length).unwrap_or(usize::MAX);
    loop {
        let count = length.min(read.len());
        read.advance(count);
        length -= count;
        if length == 0 {
            return Ok(true);
        }
        receive(stream, read).await?;
    }
}

#[cfg(test)]
mod tests;
