//! One end of a session, without I/O and without a clock: its inputs are messages, calls of the
//! local side and the time; its outputs are messages and notifications. It outlives any number of
//! carriers, one at a time. Between them no byte is lost, repeated or reordered.

mod carrier;
mod local;
mod output;
mod peer;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::limits;
use crate::proto::connection::{Connection, Fin};
use crate::proto::frame::{Code, Frame};
use crate::proto::inner::{ConnectionId, InnerDecoder};
use crate::proto::memory::{Account, Held, Memory};
use crate::proto::replay::Replay;
use crate::proto::scheduler::Scheduler;
use crate::proto::window::Sample;
use carrier::Carrier;

pub use carrier::CarrierId;

/// A time in microseconds since the epoch of one end.
fn micros(epoch: Instant, at: Instant) -> u64 {
    u64::try_from(at.saturating_duration_since(epoch).as_micros()).unwrap_or(u64::MAX)
}

/// Which end of the session this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Opens connections, and ends the session.
    Service,
    /// Opens them at its target when asked.
    Device,
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Over {
    /// In order: no connection was open.
    Ended,
    /// This end reset it.
    Broken(Code),
    /// The peer reset it.
    PeerBroke(Code, String),
}

/// The peer violated the protocol; the session is over, and a reset is sent to the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the peer broke the session protocol: {0}")]
pub struct Violation(pub &'static str);

/// The state of a carrier after it received frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CarrierState {
    /// It is in use.
    Active,
    /// The peer has ended this carrier, but not the session.
    Detached(Code),
    /// The session is over: see [`Session::over`].
    Over,
}

/// The buffers of one end, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    /// Bytes of the stream that were sent and not acknowledged.
    pub unacknowledged: u64,
    /// Bytes that wait in connections, in both directions.
    pub waiting: u64,
    /// The rest of the shared credit.
    pub shared: u64,
    /// The carrier's window; 0 without a carrier.
    pub window: u64,
}

/// One end of a session.
#[derive(Debug)]
pub struct Session {
    role: Role,
    /// The zero of the times that the peer gets.
    epoch: Instant,
    carrier: Option<Carrier>,
    next_carrier: u64,
    detached_at: Option<Instant>,

    replay: Replay,
    received: u64,
    inner: InnerDecoder,

    connections: HashMap<ConnectionId, Connection>,
    /// The last connection that was ever opened.
    last: u32,
    scheduler: Scheduler,
    /// Connections with frames to send that are not data.
    owing: VecDeque<ConnectionId>,

    /// Pieces for local readers that may still keep their receive buffers.
    loose: usize,
    /// When they are copied out of these buffers.
    tidy_at: Option<Instant>,
    /// A local socket was not read because memory is short.
    is_starved: bool,
    /// When such sockets are tried again.
    retry_at: Option<Instant>,
    account: Arc<Account>,
    /// Memory of the replay.
    replay_memory: Held,
    touched: Vec<ConnectionId>,
    incoming: VecDeque<ConnectionId>,
    welcomed: bool,
    ending: bool,
    over: Option<Over>,
    last_frame: Option<Frame>,
}

impl Session {
    /// A session without a carrier and without connections.
    pub fn new(role: Role, now: Instant) -> Self {
        Self::with_memory(role, Memory::unlimited(), now)
    }

    /// The same, with memory that it shares with other sessions.
    pub fn with_memory(role: Role, memory: Arc<Memory>, now: Instant) -> Self {
        let account = Account::new(memory);
        Self {
            is_starved: false,
            retry_at: None,
            replay_memory: Held::new(&account),
            account,
            role,
            epoch: now,
            carrier: None,
            next_carrier: 0,
            detached_at: Some(now),
            replay: Replay::default(),
            received: 0,
            inner: InnerDecoder::default(),
            connections: HashMap::new(),
            last: 0,
            scheduler: Scheduler::default(),
            owing: VecDeque::new(),
            loose: 0,
            tidy_at: None,
            touched: Vec::new(),
            incoming: VecDeque::new(),
            welcomed: false,
            ending: false,
            over: None,
            last_frame: None,
        }
    }

    /// Processes bytes that arrived on a carrier, in pieces of any size. Bytes of a carrier that is
    /// not the current one are ignored.
    ///
    /// # Errors
    /// [`Violation`]: the session is over, and a reset is sent to the peer.
    pub fn receive(
        &mut self,
        carrier: CarrierId,
        mut piece: Bytes,
        now: Instant,
    ) -> Result<CarrierState, Violation> {
        loop {
            let Some(on) = self.carrier.as_mut().filter(|on| on.id == carrier) else {
                return Ok(CarrierState::Active);
            };
            if self.over.is_some() {
                return Ok(CarrierState::Over);
            }
            on.last_received = now;
            let frame = match on.decoder.next(&mut piece) {
                Ok(Some(frame)) => frame,
                Ok(None) => return Ok(CarrierState::Active),
                Err(_) => return Err(self.violated("malformed frame")),
            };
            match self.frame(frame, now) {
                Ok(CarrierState::Active) => {}
                Ok(state) => return Ok(state),
                Err(Violation(what)) => return Err(self.violated(what)),
            }
        }
    }

    fn violated(&mut self, what: &'static str) -> Violation {
        self.reset(Code::Protocol, what);
        Violation(what)
    }

    fn frame(&mut self, frame: Frame, now: Instant) -> Result<CarrierState, Violation> {
        match frame {
            Frame::Data {
                offset,
                bytes,
                wants_ack,
            } => self.data(offset, bytes, wants_ack, now)?,
            Frame::Ack {
                received,
                delay,
                arrived,
            } => self.acknowledged(received, delay, arrived, now)?,
            Frame::Ping => self.owe_ack(now, now),
            Frame::End => {
                if self.role == Role::Service {
                    return Err(Violation("the device may not end a session"));
                }
                self.finish_as(Over::Ended);
                return Ok(CarrierState::Over);
            }
            Frame::Reset { code, text } => {
                self.finish_as(Over::PeerBroke(code, text));
                return Ok(CarrierState::Over);
            }
            Frame::Detach { code } => return Ok(CarrierState::Detached(code)),
            // The answer to HELLO; other frames may come before it.
            Frame::Welcome { .. } if self.role == Role::Service && !self.welcomed => {
                self.welcomed = true;
            }
            Frame::Refused { code, text } if self.role == Role::Service && !self.welcomed => {
                self.finish_as(Over::PeerBroke(code, text));
                return Ok(CarrierState::Over);
            }
            Frame::Greeting(_)
            | Frame::Hello { .. }
            | Frame::Welcome { .. }
            | Frame::Resume { .. }
            | Frame::Resumed { .. }
            | Frame::Refused { .. } => return Err(Violation("a second handshake")),
        }
        Ok(CarrierState::Active)
    }

    fn data(
        &mut self,
        offset: u64,
        mut bytes: Bytes,
        wants_ack: bool,
        now: Instant,
    ) -> Result<(), Violation> {
        // Bytes that a replay repeats are skipped.
        let known = self
            .received
            .checked_sub(offset)
            .ok_or(Violation("a gap in the stream"))?;
        let known = usize::try_from(known)
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        let _ = bytes.split_to(known);
        self.received = self
            .received
            .checked_add(bytes.len() as u64)
            .ok_or(Violation("the stream is too long"))?;
        loop {
            match self.inner.next(&mut bytes) {
                Ok(Some((id, frame))) => self.inner_frame(id, frame)?,
                Ok(None) => break,
                Err(_) => return Err(Violation("malformed inner frame")),
            }
        }
        if self.loose > 0 {
            self.tidy_at.get_or_insert(now + local::KEPT);
            self.tidy_if_many();
        }
        let by = if wants_ack {
            now
        } else {
            now + limits::ACK_DELAY
        };
        self.owe_ack(by, now);
        Ok(())
    }

    /// Schedules an acknowledgement for `by`, or for now when much has been received.
    fn owe_ack(&mut self, by: Instant, now: Instant) {
        let received = self.received;
        let Some(on) = &mut self.carrier else { return };
        on.ack_since = now;
        let is_much = received.saturating_sub(on.acked) >= limits::ACK_BYTES;
        let by = if is_much { now } else { by };
        on.ack_at = Some(on.ack_at.map_or(by, |at| at.min(by)));
    }

    fn acknowledged(
        &mut self,
        received: u64,
        delay: Duration,
        arrived: Option<u64>,
        now: Instant,
    ) -> Result<(), Violation> {
        let (newly, trip) = self
            .replay
            .acknowledge(received, now)
            .ok_or(Violation("an acknowledgement of what was not sent"))?;
        self.replay_memory.set(self.replay.held());
        let next = self.replay.next();
        if let Some(on) = &mut self.carrier {
            let sample = trip.map(|trip| {
                let sent = micros(self.epoch, now).wrapping_sub(trip.as_micros() as u64);
                Sample {
                    round_trip: trip.saturating_sub(delay),
                    one_way: arrived.map(|arrived| arrived.wrapping_sub(sent).cast_signed()),
                }
            });
            on.window
                .acknowledged(newly, self.replay.acknowledged(), next, sample, now);
        }
        Ok(())
    }

    /// Its current buffers.
    pub fn kept(&self) -> Kept {
        Kept {
            unacknowledged: self.replay.end() - self.replay.acknowledged(),
            waiting: self.connections.values().map(Connection::held).sum(),
            shared: self.account.to_lend(),
            window: self.carrier.as_ref().map_or(0, |on| on.window.size()),
        }
    }

    // --- Ends ---

    /// Ends the session in order, as soon as no connection is left; none can be opened any more.
    /// Only the service may call this.
    pub fn end(&mut self) {
        self.ending = true;
    }

    /// Resets the session and all its connections, and sends a reset to the peer if there is a
    /// carrier.
    pub fn reset(&mut self, code: Code, text: &str) {
        if self.over.is_none() {
            self.last_frame = Some(Frame::Reset {
                code,
                text: text.to_owned(),
            });
            self.finish_as(Over::Broken(code));
        }
    }

    /// How the session ended, if it did.
    pub fn over(&self) -> Option<&Over> {
        self.over.as_ref()
    }

    fn finish_as(&mut self, over: Over) {
        self.over.get_or_insert(over);
        let in_order = self.over == Some(Over::Ended);
        // The local side will not use these any more: it has released them, or has not taken them
        // yet.
        for id in std::mem::take(&mut self.incoming) {
            self.connections.remove(&id);
        }
        self.connections
            .retain(|_, connection| !connection.released);
        self.touched.extend(self.connections.keys());
        for connection in self.connections.values_mut() {
            if in_order && connection.peer_fin {
                connection.take_backlog();
                connection.fin = Fin::Sent;
            } else {
                connection.discard();
                connection.broken = true;
            }
        }
        self.replay.clear();
        self.replay_memory.set(0);
    }
}

#[cfg(test)]
mod tests;
