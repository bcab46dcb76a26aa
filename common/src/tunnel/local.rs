//! The local end of a tunnel.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use device_stream_session::ConnectionSocket;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::Backlog;

/// A local socket that knows its backlog.
pub trait LocalSocket: ConnectionSocket {
    /// Bytes that the system has not sent to the peer, as far as that is known: see [`Backlog`].
    fn backlog(&self) -> usize {
        0
    }
}

impl LocalSocket for TcpStream {
    fn backlog(&self) -> usize {
        Backlog::backlog(self)
    }
}

/// What was written to it can be read by its peer at once.
#[cfg(unix)]
impl LocalSocket for tokio::net::UnixStream {}

/// Any local socket, so that there is one instance of the tunnel's code for all kinds.
impl ConnectionSocket for Box<dyn LocalSocket> {
    fn arm(&self) {
        (**self).arm();
    }

    fn disarm(&self) {
        (**self).disarm();
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        (**self).poll_readable(cx)
    }
}

impl LocalSocket for Box<dyn LocalSocket> {
    fn backlog(&self) -> usize {
        (**self).backlog()
    }
}

/// Two one-way pipes as a local socket: standard input and output, or an in-memory target. Shutting
/// it down also ends its input, since standard input may stay open; and it flushes, since tokio's
/// stdout writes in another thread.
pub struct Pipes<R, W> {
    input: Option<R>,
    output: W,
    /// The input ends by itself after the output has ended.
    half_closes: bool,
}

impl<R, W> Pipes<R, W> {
    /// Bytes from `input` are sent on the stream; the stream's bytes are written to `output`.
    pub fn new(input: R, output: W) -> Self {
        Self {
            input: Some(input),
            output,
            half_closes: false,
        }
    }

    /// The same for an input that ends by itself after the output's end: it is read to its end.
    pub fn half_closing(input: R, output: W) -> Self {
        Self {
            half_closes: true,
            ..Self::new(input, output)
        }
    }
}

/// A failure is reported by other means, such as an exit code.
impl<R, W> ConnectionSocket for Pipes<R, W>
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
}

impl<R, W> LocalSocket for Pipes<R, W>
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
}

impl<R: AsyncRead + Unpin, W: Unpin> AsyncRead for Pipes<R, W> {
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

impl<R: Unpin, W: AsyncWrite + Unpin> AsyncWrite for Pipes<R, W> {
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
        if !self.half_closes {
            self.input = None;
        }
        ready!(Pin::new(&mut self.output).poll_flush(cx))?;
        Pin::new(&mut self.output).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn shutdown_does_not_wait_for_an_open_stdin() {
        let (_open, input) = duplex(16);
        let (mut reader, output) = duplex(16);
        let mut pipes = Pipes::new(input, output);
        pipes.write_all(b"last").await.unwrap();
        pipes.shutdown().await.unwrap();
        assert_eq!(pipes.read(&mut [0; 8]).await.unwrap(), 0);
        let mut got = Vec::new();
        reader.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"last");
    }
}
