//! The order of output: acknowledgements, then a replay, then frames without data, then the
//! connections' bytes in the scheduler's order.

use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::{CarrierId, Over, Session, micros};
use crate::limits;
use crate::proto::chunk::control_message;
use crate::proto::connection::Fin;
use crate::proto::frame::Frame;
use crate::proto::inner::Inner;

/// Bytes of inner frames without data after which a message is full.
const CONTROL_MESSAGE: usize = 1 << 10;

impl Session {
    /// The next message for this carrier; `None` when there is nothing to send now. After the last
    /// message of a session that is [`over`](Self::over), the carrier may be closed.
    pub fn transmit(&mut self, carrier: CarrierId, now: Instant) -> Option<Bytes> {
        if !self.is_on(carrier) {
            return None;
        }
        if self.over.is_some() {
            return self.last_frame.take().map(|frame| frame.encode());
        }
        let message = self.next_message(now)?;
        if let Some(on) = &mut self.carrier {
            on.last_sent = now;
        }
        self.replay_memory.set(self.replay.held());
        Some(message)
    }

    pub(super) fn next_message(&mut self, now: Instant) -> Option<Bytes> {
        let received = self.received;
        let on = self.carrier.as_mut()?;
        if on.ack_at.is_some_and(|at| at <= now) {
            on.ack_at = None;
            on.acked = received;
            let delay = now.saturating_duration_since(on.ack_since);
            let arrived = Some(micros(self.epoch, on.ack_since));
            return Some(
                Frame::Ack {
                    received,
                    delay,
                    arrived,
                }
                .encode(),
            );
        }
        if self.replay.has_more() {
            if self.replay.in_flight() >= on.window.size() {
                on.window.is_limiting();
            } else if on.window.paced_until(now).is_none() {
                let message = self.replay.again(now)?;
                on.window.sent(message.len() as u64, now);
                return Some(message);
            }
        } else {
            if let Some(message) = self.next_of_stream(now) {
                return Some(message);
            }
            if self.ending && self.connections.is_empty() && self.replay.in_flight() == 0 {
                self.finish_as(Over::Ended);
                return Some(Frame::End.encode());
            }
        }
        let on = self.carrier.as_mut()?;
        let is_due = now >= on.last_sent + limits::PING;
        if is_due {
            self.replay.shrink();
        }
        let ping = std::mem::take(&mut on.ping) || is_due;
        ping.then(|| Frame::Ping.encode())
    }

    /// The next message with bytes of the session's stream, if the window allows.
    pub(super) fn next_of_stream(&mut self, now: Instant) -> Option<Bytes> {
        let in_flight = self.replay.in_flight();
        let window = self.carrier.as_ref()?.window.size();
        if in_flight >= window + limits::WINDOW_SMALL {
            self.limited();
            return None;
        }
        if let Some(frames) = self.control_frames() {
            return Some(self.control(&frames, now));
        }
        let is_full = in_flight >= window;
        let is_paced = self.paced_until(now).is_some();
        let Some(id) = self
            .scheduler
            .next(&mut self.connections, is_full || is_paced)
        else {
            if is_full && !self.scheduler.is_empty() {
                self.limited();
            }
            return None;
        };
        let connection = self.connections.get_mut(&id)?;
        let Some(chunk) = connection.take_backlog() else {
            connection.fin = Fin::Sent;
            let mut frames = BytesMut::new();
            Inner::Fin.encode(id, &mut frames);
            self.settle(id);
            return Some(self.control(&frames, now));
        };
        let length = chunk.len();
        self.scheduler.sent(&mut connection.turn, length, now);
        self.touch(id);
        let wants_ack = self.is_sending(length as u64, now);
        let memory = chunk.held();
        let message = chunk.into_message(id, self.replay.end(), wants_ack);
        self.replay.push(message.clone(), memory, now);
        Some(message)
    }

    /// A message of frames without data.
    fn control(&mut self, frames: &BytesMut, now: Instant) -> Bytes {
        let wants_ack = self.is_sending(frames.len() as u64, now);
        let message = control_message(frames, self.replay.end(), wants_ack);
        let memory = message.len() as u64;
        self.replay.push(message.clone(), memory, now);
        message
    }

    /// Until when bulk has to wait although the window is not full.
    pub(super) fn paced_until(&self, now: Instant) -> Option<Instant> {
        self.carrier.as_ref()?.window.paced_until(now)
    }

    pub(super) fn limited(&mut self) {
        if let Some(on) = &mut self.carrier {
            on.window.is_limiting();
        }
    }

    /// Frames without data, as many as fit into one message.
    pub(super) fn control_frames(&mut self) -> Option<BytesMut> {
        let mut frames = BytesMut::new();
        while let Some(id) = self.owing.front().copied() {
            if let Some(connection) = self.connections.get_mut(&id) {
                while let Some(frame) = connection.owed.pop_front() {
                    frame.encode(id, &mut frames);
                }
                if std::mem::take(&mut connection.owes_credit) && !connection.broken {
                    Inner::Credit(connection.grant()).encode(id, &mut frames);
                }
                connection.is_listed = false;
                let is_over = connection.is_over();
                self.owing.pop_front();
                if is_over {
                    self.forget(id);
                }
            } else {
                self.owing.pop_front();
            }
            if frames.len() >= CONTROL_MESSAGE {
                break;
            }
        }
        (!frames.is_empty()).then_some(frames)
    }

    /// So many bytes are sent now. Whether their message should be acknowledged at once: after each
    /// part of the window, so that the window adapts, and always when it is full. Other messages do
    /// not request it, since each acknowledgement wakes three programs and only END would wait for
    /// it.
    fn is_sending(&mut self, length: u64, now: Instant) -> bool {
        let in_flight = self.replay.in_flight();
        let Some(on) = &mut self.carrier else {
            return false;
        };
        on.window.sent(length, now);
        on.unasked += length;
        let wants = on.unasked >= on.window.ack_every() || in_flight + length >= on.window.size();
        if wants {
            on.unasked = 0;
        }
        wants
    }
}
