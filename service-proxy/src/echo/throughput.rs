//! A throughput test: bytes of a pattern, sent and checked at the same time.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use common::limits;
use common::websocket::{Data, Incoming, WebSocket};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::CancellationToken;

use super::pattern::Pattern;
use super::{EchoEvent, EchoFailure, EchoReport, REPLY};

/// Sends `total` bytes and checks that all come back.
pub(super) async fn run<S: AsyncRead + AsyncWrite + Unpin>(
    leg: &mut WebSocket<S>,
    total: u64,
    stop: &CancellationToken,
    observer: &mut impl FnMut(EchoEvent<'_>),
) -> EchoReport {
    let started = Instant::now();
    let mut test = Throughput {
        total,
        pattern: Pattern::new(0),
        sent: 0,
        received: 0,
        unflushed: false,
        stalled: Box::pin(sleep(REPLY)),
    };
    let failure = tokio::select! {
        result = poll_fn(|cx| test.poll(leg, cx, observer)) => result.err(),
        () = stop.cancelled() => Some(EchoFailure::Stopped),
    };
    EchoReport {
        bytes_sent: test.sent,
        bytes_received: test.received,
        duration: started.elapsed(),
        failure,
        ..EchoReport::default()
    }
}

struct Throughput {
    total: u64,
    pattern: Pattern,
    sent: u64,
    received: u64,
    /// Messages were given to the stream since its last flush.
    unflushed: bool,
    /// Fires when nothing moves.
    stalled: Pin<Box<Sleep>>,
}

impl Throughput {
    fn poll<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        leg: &mut WebSocket<S>,
        cx: &mut Context<'_>,
        observer: &mut impl FnMut(EchoEvent<'_>),
    ) -> Poll<Result<(), EchoFailure>> {
        loop {
            // One message each way in turn: neither direction starves the other.
            let received = self.poll_receive(leg, cx, observer)?;
            if self.received == self.total {
                return Poll::Ready(Ok(()));
            }
            let sent = self.poll_send(leg, cx)?;
            if received.is_pending() && sent.is_pending() {
                break;
            }
            self.stalled.as_mut().reset(Instant::now() + REPLY);
        }
        match self.stalled.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(EchoFailure::NoReply)),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_receive<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        leg: &mut WebSocket<S>,
        cx: &mut Context<'_>,
        observer: &mut impl FnMut(EchoEvent<'_>),
    ) -> Result<Poll<()>, EchoFailure> {
        let bytes = match leg.poll_incoming(cx) {
            Poll::Pending => return Ok(Poll::Pending),
            Poll::Ready(Ok(Incoming::Data(data))) => data.into_bytes(),
            Poll::Ready(Ok(Incoming::Closed(close_frame))) => {
                return Err(EchoFailure::Closed {
                    code: close_frame.code,
                });
            }
            Poll::Ready(Err(error)) => return Err(EchoFailure::Lost(error)),
        };
        if let Some(at) = self.pattern.first_wrong(self.received, &bytes) {
            return Err(EchoFailure::Mismatch { at });
        }
        let received = self.received + bytes.len() as u64;
        if received > self.sent {
            return Err(EchoFailure::Surplus);
        }
        self.received = received;
        observer(EchoEvent::Progress { received });
        Ok(Poll::Ready(()))
    }

    fn poll_send<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        leg: &mut WebSocket<S>,
        cx: &mut Context<'_>,
    ) -> Result<Poll<()>, EchoFailure> {
        let left = self.total - self.sent;
        if left > 0 {
            match leg.poll_ready(cx) {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(result) => result.map_err(EchoFailure::Lost)?,
            }
            let length = usize::try_from(left).map_or(limits::STREAM_MESSAGE, |left| {
                left.min(limits::STREAM_MESSAGE)
            });
            let bytes = self.pattern.bytes(self.sent, length);
            leg.start_send(Data::binary(bytes))
                .map_err(EchoFailure::Lost)?;
            self.sent += length as u64;
            self.unflushed = true;
            return Ok(Poll::Ready(()));
        }
        if self.unflushed {
            match leg.poll_flush(cx) {
                Poll::Pending => {}
                Poll::Ready(result) => {
                    result.map_err(EchoFailure::Lost)?;
                    self.unflushed = false;
                }
            }
        }
        Ok(Poll::Pending)
    }
}
