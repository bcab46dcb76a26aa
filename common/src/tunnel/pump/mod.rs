//! Copies both ways between a local socket and a stream, in one task: one buffer per direction, a
//! slow side slows the other, and output is flushed when there is a pause.
//!
//! **Ends.** A Close ends both directions of a WebSocket, so a TCP half-close cannot cross a plain
//! stream. The rules, which only this module implements:
//!
//! - At the end of local input: send what is left, keep delivering the peer's bytes until it closes
//!   or sends nothing for [`limits::HALF_CLOSE_LINGER`], then send Close 1000. The end is normal
//!   when the peer answers it, or ends the connection in order.
//! - After a Close 1000, or one without a code, from the peer: deliver what was received, then end
//!   the local connection in order.
//! - When the stream is lost, or closed with another code: deliver what was received, then reset
//!   the local socket (RST), so that a truncated transfer never looks complete.
//! - When the local connection fails: send Close 1011, so that the other end resets too.
//!
//! Bytes are delivered when the system has sent them: a reset, or a close of a socket whose peer
//! still sends, destroys unsent bytes. While the stream takes nothing, local input is read and
//! dropped, since the local side may read only after it could write.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use device_stream_session::Traffic;
use device_stream_websocket::{CloseFrame, Data, Incoming, WebSocket, WebSocketError};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::task::coop;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::read::ReadBuffer;
use super::{Delivery, End, LocalSocket, Outcome};
use crate::boxed::boxed;
use crate::limits;

mod read;

/// Reads whose bytes are dropped before the task yields.
const DROPPED_READS: u8 = 16;

/// Runs a tunnel to its end, or until `ended` says that it is over. Then closes both sides, which
/// takes at most [`limits::CLOSE`] each. Dropping the future cuts both.
pub async fn pump<L, S>(
    local: L,
    stream: WebSocket<S>,
    traffic: &Traffic,
    ended: impl Future<Output = End>,
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
        end = ended => end,
    };
    let end = boxed(|| pump.finish(end)).await;
    Outcome {
        sent: traffic.sent(),
        received: traffic.received(),
        duration: started.elapsed(),
        end,
    }
}

/// For [`pump`]: the end when the program stops. May be dropped.
pub async fn stopped(stop: &CancellationToken) -> End {
    stop.cancelled().await;
    End::Stopped
}

/// State of the direction from the local socket to the stream.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// The local side has ended its input; the peer may still send.
    Lingering,
    /// Our Close was queued; the peer's is awaited.
    Closing,
    /// The stream takes nothing any more, but may still return what the peer has sent.
    Receiving,
}

struct Pump<'a, L, S> {
    local: L,
    stream: WebSocket<S>,
    traffic: &'a Traffic,
    phase: Phase,
    read: ReadBuffer,
    /// Messages were queued since the stream's last flush.
    unflushed: bool,
    /// The part of the peer's last message that the local socket has not taken.
    undelivered: Bytes,
    /// Bytes were written since the local socket's last flush.
    unflushed_local: bool,
    /// Why the stream takes nothing any more; what it still returns is delivered.
    broken: Option<WebSocketError>,
    /// The end, which waits only for delivery to the local socket.
    ending: Option<End>,
    /// After the stream takes nothing or has ended: whether the delivery of the rest makes
    /// progress.
    delivery: Option<Delivery>,
    /// Linger time.
    timer: Pin<Box<Sleep>>,
    /// The next poll copies up first: the way down has used up the task's budget (tokio's coop),
    /// and with a flood it would do so each time.
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

    /// Ready when everything is sent to the local reader, however slow it is.
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
            ready!(self.poll_stuck(cx));
        }
        Poll::Ready(Ok(()))
    }

    /// Reads and drops local input: the local side may read only after it could write.
    fn drop_input(&mut self, cx: &mut Context<'_>) {
        // A few reads are enough: this is polled again soon.
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

    /// Copies from the stream to the local socket.
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
                // A peer need not answer a Close, but must end TLS in order: a killed peer or a cut
                // path does not.
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

    /// Copies from the local socket to the stream.
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
                // Bytes that the peer sent before, perhaps its Close, may be unread.
                Err(End::StreamLost(error)) if self.phase != Phase::Closing || self.unflushed => {
                    self.broken = Some(error);
                    self.phase = Phase::Receiving;
                    self.delivery = None;
                    // Read them at once.
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
            // The local reader is slow; the peer is not silent. The local socket wakes the task.
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

    /// Sends our Close and waits for the answer, which means that everything before was delivered.
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

    /// Closes both sides according to the end, within [`limits::CLOSE`] each.
    async fn finish(mut self, end: End) -> End {
        match &end {
            End::LocalClosed | End::PeerClosed => {
                self.local.disarm();
                // The answer to the peer's Close is queued.
                let _ = timeout(limits::CLOSE, poll_fn(|cx| self.stream.poll_flush(cx))).await;
                let _ = timeout(limits::CLOSE, close_local(&mut self.local)).await;
            }
            // The armed local socket is reset by dropping it, before any Close.
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
            End::Withdrawn => {
                drop(self.local);
                let (code, reason) = (CloseFrame::POLICY, "the target was withdrawn");
                self.stream.close(code, reason, limits::CLOSE).await;
            }
            End::OutOfHours => {
                drop(self.local);
                let (code, reason) = (CloseFrame::POLICY, "the hours of the target are over");
                self.stream.close(code, reason, limits::CLOSE).await;
            }
            End::ByOperator => {
                drop(self.local);
                let (code, reason) = (CloseFrame::POLICY, "closed by an operator");
                self.stream.close(code, reason, limits::CLOSE).await;
            }
        }
        end
    }
}

/// Ends a local connection so that its peer receives everything: closing a socket with unread input
/// would send RST and destroy unsent bytes.
async fn close_local<L: AsyncRead + AsyncWrite + Unpin>(local: &mut L) {
    if local.shutdown().await.is_err() {
        return;
    }
    // Not in the future, where it would take room as long as the tunnel lives.
    let mut discarded = vec![0; 1024];
    while matches!(local.read(&mut discarded).await, Ok(count) if count > 0) {}
}

#[cfg(test)]
mod tests;
