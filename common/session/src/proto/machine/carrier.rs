//! The carrier of a session: attached, detached, silent.

use std::time::{Duration, Instant};

use super::{Session, Violation};
use crate::limits;
use crate::proto::frame::Decoder;
use crate::proto::window::Window;

/// Names one carrier of a session, to tell it from the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CarrierId(pub(super) u64);

/// The carrier in use.
#[derive(Debug)]
pub(super) struct Carrier {
    pub(super) id: CarrierId,
    pub(super) decoder: Decoder,
    pub(super) window: Window,
    pub(super) last_received: Instant,
    pub(super) last_sent: Instant,
    /// When an acknowledgement must be sent at the latest.
    pub(super) ack_at: Option<Instant>,
    /// When the newest byte arrived that it will acknowledge.
    pub(super) ack_since: Instant,
    /// The last offset that was acknowledged on this carrier.
    pub(super) acked: u64,
    /// Bytes sent since an acknowledgement was requested.
    pub(super) unasked: u64,
    /// Send a PING after a replay, whose messages may not request an acknowledgement.
    pub(super) ping: bool,
}

impl Session {
    /// Detaches the carrier, if there is one: nothing that arrives on it any more is accepted, so
    /// that the returned offset, which is reported to the peer, stays valid.
    pub fn freeze(&mut self, now: Instant) -> u64 {
        if self.carrier.take().is_some() {
            self.detached_at = Some(now);
            self.replay.shrink();
            self.replay_memory.set(self.replay.held());
            self.tidy_all();
        }
        self.received
    }

    /// Checks that the peer can have received all bytes before this offset, and no more.
    ///
    /// # Errors
    /// [`Violation`] states why it cannot.
    pub fn check_offset(&self, peer_received: u64) -> Result<(), Violation> {
        if peer_received < self.replay.acknowledged() {
            return Err(Violation("it has lost what it had"));
        }
        if peer_received > self.replay.end() {
            return Err(Violation("it has more than was sent"));
        }
        Ok(())
    }

    /// Continues on a new carrier, with a peer that has received all bytes before `peer_received`.
    /// All later bytes are sent again.
    ///
    /// # Errors
    /// [`Violation`] when the peer cannot have received that; the session is unchanged then.
    pub fn attach(&mut self, peer_received: u64, now: Instant) -> Result<CarrierId, Violation> {
        self.check_offset(peer_received)?;
        self.replay.acknowledge(peer_received, now);
        self.freeze(now);
        self.replay.rewind();
        self.next_carrier += 1;
        let id = CarrierId(self.next_carrier);
        self.carrier = Some(Carrier {
            id,
            decoder: Decoder::default(),
            window: Window::new(self.replay.acknowledged()),
            last_received: now,
            last_sent: now,
            ack_at: None,
            ack_since: now,
            acked: self.received,
            unasked: 0,
            ping: self.replay.has_more(),
        });
        self.detached_at = None;
        // Connections had no room without a carrier, and may have some now.
        self.touched.extend(self.connections.keys());
        Ok(id)
    }

    /// The carrier is lost; no effect when it is not the current one.
    pub fn carrier_lost(&mut self, carrier: CarrierId, now: Instant) {
        if self.is_on(carrier) {
            self.freeze(now);
        }
    }

    /// Whether this is the current carrier.
    pub fn is_on(&self, carrier: CarrierId) -> bool {
        self.carrier
            .as_ref()
            .is_some_and(|known| known.id == carrier)
    }

    /// Since when there is no carrier.
    pub fn detached_since(&self) -> Option<Instant> {
        self.detached_at
    }

    /// When [`transmit`](Self::transmit) and [`is_dead`](Self::is_dead) must be called again at the
    /// latest; `None` without a carrier.
    pub fn deadline(&self) -> Option<Instant> {
        let on = self.carrier.as_ref()?;
        let ping = on.last_sent + limits::PING;
        let silence = on.last_received + limits::SILENCE;
        let has_more = self.replay.has_more() || !self.scheduler.is_empty();
        // A full window waits for an acknowledgement, not for the time.
        let is_full = self.replay.in_flight() >= on.window.size();
        let paced = on.window.pace_end().filter(|_| has_more && !is_full);
        let others = [paced, on.ack_at].into_iter().flatten();
        Some(others.fold(ping.min(silence), Instant::min))
    }

    /// When the carrier is considered dead if the peer stays silent; `None` without a carrier.
    pub fn dead_at(&self) -> Option<Instant> {
        Some(self.carrier.as_ref()?.last_received + limits::SILENCE)
    }

    /// Whether the peer was silent for too long on this carrier.
    pub fn is_dead(&self, now: Instant) -> bool {
        self.dead_at().is_some_and(|at| now >= at)
    }

    /// The shortest round trip seen on this carrier.
    pub fn round_trip(&self) -> Option<Duration> {
        self.carrier.as_ref()?.window.round_trip()
    }
}
