//! A WebSocket as a byte stream, for protocols like MQTT: message boundaries are ignored.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::decoder::Event;
use crate::error::{ViolationError, WebSocketError};
use crate::frames::Frames;
use crate::limits;
use crate::message::{CloseFrame, Data, Kind};
use crate::role::Role;

/// Binary messages in and out, seen as one stream of bytes; a Close is its end.
pub struct WebSocketBytes<S> {
    frames: Frames<S>,
    unread: Bytes,
    is_over: bool,
    /// Code and reason of our Close.
    close: (u16, &'static str),
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocketBytes<S> {
    /// The server's end of an upgraded connection, which accepts messages of at most `limit`
    /// bytes; `read` are the bytes that followed the upgrade request.
    pub fn server(stream: S, limit: usize, read: &[u8]) -> Self {
        Self::new(stream, Role::Server, limit, read)
    }

    /// The client's end of an upgraded connection; `read` are the bytes that followed the answer.
    pub fn client(stream: S, limit: usize, read: &[u8]) -> Self {
        Self::new(stream, Role::Client, limit, read)
    }

    fn new(stream: S, role: Role, limit: usize, read: &[u8]) -> Self {
        Self {
            frames: Frames::new(stream, role, limit, read),
            unread: Bytes::new(),
            is_over: false,
            close: (CloseFrame::NORMAL, ""),
        }
    }

    /// Limits messages to `packet` bytes from now on, and buffers no more than that.
    pub fn set_limit(&mut self, packet: usize) {
        self.frames.set_limit(packet);
    }

    /// Closes with a protocol error: the peer violated the protocol over the WebSocket.
    pub fn break_off(&mut self) {
        self.close = (CloseFrame::PROTOCOL, "protocol error");
    }

    fn failed(&mut self, error: WebSocketError) -> io::Error {
        match &error {
            WebSocketError::Protocol(violation) => self.close = violation.close(),
            WebSocketError::TooLarge { limit } => {
                self.close = ViolationError::TooLarge { limit: *limit }.close();
            }
            _ => {}
        }
        io_error(error)
    }
}

fn io_error(error: WebSocketError) -> io::Error {
    match error {
        WebSocketError::Lost(error) => error,
        WebSocketError::Ended => io::ErrorKind::UnexpectedEof.into(),
        other => io::Error::other(other),
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocketBytes<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.unread.is_empty() && !self.is_over {
            let event = ready!(self.frames.poll_event(cx));
            match event.map_err(|error| self.failed(error))? {
                Event::Data(data) if data.kind() == Kind::Binary => self.unread = data.into_bytes(),
                Event::Data(_) => {
                    self.break_off();
                    return Poll::Ready(Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "a text message instead of a binary one",
                    )));
                }
                Event::Close(_) => self.is_over = true,
                Event::Nothing | Event::Ping(_) | Event::Pong => {}
            }
        }
        let length = buffer.remaining().min(self.unread.len());
        buffer.put_slice(self.unread.get(..length).unwrap_or_default());
        self.unread.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocketBytes<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.frames.poll_ready(cx)).map_err(io_error)?;
        let length = bytes.len().min(limits::STREAM_MESSAGE);
        let piece = bytes.get(..length).unwrap_or_default();
        self.frames
            .send(Data::binary(Bytes::copy_from_slice(piece)))
            .map_err(io_error)?;
        Poll::Ready(Ok(length))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.frames.poll_flush(cx).map_err(io_error)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.frames.is_closing() {
            let (code, reason) = self.close;
            self.frames.send_close(code, reason).map_err(io_error)?;
        }
        self.frames.poll_flush(cx).map_err(io_error)
    }
}
