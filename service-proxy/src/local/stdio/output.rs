//! Standard output that can be closed: its reader sees the end of the other side's bytes while
//! the input still goes on.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncWrite, Stdout};

/// Standard output; shutting it down closes it for this process.
pub(super) struct Output(Stdout);

impl Output {
    pub(super) fn new(output: Stdout) -> Self {
        Self(output)
    }
}

impl AsyncWrite for Output {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.0).poll_flush(cx))?;
        Poll::Ready(close())
    }
}

/// Leads standard output to nowhere, which closes the pipe that it was.
#[cfg(unix)]
fn close() -> io::Result<()> {
    let nowhere = std::fs::OpenOptions::new().write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&nowhere)?;
    Ok(())
}

/// Here it stays open to the end of the program.
#[cfg(not(unix))]
fn close() -> io::Result<()> {
    Ok(())
}
