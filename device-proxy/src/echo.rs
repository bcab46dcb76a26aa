//! The built-in echo target: a bounded pipe that ends where it begins.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use common::limits;
use common::tunnel::{LocalSocket, Pipes};
use tokio::io::{AsyncWrite, simplex};

use crate::sample_output;

/// A local socket that gives back what it is given; at most one message waits in it.
pub(crate) fn socket(sample_output: bool) -> impl LocalSocket {
    let (input, output) = simplex(limits::STREAM_MESSAGE);
    Pipes::half_closing(
        input,
        Tap {
            output,
            sample_output,
        },
    )
}

/// Prints what passes, as the official echo device does.
struct Tap<W> {
    output: W,
    sample_output: bool,
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Tap<W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.output).poll_write(cx, bytes))?;
        if self.sample_output {
            sample_output::echoed(bytes.get(..count).unwrap_or_default());
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.output).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.output).poll_shutdown(cx)
    }
}
