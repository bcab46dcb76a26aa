//! Copies both ways between a local socket and a stream, in one task: one buffer a
//! direction, a slow side slows the other, a flush when there is a pause.
//!
//! **Ends.** A Close ends both directions of a WebSocket, so a TCP half-close cannot
//! cross a plain stream. The rule, here and nowhere else:
//!
//! - At the local end of input: send what is left, keep delivering the peer's bytes
//!   until it closes or [`limits::HALF_CLOSE_LINGER`] passes with none, then Close 1000. The
//!   end is normal when the peer answers it, or ends the connection in order.
//! - A Close 1000, or one without a code, from the peer: deliver what came before it, then
//!   end the local connection in order.
//! - A stream that is lost, or closed with another code: deliver what came before, then abort
//!   the local socket (RST), so that a truncated transfer never looks complete.
//! - A local connection that breaks: Close 1011, so that the other end aborts too.
//!
//! Delivering means that the system has sent it: a reset, or a close of a socket whose peer
//! still sends, destroys what it holds. As long as the stream takes nothing, what the local
//! side sends is read and dropped: it may not read before it can write.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use device_stream_session::Traffic;
use device_stream_websocket::limits::{SMALL_READ, SMALL_READS};
use device_stream_websocket::{CloseFrame, Data, Incoming, WebSocket, WebSocketError};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::task::coop;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{Delivery, End, LocalSocket, Outcome};
use crate::limits;

/// Reads whose bytes are dropped before others get their turn.
const DROPPED_READS: u8 = 16;

/// Runs a tunnel to its end, or until `stop` is cancelled; then both sides are
/// closed, which takes at most [`limits::CLOSE`]. Dropping the future cuts both.
pub async fn pump<L, S>(
    local: L,
    stream: WebSocket<S>,
    traffic: &Traffic,
    stop: &CancellationToken,
) -> Outcome
where
    L: LocalSocket,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let started = Instant::now();
    local.arm();
    let mut pump = Pump {
        local,
        stream,
        traffic,
        phase: Phase::Open,
        read: ReadBuffer::default(),
        unflushed: false,
        undelivered: Bytes::new(),
        unflushed_local: false,
        broken: None,
        ending: None,
        delivery: None,
        timer: Box::pin(sleep(limits::HALF_CLOSE_LINGER)),
        is_up_first: false,
    };
    let end = tokio::select! {
        end = poll_fn(|cx| pump.poll(cx)) => end,
        () = stop.cancelled() => End::Stopped,
    };
    let end = pump.finish(end).await;
    Outcome {
        sent: traffic.sent(),
        received: traffic.received(),
        duration: started.elapsed(),
        end,
    }
}

/// How far the way up, local socket to stream, has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// The local side has ended its input; the peer may still send.
    Lingering,
    /// Our Close is on its way; the peer's is awaited.
    Closing,
    /// The stream takes nothing any more, and may still yield what the peer had sent.
    Receiving,
}

struct Pump<'a, L, S> {
    local: L,
    stream: WebSocket<S>,
    traffic: &'a Traffic,
    phase: Phase,
    read: ReadBuffer,
    /// Messages were given to the stream since its last flush.
    unflushed: bool,
    /// The part of the peer's last message that the local socket has not taken.
    undelivered: Bytes,
    /// Bytes were given to the local socket since its last flush.
    unflushed_local: bool,
    /// The stream takes nothing any more; what it still yields is delivered.
    broken: Option<WebSocketError>,
    /// The end, for which only the local socket's delivery is waited.
    ending: Option<End>,
    /// Since when the stream takes nothing, or has ended: whether the rest still moves.
    delivery: Option<Delivery>,
    /// Linger time.
    timer: Pin<Box<Sleep>>,
    /// The way up comes first now: the way down has used up the task's turn (tokio's coop), and
    /// a flood would do so each time.
    is_up_first: bool,
}

impl<L: LocalSocket, S: AsyncRead + AsyncWrite + Unpin> Pump<'_, L, S> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if self.ending.is_none() {
            let is_up_first = std::mem::take(&mut self.is_up_first);
            if is_up_first && let Poll::Ready(end) = self.poll_up(cx) {
                return Poll::Ready(end);
            }
            let Poll::Ready(end) = self.poll_down(cx) else {
                if is_up_first {
                    return Poll::Pending;
                }
                self.is_up_first = !coop::has_budget_remaining();
                return self.poll_up(cx);
            };
            if let End::LocalFailed(_) = end {
                return Poll::Ready(end);
            }
            self.ending = Some(end);
            self.delivery = None;
        }
        let is_normal = self.ending.as_ref().is_some_and(End::is_normal);
        if let Err(error) = ready!(self.poll_delivered(is_normal, cx))
            && is_normal
        {
            return Poll::Ready(End::LocalFailed(error));
        }
        // The first failure is the cause of the second.
        Poll::Ready(self.ending.take().unwrap_or(End::LocalClosed))
    }

    /// However slow the local reader: the end comes when all is on its way to it.
    fn poll_delivered(&mut self, is_normal: bool, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unflushed_local {
            if let Poll::Ready(flushed) = Pin::new(&mut self.local).poll_flush(cx) {
                flushed?;
                self.unflushed_local = false;
            } else if is_normal {
                return Poll::Pending;
            }
        }
        if self.unflushed_local || self.local.backlog() > 0 {
            self.drop_input(cx);
            // After a normal end the system goes on with the rest by itself.
            ready!(self.poll_stuck(cx));
        }
        Poll::Ready(Ok(()))
    }

    /// Reads what nothing takes any more: the local side may not read before it can write.
    fn drop_input(&mut self, cx: &mut Context<'_>) {
        // What comes in one go is enough: the delivery is looked at again soon.
        for _ in 0..DROPPED_READS {
            match self.read.poll(&mut self.local, cx) {
                Poll::Ready(Ok(bytes)) if !bytes.is_empty() => {}
                Poll::Ready(_) | Poll::Pending => return,
            }
        }
        cx.waker().wake_by_ref();
    }

    /// Ready when the local side takes nothing any more, and the peer sends nothing.
    fn poll_stuck(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (local, stream, traffic) = (&self.local, &self.stream, self.traffic);
        let delivery = self.delivery.get_or_insert_default();
        delivery.poll_stuck(cx, || {
            (traffic.received(), local.backlog() + stream.queued())
        })
    }

    /// Stream to local socket.
    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            while !self.undelivered.is_empty() {
                match ready!(Pin::new(&mut self.local).poll_write(cx, &self.undelivered)) {
                    Ok(0) => {
                        return Poll::Ready(End::LocalFailed(io::ErrorKind::WriteZero.into()));
                    }
                    Ok(count) => {
                        self.undelivered.advance(count);
                        self.traffic.add_received(count);
                        self.unflushed_local = true;
                        if self.phase == Phase::Lingering {
                            self.rest(limits::HALF_CLOSE_LINGER);
                        }
                    }
                    Err(error) => return Poll::Ready(End::LocalFailed(error)),
                }
            }
            match self.stream.poll_incoming(cx) {
                Poll::Ready(Ok(Incoming::Data(data))) => self.undelivered = data.into_bytes(),
                Poll::Ready(Ok(Incoming::Closed(close_frame))) => {
                    return Poll::Ready(if !close_frame.is_normal() {
                        End::PeerAborted(close_frame)
                    } else if self.phase == Phase::Closing {
                        End::LocalClosed
                    } else {
                        End::PeerClosed
                    });
                }
                // A peer need not answer a Close. One that ends TLS in order has read it; one
                // that was killed, or a path that was cut, does not.
                Poll::Ready(Err(WebSocketError::Ended))
                    if self.phase == Phase::Closing && !self.unflushed =>
                {
                    return Poll::Ready(End::LocalClosed);
                }
                Poll::Ready(Err(error)) => {
                    // The first failure is the cause of the second.
                    return Poll::Ready(End::StreamLost(self.broken.take().unwrap_or(error)));
                }
                Poll::Pending => {
                    if self.unflushed_local {
                        match ready!(Pin::new(&mut self.local).poll_flush(cx)) {
                            Ok(()) => self.unflushed_local = false,
                            Err(error) => return Poll::Ready(End::LocalFailed(error)),
                        }
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Local socket to stream.
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            let step = match self.phase {
                Phase::Open => ready!(self.poll_read_local(cx)),
                Phase::Lingering => ready!(self.poll_linger(cx)),
                Phase::Closing => ready!(self.poll_closing(cx)),
                Phase::Receiving => {
                    self.drop_input(cx);
                    ready!(self.poll_stuck(cx));
                    let error = self.broken.take().unwrap_or(WebSocketError::Dead);
                    return Poll::Ready(End::StreamLost(error));
                }
            };
            match step {
                Ok(()) => {}
                // What the peer sent before, perhaps its Close, may still be on this side.
                Err(End::StreamLost(error)) if self.phase != Phase::Closing || self.unflushed => {
                    self.broken = Some(error);
                    self.phase = Phase::Receiving;
                    self.delivery = None;
                    // Look at once: what it has is there by now.
                    cx.waker().wake_by_ref();
                }
                Err(end) => return Poll::Ready(end),
            }
        }
    }

    fn poll_read_local(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        ready!(self.stream.poll_ready(cx)).map_err(End::StreamLost)?;
        match self.read.poll(&mut self.local, cx) {
            Poll::Ready(Ok(bytes)) if bytes.is_empty() => {
                self.phase = Phase::Lingering;
                self.rest(limits::HALF_CLOSE_LINGER);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Ok(bytes)) => {
                let count = bytes.len();
                self.stream
                    .start_send(Data::binary(bytes))
                    .map_err(End::StreamLost)?;
                self.traffic.add_sent(count);
                self.unflushed = true;
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(End::LocalFailed(error))),
            Poll::Pending => {
                ready!(self.poll_flush_stream(cx)).map_err(End::StreamLost)?;
                Poll::Pending
            }
        }
    }

    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        ready!(self.poll_flush_stream(cx)).map_err(End::StreamLost)?;
        if !self.undelivered.is_empty() {
            // The local reader is slow, not the peer silent; its socket wakes us.
            return Poll::Pending;
        }
        ready!(self.timer.as_mut().poll(cx));
        ready!(self.stream.poll_ready(cx)).map_err(End::StreamLost)?;
        self.stream
            .start_close(CloseFrame::NORMAL, "")
            .map_err(End::StreamLost)?;
        self.phase = Phase::Closing;
        self.unflushed = true;
        Poll::Ready(Ok(()))
    }

    /// Our Close goes out, and the peer answers it once it has passed on what came before: only
    /// then is nothing lost.
    fn poll_closing(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        if self.unflushed {
            ready!(self.poll_flush_stream(cx)).map_err(End::StreamLost)?;
            self.delivery = None;
        }
        ready!(self.poll_stuck(cx));
        let error = self.broken.take().unwrap_or(WebSocketError::Dead);
        Poll::Ready(Err(End::StreamLost(error)))
    }

    fn poll_flush_stream(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WebSocketError>> {
        if self.unflushed {
            ready!(self.stream.poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn rest(&mut self, time: std::time::Duration) {
        self.timer.as_mut().reset(Instant::now() + time);
    }

    /// Closes both sides as the end demands, within [`limits::CLOSE`] each.
    async fn finish(mut self, end: End) -> End {
        match &end {
            End::LocalClosed | End::PeerClosed => {
                self.local.disarm();
                // The library has queued the answer to the peer's Close.
                let _ = timeout(limits::CLOSE, poll_fn(|cx| self.stream.poll_flush(cx))).await;
                let _ = timeout(limits::CLOSE, close_local(&mut self.local)).await;
            }
            // Armed, the local socket is reset when it is dropped: before any Close.
            End::PeerAborted(_) => {
                drop(self.local);
                let _ = timeout(limits::CLOSE, poll_fn(|cx| self.stream.poll_flush(cx))).await;
            }
            End::StreamLost(_) => drop(self.local),
            End::LocalFailed(_) => {
                drop(self.local);
                let (code, reason) = (CloseFrame::ERROR, "local connection broke");
                self.stream.close(code, reason, limits::CLOSE).await;
            }
            End::Stopped => {
                drop(self.local);
                let (code, reason) = (CloseFrame::AWAY, "stopping");
                self.stream.close(code, reason, limits::CLOSE).await;
            }
        }
        end
    }
}

/// Ends a local connection so that its peer reads all that was delivered: closing a
/// socket with unread input would send RST and destroy it.
async fn close_local<L: AsyncRead + AsyncWrite + Unpin>(local: &mut L) {
    if local.shutdown().await.is_err() {
        return;
    }
    let mut scrap = [0u8; 1024];
    while matches!(local.read(&mut scrap).await, Ok(count) if count > 0) {}
}

/// The buffer of the way up: small while little comes, one message large under load.
struct ReadBuffer {
    buffer: BytesMut,
    size: usize,
    small_reads: u8,
}

impl Default for ReadBuffer {
    fn default() -> Self {
        Self {
            buffer: BytesMut::new(),
            size: SMALL_READ,
            small_reads: 0,
        }
    }
}

impl ReadBuffer {
    /// Reads what is there, at most one message; empty at the end of input. The
    /// memory is used again once the bytes have been dropped.
    fn poll<R: AsyncRead + Unpin>(
        &mut self,
        reader: &mut R,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Bytes>> {
        self.buffer.reserve(self.size);
        let mut room = (&mut self.buffer).limit(self.size);
        let count = ready!(tokio_util::io::poll_read_buf(
            Pin::new(reader),
            cx,
            &mut room
        ))?;
        if count == self.size {
            self.size = limits::STREAM_MESSAGE;
            self.small_reads = 0;
        } else if count < SMALL_READ && self.size > SMALL_READ {
            self.small_reads += 1;
            if self.small_reads == SMALL_READS {
                let bytes = Bytes::copy_from_slice(&self.buffer);
                *self = Self::default();
                return Poll::Ready(Ok(bytes));
            }
        } else {
            self.small_reads = 0;
        }
        Poll::Ready(Ok(self.buffer.split().freeze()))
    }
}

#[cfg(test)]
mod tests;
