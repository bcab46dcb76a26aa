//! A WebSocket over a byte stream: events in, frames out, and the closing handshake.
//! Everything is poll-based and cancel-safe.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::bytes::{Buf as _, BufMut as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::{poll_read_buf, poll_write_buf};

use super::decoder::{Decoder, Event};
use super::header::Opcode;
use super::mask::Masks;
use super::outbox::Outbox;
use super::{Data, Goodbye, Kind, ViolationError, WebSocketError};
use crate::limits;

/// Read size while little comes: keystrokes need no more.
const SMALL_READ: usize = 4 << 10;
/// The same where messages are smaller than that: what one lacks is read at once all the same.
const TINY_READ: usize = 512;
/// Small reads in a row after which the large buffer is given back.
const SMALL_READS: u8 = 16;

/// Which rules the two ends follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Masks what it sends.
    Client,
    /// Expects masks.
    Server,
}

/// Either end of a WebSocket, without a clock.
pub(super) struct Frames<S> {
    io: S,
    role: Role,
    decoder: Decoder,
    outbox: Outbox,
    /// The answer to the last ping, until there is room for it: only the last one needs
    /// an answer (RFC 6455, 5.5.3).
    pong: Option<Bytes>,
    /// A ping or its answer was not written to its end yet. An owner who only reads would
    /// never do it, so that reading does.
    owes_flush: bool,
    masks: Masks,
    /// Bytes were written since the last flush of the stream below.
    is_unflushed: bool,
    is_closing: bool,
    is_closed_by_peer: bool,
    /// The answer to the peer's Close, until something is written: its owner may have found
    /// meanwhile that another one is due.
    close_answer: Option<(u16, &'static str)>,
    /// How the peer broke the rules; it is not listened to any more.
    violation: Option<ViolationError>,
    read_size: usize,
    /// The read size while bulk comes.
    most_read: usize,
    small_reads: u8,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Frames<S> {
    /// Over an upgraded stream, of which so much was read already.
    pub(super) fn new(io: S, role: Role, limit: usize, read: &[u8]) -> Self {
        Self {
            io,
            role,
            decoder: Decoder::new(role == Role::Server, limit, read),
            outbox: Outbox::default(),
            pong: None,
            owes_flush: false,
            masks: Masks::default(),
            is_unflushed: false,
            is_closing: false,
            is_closed_by_peer: false,
            close_answer: None,
            violation: None,
            read_size: SMALL_READ,
            most_read: limits::WEBSOCKET_READ_BUFFER.min(limit),
            small_reads: 0,
        }
    }

    pub(super) fn get_ref(&self) -> &S {
        &self.io
    }

    /// Allows messages of another size from now on, and reads in one go no more than one.
    pub(super) fn set_limit(&mut self, limit: usize) {
        self.decoder.set_limit(limit);
        self.most_read = limits::WEBSOCKET_READ_BUFFER.min(limit);
        self.read_size = if limit < SMALL_READ {
            TINY_READ
        } else {
            SMALL_READ
        };
    }

    /// Whether our goodbye was said.
    pub(super) fn is_closing(&self) -> bool {
        self.is_closing
    }

    /// The next event. Pings are answered on the way, and so is a goodbye: flush that.
    pub(super) fn poll_event(
        &mut self,
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
            match self.decoder.next() {
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
            match self.poll_read(cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(WebSocketError::Ended)),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(lost(error))),
                Poll::Pending => {
                    // A peer that takes no answer any more may still have said something, its
                    // goodbye perhaps: reading tells how the connection ends.
                    if self.owes_flush && matches!(self.poll_flush(cx), Poll::Ready(Err(_))) {
                        self.owes_flush = false;
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// After a violation: its bytes are read and dropped once our goodbye was said, since a
    /// socket that is closed with bytes unread would destroy that goodbye.
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
            Event::Close(goodbye) => {
                self.is_closed_by_peer = true;
                if !self.is_closing {
                    self.is_closing = true;
                    self.close_answer = Some((goodbye.code, ""));
                }
            }
            Event::Ping(_) | Event::Pong | Event::Data(_) | Event::Nothing => {}
        }
    }

    /// Reads into the decoder's buffer, which holds memory only while bytes come.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let size = match self.decoder.missing() {
            missing @ 2.. if self.read_size <= TINY_READ => missing,
            missing => self.read_size.max(missing),
        };
        let buffer = self.decoder.buffer();
        buffer.reserve(size);
        let mut room = buffer.limit(size);
        let read = poll_read_buf(Pin::new(&mut self.io), cx, &mut room);
        match &read {
            Poll::Ready(Ok(count)) if *count >= SMALL_READ => {
                self.read_size = self.most_read;
                self.small_reads = 0;
            }
            Poll::Ready(_) => {
                self.small_reads = self.small_reads.saturating_add(1);
                if self.small_reads >= SMALL_READS {
                    self.read_size = self.read_size.min(SMALL_READ);
                }
            }
            Poll::Pending => {
                if self.read_size <= SMALL_READ {
                    self.decoder.shrink();
                }
            }
        }
        read
    }

    /// Ready when the next frame may be given to [`send`](Self::send).
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WebSocketError>> {
        if self.outbox.len() >= limits::WEBSOCKET_WRITE_BUFFER {
            ready!(self.poll_write(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Queues a data message.
    pub(super) fn send(&mut self, data: Data) -> Result<(), WebSocketError> {
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
    pub(super) fn send_ping(&mut self) {
        if !self.is_closing {
            self.queue(Opcode::Ping, Bytes::new());
            self.owes_flush = true;
        }
    }

    /// Queues a goodbye; nothing may be sent after it.
    pub(super) fn send_close(&mut self, code: u16, reason: &str) -> Result<(), WebSocketError> {
        if self.is_closing {
            return Err(lost(io::ErrorKind::NotConnected.into()));
        }
        self.is_closing = true;
        self.queue_close(code, reason);
        Ok(())
    }

    /// Answers the peer's Close with this instead, unless it was answered.
    pub(super) fn answer_close(&mut self, code: u16, reason: &'static str) {
        if let Some(answer) = &mut self.close_answer {
            *answer = (code, reason);
        }
    }

    /// Bytes that were queued and not yet taken by the stream below.
    pub(super) fn queued(&self) -> usize {
        self.outbox.len()
    }

    fn queue_close(&mut self, code: u16, reason: &str) {
        let mut payload = Vec::new();
        if code != Goodbye::NO_CODE {
            payload.put_u16(code);
            payload.put_slice(reason.as_bytes());
        }
        self.pong = None;
        self.queue(Opcode::Close, payload.into());
    }

    fn queue(&mut self, opcode: Opcode, payload: Bytes) {
        match self.role {
            Role::Server => self.outbox.push(opcode, payload),
            Role::Client => self.outbox.push_masked(opcode, &payload, self.masks.draw()),
        }
    }

    /// Writes all that is queued.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WebSocketError>> {
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
            self.is_unflushed = true;
            match ready!(poll_write_buf(Pin::new(&mut self.io), cx, &mut self.outbox)) {
                Ok(0) => return Poll::Ready(Err(lost(io::ErrorKind::WriteZero.into()))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(lost(error))),
            }
        }
    }

    /// Writes all that is queued, down to the network.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WebSocketError>> {
        ready!(self.poll_write(cx))?;
        if self.is_unflushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx)).map_err(lost)?;
            self.is_unflushed = false;
            self.owes_flush = false;
            if self.read_size <= SMALL_READ {
                self.outbox.shrink();
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Gives memory back while nothing comes and goes.
    pub(super) fn shrink(&mut self) {
        self.read_size = self.read_size.min(SMALL_READ);
        self.decoder.shrink();
        self.outbox.shrink();
    }
}

fn lost(error: io::Error) -> WebSocketError {
    WebSocketError::Lost(crate::dial::plain(error))
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_ping_is_answered_through_a_full_socket_by_one_who_only_reads() {
        let (near, mut far) = tokio::io::duplex(8);
        let mut frames = Frames::new(near, Role::Server, 1000, &[]);
        let reading = async { while poll_fn(|cx| frames.poll_event(cx)).await.is_ok() {} };
        let asking = async {
            let mut ping = vec![0x89, 0x80 | 100, 0, 0, 0, 0];
            ping.extend([7; 100]);
            far.write_all(&ping).await.unwrap();
            let mut pong = [0; 102];
            far.read_exact(&mut pong).await.unwrap();
            assert_eq!(pong[..2], [0x8a, 100]);
            assert_eq!(pong[2..], [7; 100]);
            drop(far);
        };
        let both = async { tokio::join!(reading, asking) };
        tokio::time::timeout(Duration::from_secs(10), both)
            .await
            .expect("the pong never came");
    }
}
