//! One stream on standard input and output, for programs that bring their own end of the
//! connection, such as ssh with ProxyCommand. stdout carries nothing but the tunnel.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use common::tunnel::{End, LocalSocket};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::CancellationToken;

use crate::config::ConnectConfig;
use crate::stream::{SetupError, StreamError, StreamOpener, carry, report_outcome};

/// Why a transfer over stdin and stdout is not complete.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Streams cannot be opened at all.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The stream could not be opened.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The stream ended before both sides were done.
    #[error("the transfer is not complete")]
    Incomplete(#[source] End),
}

/// Carries one stream on this process's stdin and stdout.
///
/// # Errors
/// [`ConnectError`], unless the stream ended normally.
pub async fn run(config: ConnectConfig, stop: &CancellationToken) -> Result<(), ConnectError> {
    run_on(config, tokio::io::stdin(), tokio::io::stdout(), stop).await
}

/// Carries one stream on any pair of pipes.
///
/// # Errors
/// [`ConnectError`], unless the stream ended normally.
pub async fn run_on<R, W>(
    config: ConnectConfig,
    input: R,
    output: W,
    stop: &CancellationToken,
) -> Result<(), ConnectError>
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    let ConnectConfig {
        hub,
        identity,
        name,
        sample_output,
    } = config;
    let opener = StreamOpener::new(&hub, sample_output)?;
    let leg = tokio::select! {
        opened = opener.open(&identity, &name) => opened?,
        () = stop.cancelled() => return Err(ConnectError::Incomplete(End::Stopped)),
    };
    let pipes = StandardPipes {
        input: Some(input),
        output,
    };
    let outcome = carry(pipes, leg, stop, sample_output).await;
    // Whoever started us shows our stderr to a person, as ssh does: a normal end is no news.
    report_outcome(&identity, &name, &"stdio", &outcome, false);
    if outcome.end.is_normal() {
        Ok(())
    } else {
        Err(ConnectError::Incomplete(outcome.end))
    }
}

/// Two pipes as a local socket that is over once it is shut down: nobody closes our
/// stdin for us, so its end is not waited for. Shutting down also flushes, since
/// tokio's stdout writes in another thread.
struct StandardPipes<R, W> {
    input: Option<R>,
    output: W,
}

impl<R, W> LocalSocket for StandardPipes<R, W>
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    /// The exit code tells the failure.
    fn abort(self) {}
}

impl<R: AsyncRead + Unpin, W: Unpin> AsyncRead for StandardPipes<R, W> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.input {
            Some(input) => Pin::new(input).poll_read(cx, buffer),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl<R: Unpin, W: AsyncWrite + Unpin> AsyncWrite for StandardPipes<R, W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.output).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.output).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.input = None;
        ready!(Pin::new(&mut self.output).poll_flush(cx))?;
        Pin::new(&mut self.output).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn after_shutdown_an_open_stdin_is_not_waited_for() {
        let (_open, input) = duplex(16);
        let (mut reader, output) = duplex(16);
        let mut pipes = StandardPipes {
            input: Some(input),
            output,
        };
        pipes.write_all(b"last").await.unwrap();
        pipes.shutdown().await.unwrap();
        assert_eq!(pipes.read(&mut [0; 8]).await.unwrap(), 0);
        let mut got = Vec::new();
        reader.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"last");
    }
}
