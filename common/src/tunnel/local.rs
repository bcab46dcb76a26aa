//! The local end of a tunnel.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A local byte stream that can be cut so that its peer notices.
pub trait LocalSocket: AsyncRead + AsyncWrite + Unpin + Send {
    /// Ends the connection so that the peer sees a failure, not an end: a truncated
    /// transfer must never look complete.
    fn abort(self);
}

impl LocalSocket for TcpStream {
    fn abort(self) {
        // Linger zero: dropping the socket sends RST.
        let _ = self.set_zero_linger();
    }
}

/// Two one-way pipes as a local socket: standard input and output, or an in-memory
/// target. Their peer learns of a failure by other means (an exit code).
pub struct Pipes<R, W> {
    /// What is read and sent up the stream.
    pub input: R,
    /// Where the stream's bytes go.
    pub output: W,
}

impl<R, W> LocalSocket for Pipes<R, W>
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    fn abort(self) {}
}

impl<R: AsyncRead + Unpin, W: Unpin> AsyncRead for Pipes<R, W> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.input).poll_read(cx, buffer)
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
        Pin::new(&mut self.output).poll_shutdown(cx)
    }
}
