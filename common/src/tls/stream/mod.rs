//! TLS over a byte stream. A connection on which nothing moves keeps no buffer: rustls' buffered
//! connections keep 4 KiB for what arrives as long as they live. What is read or written is opened or
//! sealed in a buffer of the thread, and only what is left of it stays with the connection: the
//! beginning of a record, bytes that were not read, or records that the socket did not take.

mod end;
mod outgoing;

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::WriteTraffic;
use rustls::{ClientConfig, CommonState, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use end::{close, process, seal};

pub use end::End;
use outgoing::Outgoing;

use crate::limits;

/// The longest record on the wire, which is one of TLS 1.2.
const RECORD: usize = 5 + (16 << 10) + 2048;
/// The most that is read at once.
const READ: usize = 64 << 10;
/// The least that is read behind what waits.
const LEAST: usize = 4 << 10;
/// What rustls leaves unprocessed at most is a handshake message of 64 KiB and a record; it refuses more.
const UNPROCESSED: usize = (64 << 10) + 2 * RECORD;

thread_local! {
    /// Where records are read and opened. It is taken while it is in use, since a stream may be over
    /// another one of this thread.
    static OPENED: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    /// Where records are sealed.
    static SEALED: Cell<Outgoing> = const { Cell::new(Outgoing::new()) };
}

/// The client's end of a TLS connection.
pub type ClientTlsStream<S> = TlsStream<S, UnbufferedClientConnection>;
/// The server's end of a TLS connection.
pub type ServerTlsStream<S> = TlsStream<S, UnbufferedServerConnection>;

/// One end of a TLS connection over `S`.
pub struct TlsStream<S, E> {
    io: S,
    end: E,
    /// The beginning of a record or of a handshake message.
    incoming: Vec<u8>,
    /// Opened bytes that were not read, from `read` on.
    received: Vec<u8>,
    read: usize,
    /// What was sealed and is not written.
    outgoing: Outgoing,
    /// Why nothing more can be read.
    failure: Option<Box<rustls::Error>>,
    /// The peer's close_notify has arrived.
    has_ended: bool,
    /// Ours is in `outgoing`, or sent.
    is_closed: bool,
}

impl<S, E> std::fmt::Debug for TlsStream<S, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsStream")
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> ClientTlsStream<S> {
    /// Shakes hands with a server that should be `name`. May be dropped.
    ///
    /// # Errors
    /// Those of the stream, and what is wrong with the server's messages, as a [`rustls::Error`] inside.
    pub async fn connect(
        config: &Arc<ClientConfig>,
        name: ServerName<'static>,
        io: S,
    ) -> io::Result<Self> {
        let end = UnbufferedClientConnection::new(Arc::clone(config), name);
        Self::new(io, end.map_err(invalid)?).shake_hands().await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> ServerTlsStream<S> {
    /// Shakes hands with a client. May be dropped.
    ///
    /// # Errors
    /// Those of the stream, and what is wrong with the client's messages, as a [`rustls::Error`] inside.
    pub async fn accept(config: &Arc<ServerConfig>, io: S) -> io::Result<Self> {
        let end = UnbufferedServerConnection::new(Arc::clone(config));
        Self::new(io, end.map_err(invalid)?).shake_hands().await
    }
}

impl<S, E: End> TlsStream<S, E> {
    /// What is below, and what the handshake has found.
    pub fn get_ref(&self) -> (&S, &CommonState) {
        (&self.io, self.end.common())
    }

    /// What is below. What is written to it is not sealed.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.io
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin, E: End> TlsStream<S, E> {
    fn new(io: S, end: E) -> Self {
        Self {
            io,
            end,
            incoming: Vec::new(),
            received: Vec::new(),
            read: 0,
            outgoing: Outgoing::new(),
            failure: None,
            has_ended: false,
            is_closed: false,
        }
    }

    async fn shake_hands(mut self) -> io::Result<Self> {
        std::future::poll_fn(|cx| self.poll_handshake(cx)).await?;
        Ok(self)
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            // At first nothing has arrived, and a client begins.
            if let Err(error) = self.process_incoming(|_, _| ()) {
                return Poll::Ready(Err(self.refuse(cx, error)));
            }
            ready!(self.poll_send(cx))?;
            // A stream below may have taken what its socket has not.
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            if !self.end.common().is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            let mut opened = OPENED.take();
            let filled = self.poll_fill(cx, &mut opened, RECORD);
            if let Poll::Ready(Ok(filled)) = &filled {
                self.incoming = opened.get(..*filled).unwrap_or_default().to_vec();
            }
            OPENED.set(opened);
            if ready!(filled)? == 0 {
                let text = "tls handshake eof";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, text)));
            }
        }
    }

    /// Processes what has arrived before, and lets `send` seal something. rustls counts in the bytes that
    /// it has not done with, so it must be given them each time.
    fn process_incoming<R>(
        &mut self,
        send: impl FnOnce(&mut WriteTraffic<'_, E::Data>, &mut Outgoing) -> R,
    ) -> Result<Option<R>, rustls::Error> {
        let received = &mut self.received;
        let processed = process(
            &mut self.end,
            &mut self.incoming,
            &mut self.outgoing,
            |bytes| received.extend_from_slice(bytes),
            send,
        )?;
        self.has_ended |= processed.has_ended;
        if processed.done > 0 {
            self.incoming = self
                .incoming
                .get(processed.done..)
                .unwrap_or_default()
                .to_vec();
        }
        Ok(processed.sent)
    }

    /// Reads behind what has arrived before, up to `most` bytes in all, but at least some, and returns how
    /// many there are then in `place`: 0 at the end of the stream.
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        place: &mut Vec<u8>,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        let before = self.incoming.len();
        if before > UNPROCESSED {
            let text = "the peer's messages are too long";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, text)));
        }
        let most = most.max(before + LEAST);
        if place.len() < most {
            place.resize(most, 0);
        }
        let (first, rest) = place.split_at_mut(before);
        let mut rest = ReadBuf::new(rest.get_mut(..most - before).unwrap_or_default());
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut rest))?;
        let read = rest.filled().len();
        if read == 0 {
            return Poll::Ready(Ok(0));
        }
        first.copy_from_slice(&self.incoming);
        Poll::Ready(Ok(before + read))
    }

    /// Reads once, and opens what has arrived: into `buffer`, and what it has no room for into `received`.
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let most = buffer.remaining().clamp(RECORD, READ);
        let mut opened = OPENED.take();
        let result = match self.poll_fill(cx, &mut opened, most) {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the peer closed the connection without a TLS close_notify",
            ))),
            Poll::Ready(Ok(filled)) => {
                let arrived = opened.get_mut(..filled).unwrap_or_default();
                self.open(cx, arrived, buffer);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        };
        OPENED.set(opened);
        result
    }

    fn open(&mut self, cx: &mut Context<'_>, arrived: &mut [u8], buffer: &mut ReadBuf<'_>) {
        let received = &mut self.received;
        let processed = process(
            &mut self.end,
            arrived,
            &mut self.outgoing,
            |bytes| {
                let (now, later) = bytes.split_at(bytes.len().min(buffer.remaining()));
                buffer.put_slice(now);
                received.extend_from_slice(later);
            },
            |_, _| (),
        );
        match processed {
            Ok(processed) => {
                self.has_ended |= processed.has_ended;
                // Nothing counts that comes behind the end.
                let rest = if self.has_ended {
                    &[]
                } else {
                    arrived.get(processed.done..).unwrap_or_default()
                };
                self.incoming = rest.to_vec();
            }
            // What came before the violation is read first.
            Err(error) => {
                let _ = self.refuse(cx, error);
            }
        }
    }

    /// The peer has violated the protocol, or has not proved what it should: tries to tell it, and keeps
    /// the reason.
    fn refuse(&mut self, cx: &mut Context<'_>, error: rustls::Error) -> io::Error {
        let _ = self.poll_send(cx);
        self.failure = Some(Box::new(error.clone()));
        invalid(error)
    }

    fn failure(&self) -> io::Result<()> {
        match &self.failure {
            Some(error) => Err(invalid((**error).clone())),
            None => Ok(()),
        }
    }

    /// Writes what was sealed.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.outgoing.is_empty() {
            ready!(send(&mut self.io, cx, &mut self.outgoing))?;
            self.outgoing = Outgoing::new();
        }
        Poll::Ready(Ok(()))
    }

    /// Seals these bytes in the thread's buffer. What the socket does not take stays with the connection.
    fn poll_seal(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_send(cx))?;
        self.failure()?;
        if self.is_closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if slices.iter().all(|slice| slice.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        self.outgoing = SEALED.take();
        let sealed = self.process_incoming(|traffic, outgoing| {
            seal(traffic, slices, limits::TLS_WRITE_BUFFER, outgoing)
        });
        let result = match sealed {
            Ok(Some(Ok(count))) => match send(&mut self.io, cx, &mut self.outgoing) {
                Poll::Ready(Err(error)) => Err(error),
                Poll::Ready(Ok(())) | Poll::Pending => Ok(count),
            },
            Ok(Some(Err(error))) => Err(io::Error::other(error)),
            Ok(None) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(error) => Err(self.refuse(cx, error)),
        };
        let rest = self.outgoing.split_rest();
        SEALED.set(mem::replace(&mut self.outgoing, rest));
        Poll::Ready(result)
    }
}

/// Writes all of it.
fn send<S: AsyncWrite + Unpin>(
    io: &mut S,
    cx: &mut Context<'_>,
    outgoing: &mut Outgoing,
) -> Poll<io::Result<()>> {
    while !outgoing.is_empty() {
        match ready!(Pin::new(&mut *io).poll_write(cx, outgoing.unwritten()))? {
            0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            count => outgoing.written(count),
        }
    }
    Poll::Ready(Ok(()))
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl<S: AsyncRead + AsyncWrite + Unpin, E: End> AsyncRead for TlsStream<S, E> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        while buffer.remaining() > 0 && buffer.filled().len() == before {
            let unread = this.received.get(this.read..).unwrap_or_default();
            if !unread.is_empty() {
                let count = unread.len().min(buffer.remaining());
                buffer.put_slice(unread.get(..count).unwrap_or_default());
                this.read += count;
                if this.read == this.received.len() {
                    (this.received, this.read) = (Vec::new(), 0);
                }
                break;
            }
            this.failure()?;
            if this.has_ended {
                break;
            }
            ready!(this.poll_receive(cx, buffer))?;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin, E: End> AsyncWrite for TlsStream<S, E> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_seal(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_seal(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.is_closed {
            this.is_closed = true;
            if this.failure.is_none()
                && let Err(error) = this.process_incoming(close)
            {
                let _ = this.refuse(cx, error);
            }
        }
        ready!(this.poll_send(cx))?;
        match ready!(Pin::new(&mut this.io).poll_shutdown(cx)) {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            result => Poll::Ready(result),
        }
    }
}

#[cfg(test)]
mod tests;
