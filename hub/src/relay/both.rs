//! Both directions of a stream whose legs are open.

use std::task::{Context, Poll, ready};

use common::identity::Leg;
use common::tunnel::Delivery;
use common::websocket::{Data, Incoming, WebSocket, WebSocketError};
use tokio::io::{AsyncRead, AsyncWrite};

use super::RelayEnd;
use crate::events::Meter;
use crate::quotas;

/// Bytes that a direction moves before others have their turn. The budget of a task (tokio's coop) is
/// one of operations, and lets some megabytes through: among many busy streams, who opens one would
/// wait for these at each of its steps.
pub(super) const TURN: usize = 256 << 10;

/// One direction of a relay.
pub(super) struct Direction<'a> {
    from: Leg,
    meter: &'a Meter,
    held: Option<Data>,
    unflushed: bool,
    bytes: u64,
    /// The leg it writes to takes nothing any more. It may have sent something before,
    /// which the other direction still delivers.
    broken: Option<WebSocketError>,
    /// Where its bytes are limited.
    quota: Option<Box<quotas::Meter>>,
}

impl<'a> Direction<'a> {
    fn new(from: Leg, held: Option<Data>, meter: &'a Meter, quota: Option<quotas::Meter>) -> Self {
        Self {
            from,
            meter,
            held,
            unflushed: false,
            bytes: 0,
            broken: None,
            quota: quota.map(Box::new),
        }
    }

    /// Moves messages until a socket makes it wait, its turn is over, or the leg it reads from ends.
    fn poll<A, B>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut WebSocket<A>,
        to: &mut WebSocket<B>,
    ) -> Poll<RelayEnd>
    where
        A: AsyncRead + AsyncWrite + Unpin,
        B: AsyncRead + AsyncWrite + Unpin,
    {
        let mut moved = 0;
        loop {
            if moved >= TURN {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if self.broken.is_some() {
                // It has nowhere to go, but who may not send may not read either.
                self.held = None;
            }
            let is_turn = match &mut self.quota {
                Some(quota) if self.broken.is_none() => match quota.poll_ready(cx) {
                    Poll::Ready(Ok(())) => true,
                    Poll::Ready(Err(over)) => return Poll::Ready(RelayEnd::Over(over)),
                    Poll::Pending => false,
                },
                _ => true,
            };
            if !is_turn && self.unflushed {
                // What it has had in its turn goes out.
                match to.poll_flush(cx) {
                    Poll::Ready(Ok(())) => self.unflushed = false,
                    Poll::Ready(Err(error)) => {
                        self.broken = Some(error);
                        continue;
                    }
                    Poll::Pending => {}
                }
            }
            let is_ready = self.broken.is_some()
                || is_turn
                    && match to.poll_ready(cx) {
                        Poll::Ready(Ok(())) => true,
                        Poll::Ready(Err(error)) => {
                            self.broken = Some(error);
                            continue;
                        }
                        Poll::Pending => false,
                    };
            let incoming = if !is_ready {
                if self.held.is_some() {
                    return Poll::Pending;
                }
                // An end is seen all the same, if no more than a little comes before it.
                from.poll_incoming_little(cx)
            } else if let Some(data) = self.held.take() {
                self.send(data, to);
                continue;
            } else {
                from.poll_incoming(cx)
            };
            match incoming {
                Poll::Ready(Ok(Incoming::Data(data))) => {
                    moved += data.len();
                    self.held = Some(data);
                }
                Poll::Ready(Ok(Incoming::Closed(close_frame))) => {
                    return Poll::Ready(if close_frame.is_normal() {
                        RelayEnd::Closed(self.from)
                    } else {
                        RelayEnd::Aborted(self.from, close_frame.code)
                    });
                }
                Poll::Ready(Err(error)) => return Poll::Ready(RelayEnd::Lost(self.from, error)),
                Poll::Pending => {
                    if self.unflushed && self.broken.is_none() {
                        match ready!(to.poll_flush(cx)) {
                            Ok(()) => self.unflushed = false,
                            Err(error) => {
                                self.broken = Some(error);
                                continue;
                            }
                        }
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Sends a message to a leg that is ready for it.
    fn send<B: AsyncRead + AsyncWrite + Unpin>(&mut self, data: Data, to: &mut WebSocket<B>) {
        let size = data.len();
        let length = size as u64;
        match to.start_send(data) {
            Ok(()) => {
                self.bytes += length;
                self.meter.add(self.from, length);
                if let Some(quota) = &mut self.quota {
                    quota.spend(size);
                }
                self.unflushed = true;
            }
            Err(error) => self.broken = Some(error),
        }
    }
}

/// Both directions, in one task.
pub(super) struct Relay<'a, A, B> {
    pub(super) first: WebSocket<A>,
    pub(super) second: WebSocket<B>,
    /// From the first leg to the second.
    pub(super) out: Direction<'a>,
    /// From the second leg to the first.
    pub(super) back: Direction<'a>,
    /// Since one leg takes nothing: whether the rest still moves.
    delivery: Option<Delivery>,
    /// Which direction comes first now. A task has a budget of operations before it must let
    /// others run (tokio's coop), and a flood in one direction can use it up each time.
    is_back_first: bool,
}

impl<'a, A, B> Relay<'a, A, B>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    /// `held` is a message of `first` that was read already.
    pub(super) fn new(
        first_leg: Leg,
        first: WebSocket<A>,
        held: Option<Data>,
        second: WebSocket<B>,
        meter: &'a Meter,
        quotas: Option<[quotas::Meter; 2]>,
    ) -> Self {
        let [out, back] = quotas.map_or([None, None], |quotas| quotas.map(Some));
        Self {
            first,
            second,
            out: Direction::new(first_leg, held, meter, out),
            back: Direction::new(first_leg.other(), None, meter, back),
            delivery: None,
            is_back_first: false,
        }
    }

    /// Moves messages both ways, until a leg ends.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<RelayEnd> {
        let is_back_first = self.is_back_first;
        self.is_back_first = !is_back_first;
        for is_back in [is_back_first, !is_back_first] {
            let (ended, lost_some) = if is_back {
                let ended = self.back.poll(cx, &mut self.second, &mut self.first);
                (ended, self.back.broken.is_some())
            } else {
                let ended = self.out.poll(cx, &mut self.first, &mut self.second);
                (ended, self.out.broken.is_some())
            };
            if let Poll::Ready(end) = ended {
                // What it sent before its end was not taken: that is how the relay ended.
                return Poll::Ready(if lost_some { self.lost() } else { end });
            }
        }
        if self.out.broken.is_some() || self.back.broken.is_some() {
            // One leg takes nothing; what it had sent is being delivered to the other.
            let moved = self.out.bytes + self.back.bytes;
            let queued = self.first.queued() + self.second.queued();
            let delivery = self.delivery.get_or_insert_default();
            ready!(delivery.poll_stuck(cx, || (moved, queued)));
            return Poll::Ready(self.lost());
        }
        Poll::Pending
    }

    /// The leg that could not be written to is the one that was lost.
    fn lost(&mut self) -> RelayEnd {
        match (self.out.broken.take(), self.back.broken.take()) {
            (Some(error), _) => RelayEnd::Lost(self.out.from.other(), error),
            (None, Some(error)) => RelayEnd::Lost(self.back.from.other(), error),
            (None, None) => RelayEnd::Cancelled,
        }
    }
}
