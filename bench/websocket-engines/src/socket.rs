//! The engines behind one trait, each used as its library wants to be used.

use std::future::Future;
use std::io;
use std::pin::pin;

use bytes::{Bytes, BytesMut};
use fastwebsockets::{Frame, Payload, Role};
use futures_util::future::poll_immediate;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, BufWriter};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Message, Role as TungsteniteRole, WebSocketConfig};
use tokio_websockets::{ClientBuilder, Config, ServerBuilder};

pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}
pub type Stream = Box<dyn Io>;

/// Bytes an engine gathers before it writes.
pub const BATCH: usize = 128 << 10;

/// One end of an upgraded connection.
pub trait Socket: Sized + Send + 'static {
    type Piece<'a>: AsRef<[u8]> + Send;

    fn new(stream: Stream, client: bool) -> impl Future<Output = Self> + Send;

    /// The next message, or the next piece of one; an error at the end.
    fn receive(&mut self) -> impl Future<Output = io::Result<Self::Piece<'_>>> + Send;

    /// Sends what another socket received.
    fn pass_on(&mut self, piece: Self::Piece<'_>) -> impl Future<Output = io::Result<()>> + Send;

    /// Sends a message that another read gave: the copy stands for that read.
    fn send(&mut self, payload: &[u8]) -> impl Future<Output = io::Result<()>> + Send;

    fn flush(&mut self) -> impl Future<Output = io::Result<()>> + Send;

    /// From one socket to another; flushes when nothing more is at hand.
    fn relay(mut from: Self, mut to: Self) -> impl Future<Output = io::Result<()>> + Send {
        async move {
            loop {
                let piece = {
                    let mut next = pin!(from.receive());
                    match poll_immediate(next.as_mut()).await {
                        Some(piece) => piece?,
                        None => {
                            to.flush().await?;
                            next.await?
                        }
                    }
                };
                to.pass_on(piece).await?;
            }
        }
    }
}

pub fn ended() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}

/// tokio-tungstenite, with a read buffer of `READ` bytes.
pub struct Tungstenite<const READ: usize>(WebSocketStream<Stream>);

impl<const READ: usize> Socket for Tungstenite<READ> {
    type Piece<'a> = Bytes;

    async fn new(stream: Stream, client: bool) -> Self {
        let role = if client {
            TungsteniteRole::Client
        } else {
            TungsteniteRole::Server
        };
        let config = WebSocketConfig::default()
            .read_buffer_size(READ)
            .write_buffer_size(BATCH)
            .max_write_buffer_size(4 * BATCH);
        Self(WebSocketStream::from_raw_socket(stream, role, Some(config)).await)
    }

    async fn receive(&mut self) -> io::Result<Bytes> {
        let message = self.0.next().await.ok_or_else(ended)?;
        Ok(message.map_err(io::Error::other)?.into_data())
    }

    async fn pass_on(&mut self, piece: Self::Piece<'_>) -> io::Result<()> {
        let sent = self.0.feed(Message::Binary(piece)).await;
        sent.map_err(io::Error::other)
    }

    async fn send(&mut self, payload: &[u8]) -> io::Result<()> {
        self.pass_on(Bytes::copy_from_slice(payload)).await
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.0.flush().await.map_err(io::Error::other)
    }
}

/// fastwebsockets; with a `BufWriter` below when `BUFFER` is not 0, because it writes
/// each frame at once.
pub struct Fast<const BUFFER: usize> {
    socket: fastwebsockets::WebSocket<Stream>,
    payload: Vec<u8>,
}

impl<const BUFFER: usize> Socket for Fast<BUFFER> {
    type Piece<'a> = BytesMut;

    async fn new(stream: Stream, client: bool) -> Self {
        let role = if client { Role::Client } else { Role::Server };
        let stream = match BUFFER {
            0 => stream,
            buffer => Box::new(BufWriter::with_capacity(buffer, stream)),
        };
        Self {
            socket: fastwebsockets::WebSocket::after_handshake(stream, role),
            payload: Vec::new(),
        }
    }

    async fn receive(&mut self) -> io::Result<BytesMut> {
        let frame = self.socket.read_frame().await.map_err(io::Error::other)?;
        match frame.payload {
            Payload::Bytes(bytes) => Ok(bytes),
            other => Ok(BytesMut::from(&*other)),
        }
    }

    async fn pass_on(&mut self, piece: Self::Piece<'_>) -> io::Result<()> {
        let frame = Frame::binary(Payload::Bytes(piece));
        let sent = self.socket.write_frame(frame).await;
        sent.map_err(io::Error::other)
    }

    async fn send(&mut self, payload: &[u8]) -> io::Result<()> {
        self.payload.clear();
        self.payload.extend_from_slice(payload);
        let frame = Frame::binary(Payload::BorrowedMut(&mut self.payload));
        let sent = self.socket.write_frame(frame).await;
        sent.map_err(io::Error::other)
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.socket.flush().await.map_err(io::Error::other)
    }
}

/// tokio-websockets, with a flush threshold of one batch.
pub struct TokioWebSockets(tokio_websockets::WebSocketStream<Stream>);

impl Socket for TokioWebSockets {
    type Piece<'a> = BytesMut;

    async fn new(stream: Stream, client: bool) -> Self {
        let config = Config::default().flush_threshold(BATCH);
        Self(if client {
            ClientBuilder::new().config(config).take_over(stream)
        } else {
            ServerBuilder::new().config(config).serve(stream)
        })
    }

    async fn receive(&mut self) -> io::Result<BytesMut> {
        let message = self.0.next().await.ok_or_else(ended)?;
        Ok(message.map_err(io::Error::other)?.into_payload().into())
    }

    async fn pass_on(&mut self, piece: Self::Piece<'_>) -> io::Result<()> {
        let message = tokio_websockets::Message::binary(piece);
        self.0.feed(message).await.map_err(io::Error::other)
    }

    async fn send(&mut self, payload: &[u8]) -> io::Result<()> {
        self.pass_on(BytesMut::from(payload)).await
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.0.flush().await.map_err(io::Error::other)
    }
}

/// Writes all of `slices`.
pub async fn write_slices(
    stream: &mut Stream,
    mut slices: &mut [io::IoSlice<'_>],
) -> io::Result<()> {
    while !slices.is_empty() {
        let written = stream.write_vectored(slices).await?;
        io::IoSlice::advance_slices(&mut slices, written);
    }
    Ok(())
}
