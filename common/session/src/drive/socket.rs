//! The local end of a connection.

use std::io;
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::TcpStream;

/// A local byte stream that can be cut so that its peer notices: a truncated transfer
/// must never look complete.
pub trait ConnectionSocket: AsyncRead + AsyncWrite + Unpin + Send {
    /// From now on the connection ends in a failure, not in an end, however it goes:
    /// dropped, or by the death of this process.
    fn arm(&self) {}

    /// From now on the connection may end in order: all was delivered.
    fn disarm(&self) {}

    /// Ready when a read may bring something. A socket of the system can tell without the
    /// buffer that a read needs; others are always ready.
    ///
    /// # Errors
    /// What the read would bring.
    fn poll_readable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl ConnectionSocket for TcpStream {
    fn arm(&self) {
        // Linger zero: closing the socket, also by the system, sends RST.
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

/// In memory: its peer sees no more than an end.
impl ConnectionSocket for DuplexStream {}
