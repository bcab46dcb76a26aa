//! One HTTP request, and its answer: all of HTTP that an upgrade takes, a question for the time, or
//! the redemption of a code.

use std::io;

use bytes::{Buf as _, BytesMut};
use device_stream_websocket::text;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tungstenite::handshake::client::Response;
use tungstenite::handshake::machine::TryParse as _;

use crate::limits;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The connection was lost.
    #[error(transparent)]
    Lost(io::Error),
    /// What came is not HTTP.
    #[error(transparent)]
    Malformed(HttpError),
    /// The head has no end.
    #[error("its answer is too long")]
    TooLong,
    /// The head does not say how long the body is.
    #[error("its answer does not say how long it is")]
    NoLength,
}

/// What is wrong with the text of a request or of an answer. It has no source, since its own text
/// has those of its causes in it already.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct HttpError(pub(super) tungstenite::Error);

/// Sends a request, as it is, and reads the head of its answer; what came behind that is
/// given, too. When the future is dropped, the stream is of no more use.
///
/// # Errors
/// [`ExchangeError`].
pub async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    request: &[u8],
) -> Result<(Response, BytesMut), ExchangeError> {
    let lost = |error| ExchangeError::Lost(text::plain(error));
    stream.write_all(request).await.map_err(lost)?;
    stream.flush().await.map_err(lost)?;
    let mut read = BytesMut::with_capacity(1 << 10);
    loop {
        let count = stream.read_buf(&mut read).await.map_err(lost)?;
        let parsed = Response::try_parse(&read)
            .map_err(|error| ExchangeError::Malformed(HttpError(error)))?;
        if let Some((size, response)) = parsed {
            read.advance(size);
            return Ok((response, read));
        }
        if count == 0 {
            return Err(lost(io::ErrorKind::UnexpectedEof.into()));
        }
        if read.len() > limits::HTTP_HEAD {
            return Err(ExchangeError::TooLong);
        }
    }
}

/// The same, and the answer's body, which is as long as its head says and has at most `most` bytes.
/// A body in chunks is none that the hub sends. When the future is dropped, the stream is of no
/// more use.
///
/// # Errors
/// [`ExchangeError`].
pub async fn exchange_with_body<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    request: &[u8],
    most: usize,
) -> Result<(Response, BytesMut), ExchangeError> {
    let (head, mut body) = exchange(stream, request).await?;
    if head.headers().contains_key(TRANSFER_ENCODING) {
        return Err(ExchangeError::NoLength);
    }
    let length = head.headers().get(CONTENT_LENGTH);
    let length: usize = length
        .and_then(|length| length.to_str().ok()?.parse().ok())
        .ok_or(ExchangeError::NoLength)?;
    if length > most {
        return Err(ExchangeError::TooLong);
    }
    body.reserve(length.saturating_sub(body.len()));
    while body.len() < length {
        let count = stream
            .read_buf(&mut body)
            .await
            .map_err(|error| ExchangeError::Lost(text::plain(error)))?;
        if count == 0 {
            return Err(ExchangeError::Lost(io::ErrorKind::UnexpectedEof.into()));
        }
    }
    body.truncate(length);
    Ok((head, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answered(answer: &str) -> Result<(u16, String), ExchangeError> {
        let (mut near, mut far) = tokio::io::duplex(1 << 10);
        let answer = answer.to_owned();
        let serving = tokio::spawn(async move {
            let mut request = [0; 4];
            far.read_exact(&mut request).await.unwrap();
            // In pieces, as a network may bring them.
            for piece in answer.as_bytes().chunks(7) {
                if far.write_all(piece).await.is_err() {
                    return;
                }
            }
        });
        let result = exchange_with_body(&mut near, b"ping", 16).await;
        serving.await.unwrap();
        let (head, body) = result?;
        let body = String::from_utf8(body.to_vec()).unwrap();
        Ok((head.status().as_u16(), body))
    }

    #[tokio::test]
    async fn a_body_is_as_long_as_its_head_says() {
        let whole = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nthe body.";
        assert_eq!(
            answered(whole).await.unwrap(),
            (200, "the body.".to_owned())
        );
        let more = format!("{whole}more");
        assert_eq!(answered(&more).await.unwrap().1, "the body.");
        let none = "HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(answered(none).await.unwrap(), (401, String::new()));
    }

    #[tokio::test]
    async fn other_bodies_are_refused() {
        let cut = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nthe";
        assert!(matches!(answered(cut).await, Err(ExchangeError::Lost(_))));
        let long = "HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n";
        assert!(matches!(answered(long).await, Err(ExchangeError::TooLong)));
        for headers in [
            "",
            "Content-Length: -1\r\n",
            "Content-Length: 99999999999999999999999\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n",
        ] {
            let answer = format!("HTTP/1.1 200 OK\r\n{headers}\r\nx");
            let error = answered(&answer).await.unwrap_err();
            assert!(matches!(error, ExchangeError::NoLength), "{headers}");
        }
    }
}
