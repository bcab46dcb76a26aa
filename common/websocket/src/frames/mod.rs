//! A WebSocket over a byte stream: receives events, sends frames, and does the closing handshake.
//! Everything is poll-based, and a caller may stop polling at any time.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BufMut as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::poll_write_buf;

use crate::decoder::{Decoder, Event};
use crate::error::{ViolationError, WebSocketError};
use crate::header::Opcode;
use crate::limits::{self, SMALL_READ};
use crate::mask;
use crate::message::{CloseFrame, Data, Kind};
use crate::outbox::Outbox;
use crate::role::Role;
use crate::text;

mod buffers;
mod read;

use buffers::{Buffers, LARGE_BUFFER};
use read::TINY_READ;

/// How much the caller can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Appetite {
    /// Any event.
    All,
    /// Events that are in the buffer already, or fit in [`LITTLE`](read::LITTLE) bytes; the rest
    /// stays in the network.
    Little,
}

/// Either end of a WebSocket, without a clock.
pub(crate) struct Frames<S> {
    io: S,
    role: Role,
    decoder: Decoder,
    outbox: Outbox,
    /// The answer to the last ping, until there is room for it: only the last one needs an answer
    /// (RFC 6455, 5.5.3).
    pong: Option<Bytes>,
    /// A ping or pong is not completely written yet. Reading writes it, since a caller that only
    /// reads would not.
    owes_flush: bool,
    /// Bytes were written since the last flush of the stream below.
    is_unflushed: bool,
    /// The stream below has not taken everything yet: nothing more is queued.
    is_blocked: bool,
    is_closing: bool,
    is_closed_by_peer: bool,
    /// The answer to the peer's Close, until something is written: the owner may replace it before
    /// that.
    close_answer: Option<(u16, &'static str)>,
    /// How the peer violated the protocol; nothing more is decoded.
    violation: Option<ViolationError>,
    read_size: usize,
    /// The read size while bulk comes.
    most_read: usize,
    /// The decoder's buffer was replaced by a small one since the last large read.
    is_moved_out: bool,
    small_reads: u8,
    buffers: Buffers,
    /// The owner calls [`rest`](Self::rest), so that buffers may be kept until then.
    is_tidied: bool,
    /// Large buffers may be held.
    is_bulk: bool,
    /// Much was read or queued since the last [`rest`](Self::rest).
    was_bulk: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Frames<S> {
    /// Over an upgraded stream, of which `read` was read already.
    pub(crate) fn new(io: S, role: Role, limit: usize, read: &[u8]) -> Self {
        Self {
            io,
            role,
            decoder: Decoder::new(role == Role::Server, limit, read),
            outbox: Outbox::default(),
            pong: None,
            owes_flush: false,
            is_unflushed: false,
            is_blocked: false,
            is_closing: false,
            is_closed_by_peer: false,
            close_answer: None,
            violation: None,
            read_size: SMALL_READ,
            most_read: LARGE_BUFFER.min(limit),
            is_moved_out: false,
            small_reads: 0,
            buffers: Buffers::default(),
            is_tidied: false,
            is_bulk: false,
            was_bulk: false,
        }
    }

    pub(crate) fn get_ref(&self) -> &S {
        &self.io
    }

    /// The same.
    pub(crate) fn get_mut(&mut self) -> &mut S {
        &mut self.io
    }

    /// Limits messages to `limit` bytes from now on, and reads no more than that at once.
    pub(crate) fn set_limit(&mut self, limit: usize) {
        self.decoder.set_limit(limit);
        self.most_read = LARGE_BUFFER.min(limit);
        self.read_size = if limit < SMALL_READ {
            TINY_READ
        } else {
            SMALL_READ
        };
    }

    /// Whether our Close was queued.
    pub(crate) fn is_closing(&self) -> bool {
        self.is_closing
    }

    /// The next event. Queues the answers to pings and to a Close; the latter must be flushed.
    pub(crate) fn poll_event(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Event, WebSocketError>> {
        self.poll_event_of(Appetite::All, cx)
    }

    /// The same for this [`Appetite`]. Also pending when the next event is too large for it: then
    /// [`is_full`](Self::is_full) is true, and further bytes do not wake the task.
    pub(crate) fn poll_event_of(
        &mut self,
        appetite: Appetite,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Event, WebSocketError>> {
        loop {
            if self.is_closed_by_peer {
                return Poll::Ready(Err(WebSocketError::Lost(
                    io::ErrorKind::NotConnected.into(),
                )));
            }
            if let Some(violation) = &self.violation {
                let violation = *violation;
                return self.poll_deaf(cx, violation);
            }
            match self.decoder.next_event() {
                Ok(Some(event)) => {
                    self.react(&event);
                    return Poll::Ready(Ok(event));
                }
                Ok(None) => {}
                Err(violation) => {
                    self.violation = Some(violation);
                    return Poll::Ready(Err(violation.into()));
                }
            }
            let read = match appetite {
                Appetite::All => self.poll_read(cx),
                Appetite::Little => self.poll_read_little(cx),
            };
            match read {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(WebSocketError::Ended)),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(lost(error))),
                Poll::Pending => {
                    // A peer that takes no answer any more may still have sent something, perhaps
                    // its Close: reading determines how the connection ends.
                    if self.owes_flush && matches!(self.poll_flush(cx), Poll::Ready(Err(_))) {
                        self.owes_flush = false;
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// After a violation, and once our Close was queued, bytes are read and dropped: closing a
    /// socket with unread bytes would destroy that Close.
    fn poll_deaf(
        &mut self,
        cx: &mut Context<'_>,
        violation: ViolationError,
    ) -> Poll<Result<Event, WebSocketError>> {
        while self.is_closing {
            self.decoder.buffer().clear();
            match ready!(self.poll_read(cx)) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(lost(error))),
            }
        }
        Poll::Ready(Err(violation.into()))
    }

    fn react(&mut self, event: &Event) {
        match event {
            Event::Ping(payload) if !self.is_closing => {
                self.pong = Some(payload.clone());
                self.owes_flush = true;
            }
            Event::Close(close_frame) => {
                self.is_closed_by_peer = true;
                if !self.is_closing {
                    self.is_closing = true;
                    self.close_answer = Some((close_frame.code, ""));
                }
            }
            Event::Ping(_) | Event::Pong | Event::Data(_) | Event::Nothing => {}
        }
    }

    /// Ready when [`send`](Self::send) may be called.
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WebSocketError>> {
        if self.is_blocked || self.outbox.len() >= limits::WRITE_BUFFER {
            // Flush to the network: TLS keeps what it has taken and the network has not.
            ready!(self.poll_flush(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Queues a data message.
    pub(crate) fn send(&mut self, data: Data) -> Result<(), WebSocketError> {
        if self.is_closing {
            return Err(lost(io::ErrorKind::NotConnected.into()));
        }
        let opcode = match data.kind {
            Kind::Binary => Opcode::Binary,
            Kind::Text => Opcode::Text,
        };
        self.queue(opcode, data.bytes);
        Ok(())
    }

    /// Queues a ping.
    pub(crate) fn send_ping(&mut self) {
        if !self.is_closing {
            self.queue(Opcode::Ping, Bytes::new());
            self.owes_flush = true;
        }
    }

    /// Queues a Close; nothing may be sent after it.
    pub(crate) fn send_close(&mut self, code: u16, reason: &str) -> Result<(), WebSocketError> {
        if self.is_closing {
            return Err(lost(io::ErrorKind::NotConnected.into()));
        }
        self.is_closing = true;
        self.queue_close(code, reason);
        Ok(())
    }

    /// Replaces the answer to the peer's Close, unless it was written already.
    pub(crate) fn answer_close(&mut self, code: u16, reason: &'static str) {
        if let Some(answer) = &mut self.close_answer {
            *answer = (code, reason);
        }
    }

    /// Bytes that were queued and not yet taken by the stream below.
    pub(crate) fn queued(&self) -> usize {
        self.outbox.len()
    }

    fn queue_close(&mut self, code: u16, reason: &str) {
        let mut payload = Vec::new();
        if code != CloseFrame::NO_CODE {
            payload.put_u16(code);
            payload.put_slice(reason.as_bytes());
        }
        self.pong = None;
        self.queue(Opcode::Close, payload.into());
    }

    fn queue(&mut self, opcode: Opcode, payload: Bytes) {
        if payload.len() >= SMALL_READ {
            self.note_bulk();
        }
        match self.role {
            Role::Server => self.outbox.push(opcode, payload),
            Role::Client => self.outbox.push_masked(opcode, &payload, mask::draw()),
        }
    }

    /// Writes all that is queued.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WebSocketError>> {
        let written = self.poll_write_queued(cx);
        self.is_blocked = written.is_pending();
        written
    }

    fn poll_write_queued(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WebSocketError>> {
        loop {
            if let Some(payload) = self.pong.take() {
                self.queue(Opcode::Pong, payload);
            }
            if let Some((code, reason)) = self.close_answer.take() {
                self.queue_close(code, reason);
            }
            if !self.outbox.has_remaining() {
                return Poll::Ready(Ok(()));
            }
            if self.is_unflushed {
                // TLS must send its buffered bytes first: it would accept more, and hold both.
                ready!(self.poll_flush_below(cx))?;
            }
            self.is_unflushed = true;
            match ready!(poll_write_buf(Pin::new(&mut self.io), cx, &mut self.outbox)) {
                Ok(0) => return Poll::Ready(Err(lost(io::ErrorKind::WriteZero.into()))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(lost(error))),
            }
        }
    }

    /// Flushes the stream below.
    fn poll_flush_below(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WebSocketError>> {
        ready!(Pin::new(&mut self.io).poll_flush(cx)).map_err(lost)?;
        self.is_unflushed = false;
        Poll::Ready(Ok(()))
    }

    /// Writes all that is queued, down to the network.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WebSocketError>> {
        ready!(self.poll_write(cx))?;
        if self.is_unflushed {
            let flushed = self.poll_flush_below(cx);
            self.is_blocked = flushed.is_pending();
            ready!(flushed)?;
            self.owes_flush = false;
            // While much is sent, the memory of what was written is used again.
            if !self.is_bulk && self.read_size <= SMALL_READ {
                self.outbox.shrink();
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn lost(error: io::Error) -> WebSocketError {
    WebSocketError::Lost(text::plain(error))
}

#[cfg(test)]
mod tests;
