//! One stream on standard input and output, for programs that bring their own end of the
//! connection, such as ssh with ProxyCommand. stdout carries nothing but the tunnel.

use common::tunnel::{End, Pipes};
use tokio::io::{AsyncRead, AsyncWrite};
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
    let pipes = Pipes::new(input, output);
    let outcome = carry(pipes, leg, stop, sample_output).await;
    // Whoever started us shows our stderr to a person, as ssh does: a normal end is no news.
    report_outcome(&identity, &name, &"stdio", &outcome, false);
    if outcome.end.is_normal() {
        Ok(())
    } else {
        Err(ConnectError::Incomplete(outcome.end))
    }
}
