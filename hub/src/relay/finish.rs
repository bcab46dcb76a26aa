//! How legs end: with what is left for them, and with a Close that says why.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use common::tunnel::{Backlog, Delivery};
use common::websocket::{CloseFrame, Incoming, ViolationError, WebSocket, WebSocketError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use crate::limits;

use super::{DISCONNECTED, RelayEnd};

/// Ends both legs after one of them has ended; returns how the relay ended after all.
pub(super) async fn conclude<A, B>(
    ended: WebSocket<A>,
    survivor: WebSocket<B>,
    end: RelayEnd,
) -> RelayEnd
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Backlog + Unpin,
{
    let RelayEnd::Closed(leg) = end else {
        let (_, ()) = tokio::join!(finish(survivor, false), answer(ended, &end));
        return end;
    };
    // The answer to its Close means that nothing was lost. A slow leg is not waited for longer
    // than its peer is patient.
    let mut finishing = std::pin::pin!(finish(survivor, true));
    let finished = match timeout(limits::LEG_CONFIRM, finishing.as_mut()).await {
        Ok(finished) => {
            let mut ended = ended;
            if finished.is_err() {
                ended.answer_close(CloseFrame::ERROR, DISCONNECTED);
            }
            answer(ended, &end).await;
            finished
        }
        Err(_) => tokio::join!(finishing, answer(ended, &end)).0,
    };
    match finished {
        Ok(()) => end,
        Err(error) => RelayEnd::Undelivered(leg.other(), error),
    }
}

/// Closes the surviving leg: what is in hand goes out before the Close, however slow the leg.
/// What it still sends is dropped: it may not read before it can send.
///
/// # Errors
/// When it was lost, or took nothing for [`limits::LEG_DELIVER`], before it had all.
pub(super) async fn finish<S>(leg: WebSocket<S>, is_normal: bool) -> Result<(), WebSocketError>
where
    S: AsyncRead + AsyncWrite + Backlog + Unpin,
{
    let mut finish = Finish {
        leg,
        is_normal,
        is_close_queued: false,
        is_closed: false,
        dropped: 0,
        delivery: Delivery::default(),
    };
    poll_fn(|cx| finish.poll(cx)).await
}

struct Finish<S> {
    leg: WebSocket<S>,
    /// Close 1000, not 1011.
    is_normal: bool,
    is_close_queued: bool,
    /// The peer's Close has come.
    is_closed: bool,
    dropped: u64,
    delivery: Delivery,
}

impl<S: AsyncRead + AsyncWrite + Backlog + Unpin> Finish<S> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WebSocketError>> {
        // Before it reads: a peer that floods us could otherwise use up each turn of this task
        // (tokio's coop), and would never be asked to stop.
        let mut is_written = self.poll_written(cx)?;
        let mut ended = None;
        while !self.is_closed && ended.is_none() {
            match self.leg.poll_incoming(cx) {
                Poll::Ready(Ok(Incoming::Data(data))) => self.dropped += data.len() as u64,
                Poll::Ready(Ok(Incoming::Closed(_))) => {
                    self.is_closed = true;
                    is_written = self.poll_written(cx)?;
                }
                Poll::Ready(Err(error)) => ended = Some(error),
                Poll::Pending => break,
            }
        }
        match ended {
            // Official clients end the connection without an answer; one that had not read all
            // would have reset it.
            Some(WebSocketError::Ended) if is_written => return Poll::Ready(Ok(())),
            Some(WebSocketError::Lost(error))
                if is_written && error.kind() == io::ErrorKind::UnexpectedEof =>
            {
                return Poll::Ready(Ok(()));
            }
            Some(error) => return Poll::Ready(Err(error)),
            None if is_written && self.is_closed => return Poll::Ready(Ok(())),
            None => {}
        }
        let (leg, dropped) = (&self.leg, self.dropped);
        ready!(
            self.delivery
                .poll_stuck(cx, || { (dropped, leg.queued() + leg.get_ref().backlog()) })
        );
        Poll::Ready(Err(WebSocketError::Dead))
    }

    /// Writes what is queued and the Close behind it; whether all of it is with the network.
    fn poll_written(&mut self, cx: &mut Context<'_>) -> Result<bool, WebSocketError> {
        loop {
            match self.leg.poll_flush(cx) {
                Poll::Ready(flushed) => flushed?,
                Poll::Pending => return Ok(false),
            }
            // A peer that has closed by itself gets its answer, and that is flushed now.
            if self.is_close_queued || self.is_closed {
                return Ok(true);
            }
            let (code, reason) = if self.is_normal {
                (CloseFrame::NORMAL, "")
            } else {
                (CloseFrame::ERROR, DISCONNECTED)
            };
            self.leg.start_close(code, reason)?;
            self.is_close_queued = true;
        }
    }
}

/// The last word to the leg that has ended: the answer to its Close, or what rule it broke.
async fn answer<S: AsyncRead + AsyncWrite + Unpin>(mut leg: WebSocket<S>, end: &RelayEnd) {
    match end {
        RelayEnd::Lost(_, error) => close_for_violation(leg, error).await,
        _ => {
            let _ = timeout(limits::LEG_CLOSE, poll_fn(|cx| leg.poll_flush(cx))).await;
        }
    }
}

/// Closes a leg that was lost: the Close names the rule that it broke.
///
/// Dropped, it closes the connection without the Close.
pub async fn close_for_violation<S: AsyncRead + AsyncWrite + Unpin>(
    leg: WebSocket<S>,
    error: &WebSocketError,
) {
    let (code, reason) = match error {
        WebSocketError::TooLarge { limit } => ViolationError::TooLarge { limit: *limit }.close(),
        WebSocketError::Protocol(violation) => violation.close(),
        WebSocketError::Lost(_) | WebSocketError::Ended | WebSocketError::Dead => return,
    };
    leg.close(code, reason, Duration::from_secs(1)).await;
}

/// Ends a leg from the hub's side.
///
/// Dropped, it closes the connection without the Close.
pub async fn abort<S: AsyncRead + AsyncWrite + Unpin>(leg: WebSocket<S>) {
    close(leg, CloseFrame::ERROR, DISCONNECTED).await;
}

/// The same with this code and reason.
pub(super) async fn close<S: AsyncRead + AsyncWrite + Unpin>(
    leg: WebSocket<S>,
    code: u16,
    reason: &'static str,
) {
    leg.close(code, reason, Duration::from_secs(1)).await;
}
