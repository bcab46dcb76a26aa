//! A socket from which a stranger's bytes are taken up to a limit: TLS keeps what is not whole
//! yet, a handshake of 64 KiB or a record of 16, and has no limit of its own that is lower.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, ready};

use common::net::{Calm, steady};
use common::tunnel::Backlog;
use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What comes of a reader that has read all it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beyond {
    /// It waits until there may be more: the peer is being judged.
    Wait,
    /// It fails: no client of the protocol sends so much.
    Fail,
}

/// How many bytes may still be read.
#[derive(Debug)]
pub struct Allowance {
    /// [`usize::MAX`]: all.
    left: AtomicUsize,
    fails: AtomicBool,
    /// A reader that waits for more.
    waiting: AtomicWaker,
}

impl Allowance {
    /// So many, for now.
    pub fn new(bytes: usize, beyond: Beyond) -> Self {
        Self {
            left: AtomicUsize::new(bytes),
            fails: AtomicBool::new(beyond == Beyond::Fail),
            waiting: AtomicWaker::new(),
        }
    }

    /// So many from here on, unless all may be read already.
    pub fn set(&self, bytes: usize, beyond: Beyond) {
        self.fails.store(beyond == Beyond::Fail, SeqCst);
        self.change(|_| bytes);
        self.waiting.wake();
    }

    /// All may be read from here on.
    pub fn lift(&self) {
        self.set(usize::MAX, Beyond::Wait);
    }

    /// Whether all may be read.
    pub fn is_lifted(&self) -> bool {
        self.left.load(SeqCst) == usize::MAX
    }

    fn change(&self, change: impl Fn(usize) -> usize) {
        let change = |left| (left != usize::MAX).then(|| change(left));
        let _ = self.left.fetch_update(SeqCst, SeqCst, change);
    }

    /// How many, once it is at least one.
    fn poll(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let left = self.left.load(SeqCst);
        if left > 0 {
            return Poll::Ready(Ok(left));
        }
        if self.fails.load(SeqCst) {
            let text = "the peer sent more than a stranger may";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, text)));
        }
        self.waiting.register(cx.waker());
        // It may have been set in between.
        match self.left.load(SeqCst) {
            0 => Poll::Pending,
            left => Poll::Ready(Ok(left)),
        }
    }
}

/// A socket, and how much may still be read from it.
#[derive(Debug)]
pub struct Guarded {
    socket: TcpStream,
    calm: Calm,
    allowance: Arc<Allowance>,
}

impl Guarded {
    /// Lets so many bytes through.
    pub fn new(socket: TcpStream, allowance: Arc<Allowance>) -> Self {
        Self {
            socket,
            calm: Calm::default(),
            allowance,
        }
    }

    /// The socket.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// It carries a session from now on (see [`steady`]).
    pub fn steady(&mut self) {
        steady(&self.socket, &mut self.calm);
    }
}

impl Backlog for Guarded {
    fn backlog(&self) -> usize {
        self.socket.backlog()
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let left = ready!(self.allowance.poll(cx))?;
        if left == usize::MAX {
            return Pin::new(&mut self.socket).poll_read(cx, buffer);
        }
        let most = buffer.remaining().min(left);
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(most));
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut part))?;
        let read = part.filled().len();
        buffer.advance(read);
        self.allowance.change(|left| left.saturating_sub(read));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self { socket, calm, .. } = &mut *self;
        let result = Pin::new(&mut *socket).poll_write(cx, bytes);
        calm.wrote(socket, &result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self { socket, calm, .. } = &mut *self;
        let result = Pin::new(&mut *socket).poll_write_vectored(cx, bytes);
        calm.wrote(socket, &result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_stranger_sends_so_much_and_a_known_peer_all() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut far = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let allowance = Arc::new(Allowance::new(60, Beyond::Wait));
        let mut near = Guarded::new(listener.accept().await.unwrap().0, Arc::clone(&allowance));
        far.write_all(&[7; 100]).await.unwrap();
        let mut first = [0; 60];
        near.read_exact(&mut first).await.unwrap();
        drop(far);
        let mut rest = Vec::new();
        let more = async {
            tokio::task::yield_now().await;
            allowance.set(10, Beyond::Wait);
            tokio::task::yield_now().await;
            assert!(!allowance.is_lifted());
            allowance.lift();
            // What is lifted stays so.
            allowance.set(0, Beyond::Fail);
        };
        let (read, ()) = tokio::join!(near.read_to_end(&mut rest), more);
        read.unwrap();
        assert_eq!(
            (first.as_slice(), rest.as_slice()),
            ([7; 60].as_slice(), [7; 40].as_slice())
        );
    }
    #[tokio::test]
    async fn who_sends_far_too_much_is_not_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut far = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let allowance = Arc::new(Allowance::new(60, Beyond::Fail));
        let mut near = Guarded::new(listener.accept().await.unwrap().0, allowance);
        far.write_all(&[7; 100]).await.unwrap();
        let mut all = Vec::new();
        let error = near.read_to_end(&mut all).await.unwrap_err();
        assert_eq!((all.len(), error.kind()), (60, io::ErrorKind::InvalidData));
    }
}
