//! One HTTP request without a body, and the head of its answer: all of HTTP that an upgrade
//! takes, or a question for the time.

use std::io;

use bytes::{Buf as _, BytesMut};
use device_stream_websocket::text;
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
