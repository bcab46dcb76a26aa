//! Drives a session over one carrier: passes received messages to it and sends its output.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use device_stream_websocket::keepalive::SecondLook;
use device_stream_websocket::{CloseFrame, Data, Incoming, WebSocket, WebSocketError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::coop;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::drive::clock;
use crate::drive::shared::SharedSession;
use crate::limits;
use crate::proto::frame::{Code, Frame};
use crate::proto::machine::{CarrierId, CarrierState};

/// Messages that are read before output is sent: acknowledgements must not wait longer.
const BATCH: usize = 32;

/// Received messages whose memory is reused: as many as arrive before the connections' tasks have
/// written them.
const REUSED: usize = 16;

/// How a carrier ended.
#[derive(Debug, thiserror::Error)]
pub enum CarrierEnd {
    /// The session is over.
    #[error("the session is over")]
    Over,
    /// The connection was lost.
    #[error(transparent)]
    Lost(WebSocketError),
    /// The streaming endpoint closed it.
    #[error("the stream was closed with code {}{}", .0.code, reason(.0))]
    Closed(CloseFrame),
    /// The peer was silent.
    #[error("the other end was silent for {} s", limits::SILENCE.as_secs())]
    Silent,
    /// The peer detached it.
    #[error("the other end gave it up: {0}")]
    Detached(Code),
    /// The session continues over another one.
    #[error("the session goes on over another stream")]
    Superseded,
}

fn reason(close_frame: &CloseFrame) -> String {
    if close_frame.reason.is_empty() {
        String::new()
    } else {
        format!(" ({})", close_frame.reason)
    }
}

/// Runs a session over its current carrier until one of them ends, and closes the stream.
/// `already_read` are the bytes that followed the handshake.
///
/// Dropping the future cuts the stream; then call [`SharedSession::freeze`], since the session
/// still has the carrier.
pub async fn drive_carrier<S: AsyncRead + AsyncWrite + Unpin>(
    live: &SharedSession,
    carrier: CarrierId,
    mut stream: WebSocket<S>,
    already_read: Bytes,
) -> CarrierEnd {
    stream.reuse_buffers(REUSED);
    if !already_read.is_empty() {
        let now = clock::now();
        // After a violation, the reset is sent below.
        let _ = live.with(|state| state.session.receive(carrier, already_read, now));
    }
    let mut driver = Driver {
        live,
        carrier,
        stream,
        unflushed: false,
        timer: Box::pin(sleep_until(Instant::now())),
        second_look: SecondLook::default(),
        is_sending_first: false,
    };
    let end = poll_fn(|cx| driver.poll(cx)).await;
    live.with(|state| state.session.carrier_lost(carrier, clock::now()));
    let mut stream = driver.stream;
    match &end {
        CarrierEnd::Over | CarrierEnd::Detached(_) => {
            stream.close(CloseFrame::NORMAL, "", limits::CLOSE).await;
        }
        CarrierEnd::Superseded => {
            let code = Code::Superseded;
            let detach = Data::binary(Frame::Detach { code }.encode());
            let _ = tokio::time::timeout(limits::CLOSE, async {
                poll_fn(|cx| stream.poll_ready(cx)).await?;
                stream.start_send(detach)?;
                poll_fn(|cx| stream.poll_flush(cx)).await
            })
            .await;
            stream.close(CloseFrame::NORMAL, "", limits::CLOSE).await;
        }
        // The peer is gone: no closing handshake.
        CarrierEnd::Lost(_) | CarrierEnd::Closed(_) | CarrierEnd::Silent => {}
    }
    end
}

struct Driver<'a, S> {
    live: &'a SharedSession,
    carrier: CarrierId,
    stream: WebSocket<S>,
    unflushed: bool,
    timer: Pin<Box<Sleep>>,
    second_look: SecondLook,
    /// The next poll sends first: reading has used up the task's budget (tokio's coop), and with a
    /// flood it would do so each time.
    is_sending_first: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<'_, S> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<CarrierEnd> {
        if std::mem::take(&mut self.is_sending_first)
            && let Err(end) = self.poll_send(cx)
        {
            return Poll::Ready(end);
        }
        loop {
            let (end, read_all) = match self.poll_read(cx) {
                Ok(read_all) => (None, read_all),
                Err(end) => (Some(end), true),
            };
            self.is_sending_first = !coop::has_budget_remaining();
            let sent = self.poll_send(cx);
            if let Some(end) = end {
                // The remaining output, an RST perhaps, was sent if possible.
                return Poll::Ready(end);
            }
            let sent_all = match sent {
                Ok(sent_all) => sent_all,
                Err(end) => return Poll::Ready(end),
            };
            if read_all && sent_all {
                return Poll::Pending;
            }
        }
    }

    /// Reads a batch; returns whether nothing is left to read.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Result<bool, CarrierEnd> {
        for _ in 0..BATCH {
            match self.stream.poll_incoming(cx) {
                Poll::Pending => return Ok(true),
                Poll::Ready(Err(error)) => return Err(CarrierEnd::Lost(error)),
                Poll::Ready(Ok(Incoming::Closed(close_frame))) => {
                    return Err(CarrierEnd::Closed(close_frame));
                }
                Poll::Ready(Ok(Incoming::Data(data))) => {
                    let received = self.live.with(|state| {
                        let bytes = data.into_bytes();
                        let now = clock::now();
                        state.session.receive(self.carrier, bytes, now)
                    });
                    match received {
                        Ok(CarrierState::Active) => {}
                        Ok(CarrierState::Detached(code)) => return Err(CarrierEnd::Detached(code)),
                        Ok(CarrierState::Over) => return Err(CarrierEnd::Over),
                        Err(violation) => {
                            tracing::warn!(session = %self.live.id(), "{violation}");
                            // The reset is sent by `poll_send`.
                            return Ok(true);
                        }
                    }
                }
            }
        }
        Ok(false)
    }

    /// Sends all current output; returns whether nothing is left to do before a wake-up.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<bool, CarrierEnd> {
        let mut is_blocked = true;
        while let Poll::Ready(ready) = self.stream.poll_ready(cx) {
            ready.map_err(CarrierEnd::Lost)?;
            let message = self.live.with(|state| {
                // A carrier that has taken over keeps its own waker.
                if state.session.is_on(self.carrier) {
                    state.register_carrier(cx);
                }
                state.session.transmit(self.carrier, clock::now())
            });
            let Some(message) = message else {
                is_blocked = false;
                break;
            };
            self.stream
                .start_send(Data::binary(message))
                .map_err(CarrierEnd::Lost)?;
            self.unflushed = true;
        }
        if self.unflushed {
            match self.stream.poll_flush(cx) {
                Poll::Ready(flushed) => {
                    flushed.map_err(CarrierEnd::Lost)?;
                    self.unflushed = false;
                    if is_blocked {
                        // There is room again since the loop above, and nothing would wake the
                        // task for the remaining output.
                        return Ok(false);
                    }
                }
                Poll::Pending => {}
            }
        }
        let (is_over, is_present, dead_at, deadline, tidy_at) = self.live.with(|state| {
            let session = &mut state.session;
            session.tidy(clock::now());
            (
                session.over().is_some(),
                session.is_on(self.carrier),
                session.dead_at(),
                // Due output cannot be sent now, or not any more: wait only for silence.
                if is_blocked || session.over().is_some() {
                    session.dead_at()
                } else {
                    session.deadline()
                },
                session.tidy_at(),
            )
        });
        if is_over && !self.unflushed {
            return Err(CarrierEnd::Over);
        }
        if !is_present {
            return Err(CarrierEnd::Superseded);
        }
        let (Some(deadline), Some(dead_at)) = (deadline, dead_at) else {
            return Ok(true);
        };
        let now = clock::now();
        if self.second_look.may_judge(dead_at, now) {
            return Err(CarrierEnd::Silent);
        }
        let deadline = if now < dead_at {
            deadline
        } else {
            self.second_look.until(dead_at)
        };
        let deadline = Instant::from_std(tidy_at.map_or(deadline, |at| at.min(deadline)));
        if self.timer.deadline() != deadline {
            self.timer.as_mut().reset(deadline);
        }
        // If the deadline has passed already, poll again at once.
        Ok(self.timer.as_mut().poll(cx).is_pending())
    }
}
