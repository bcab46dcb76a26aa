//! A peer whose bytes are all there, and come in pieces.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A peer whose bytes come in pieces, and which takes everything.
pub struct Pieces<'a> {
    bytes: &'a [u8],
    piece: usize,
    written: Vec<u8>,
}

impl<'a> Pieces<'a> {
    /// Gives these bytes, `piece` of them at a time, which is at least 1, and then ends.
    pub fn new(bytes: &'a [u8], piece: usize) -> Self {
        Self {
            bytes,
            piece,
            written: Vec::new(),
        }
    }

    /// What was not read yet.
    pub fn unread(&self) -> &'a [u8] {
        self.bytes
    }

    /// What was written to it.
    pub fn written(&self) -> &[u8] {
        &self.written
    }

    /// What the next read has, of at most this many bytes.
    pub fn next(&self, most: usize) -> &'a [u8] {
        let count = self.piece.min(self.bytes.len()).min(most);
        &self.bytes[..count]
    }
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let now = self.next(buffer.remaining());
        buffer.put_slice(now);
        self.bytes = &self.bytes[now.len()..];
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pieces<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.written.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The result of a future that never waits.
///
/// # Panics
/// When it does.
pub fn finished<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits although everything is there"),
    }
}
