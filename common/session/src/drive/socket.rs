//! What a session needs of a local socket.

use std::io;
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::TcpStream;

/// A local byte stream that can be reset, so that its peer notices: a truncated transfer must never
/// look complete.
pub trait ConnectionSocket: AsyncRead + AsyncWrite + Unpin + Send {
    /// From now on the connection ends with a reset, also when it is dropped or when this process
    /// dies.
    fn arm(&self) {}

    /// From now on the connection may end in order: everything was delivered.
    fn disarm(&self) {}

    /// Ready when a read may return something. A socket of the system knows this without a buffer;
    /// other streams are always ready.
    ///
    /// # Errors
    /// The error that the read would return.
    fn poll_readable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl ConnectionSocket for TcpStream {
    fn arm(&self) {
        // With a linger of zero, closing the socket, also by the system, sends RST.
        let _ = self.set_zero_linger();
    }

    fn disarm(&self) {
        let _ = SockRef::from(self).set_linger(None);
    }

    #[inline]
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(cx)
    }
}

/// There is no reset among Unix sockets: the peer sees an end of its input, or an error when it
/// writes.
#[cfg(unix)]
impl ConnectionSocket for tokio::net::UnixStream {
    #[inline]
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(cx)
    }
}

/// In memory, for tests: there is no reset, and its peer sees an orderly end.
impl ConnectionSocket for DuplexStream {}
