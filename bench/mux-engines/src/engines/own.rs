//! Session mode's own frames and scheduler, as they run in the proxies: over a WebSocket, whose framing and masking
//! are in these figures, and with an in-memory pipe where a TCP socket would be, which costs a copy each way.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use common::session::{CarrierId, ConnectionId, Live, Role, SessionId, carry, pipe};
use common::tunnel::{Pipes, Traffic};
use common::websocket::WebSocket;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};
use tokio_util::sync::CancellationToken;

use crate::engine::{Acceptor, Carrier, Engine, MuxStream, Opener};

/// What stands in for a TCP socket's buffers.
const SOCKET: usize = 64 * 1024;

/// Our own engine; it has nothing to tune.
#[derive(Clone, Copy)]
pub struct Own;

/// Either end.
pub struct End(Live);

impl Engine for Own {
    type Opener = End;
    type Acceptor = End;

    fn name(self) -> &'static str {
        "own"
    }

    fn for_streams(self, _streams: usize) -> Self {
        self
    }

    async fn client<C: Carrier>(self, carrier: C) -> io::Result<End> {
        let (live, id) = fresh(Role::Service)?;
        let stream = WebSocket::client(carrier, &[]);
        Ok(start(live, id, stream))
    }

    async fn server<C: Carrier>(self, carrier: C) -> io::Result<End> {
        let (live, id) = fresh(Role::Device)?;
        let stream = WebSocket::server(carrier, &[]);
        Ok(start(live, id, stream))
    }
}

fn fresh(role: Role) -> io::Result<(Live, CarrierId)> {
    let live = Live::new(SessionId::random(), role);
    let carrier = live.attach(&live.freeze(), 0).map_err(io::Error::other)?;
    Ok((live, carrier))
}

fn start<C: Carrier>(live: Live, carrier: CarrierId, stream: WebSocket<C>) -> End {
    let carried = live.clone();
    tokio::spawn(async move {
        carry(&carried, carrier, stream, Bytes::new()).await;
        // Measured is one carrier: nobody opens another.
        carried.reset(common::session::Code::Stopping, "");
    });
    End(live)
}

impl Opener for End {
    type Stream = OwnStream;

    async fn open(&mut self) -> io::Result<OwnStream> {
        let id = self.0.open().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(OwnStream::new(&self.0, id))
    }
}

impl Acceptor for End {
    type Stream = OwnStream;

    async fn accept(&mut self) -> io::Result<Option<OwnStream>> {
        let Some(id) = self.0.next_incoming().await else {
            return Ok(None);
        };
        self.0.opened(id);
        Ok(Some(OwnStream::new(&self.0, id)))
    }
}

/// The far side of what stands in for a TCP socket.
pub struct OwnStream {
    io: DuplexStream,
    /// The other side has ended its output in due form.
    ended: Arc<AtomicBool>,
    reset: CancellationToken,
}

impl OwnStream {
    fn new(live: &Live, id: ConnectionId) -> Self {
        let (io, local) = duplex(SOCKET);
        let (ended, reset) = (Arc::new(AtomicBool::new(false)), CancellationToken::new());
        let (live, is_ended, is_reset) = (live.clone(), Arc::clone(&ended), reset.clone());
        tokio::spawn(async move {
            let (input, output) = tokio::io::split(local);
            let traffic = Traffic::default();
            let pipes = Pipes::half_closing(input, Watched(output, is_ended));
            tokio::select! {
                _ = pipe(&live, id, pipes, &traffic, || ()) => {}
                () = is_reset.cancelled() => {}
            }
        });
        Self { io, ended, reset }
    }
}

/// A pipe that is dropped before it was shut down is broken, as an armed socket is.
struct Watched<W>(W, Arc<AtomicBool>);

impl<W: AsyncWrite + Unpin> AsyncWrite for Watched<W> {
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
        // Said first: a reader may see the end at once.
        self.1.store(true, Ordering::SeqCst);
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl AsyncRead for OwnStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buffer))?;
        let is_end = buffer.filled().len() == before && buffer.remaining() > 0;
        if is_end && !self.ended.load(Ordering::SeqCst) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for OwnStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl MuxStream for OwnStream {
    fn reset(self) {
        self.reset.cancel();
    }
}
