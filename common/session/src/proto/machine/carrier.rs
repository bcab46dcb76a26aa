//! The carrier of a session: taken, given up, silent.

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
    pub(super) heard: Instant,
    pub(super) said: Instant,
    /// When an acknowledgement must go at latest.
    pub(super) ack_at: Option<Instant>,
    /// When the newest byte came that it will acknowledge.
    pub(super) ack_since: Instant,
    /// Last place that was acknowledged on this carrier.
    pub(super) acked: u64,
    /// Bytes sent since an acknowledgement was asked for.
    pub(super) unasked: u64,
    /// Replay or not, the first bytes of a carrier are to be acknowledged at once.
    pub(super) ping: bool,
}

impl Session {
    /// Gives up the carrier, if there is one: from now on nothing that it may still bring
    /// is taken, so that the offset that is reported next stays true. Returns that offset.
    pub fn freeze(&mut self, now: Instant) -> u64 {
        if self.carrier.take().is_some() {
            self.detached_at = Some(now);
            self.replay.shrink();
            self.replay_memory.set(self.replay.held());
            self.tidy_all();
        }
        self.received
    }

    /// Whether a peer can have received just so much.
    ///
    /// # Errors
    /// [`Violation`] says why not.
    pub fn check_offset(&self, peer_received: u64) -> Result<(), Violation> {
        if peer_received < self.replay.acknowledged() {
            return Err(Violation("it has lost what it had"));
        }
        if peer_received > self.replay.end() {
            return Err(Violation("it has more than was sent"));
        }
        Ok(())
    }

    /// Goes on over a new carrier, with a peer that has received all before
    /// `peer_received`. What it has not is sent again.
    ///
    /// # Errors
    /// [`Violation`] when the peer cannot have received that; nothing has changed then.
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
            heard: now,
            said: now,
            ack_at: None,
            ack_since: now,
            acked: self.received,
            unasked: 0,
            ping: self.replay.has_more(),
        });
        self.detached_at = None;
        // Who had no room without a carrier has some now.
        self.touched.extend(self.connections.keys());
        Ok(id)
    }

    /// The carrier is lost; without effect when it is not the present one.
    pub fn carrier_lost(&mut self, carrier: CarrierId, now: Instant) {
        if self.is_on(carrier) {
            self.freeze(now);
        }
    }

    /// Whether this is the present carrier.
    pub fn is_on(&self, carrier: CarrierId) -> bool {
        self.carrier
            .as_ref()
            .is_some_and(|known| known.id == carrier)
    }

    /// Since when there is no carrier.
    pub fn detached_since(&self) -> Option<Instant> {
        self.detached_at
    }

    /// When [`transmit`](Self::transmit) or [`is_dead`](Self::is_dead) must be asked again
    /// at latest; `None` without a carrier.
    pub fn deadline(&self) -> Option<Instant> {
        let on = self.carrier.as_ref()?;
        let ping = on.said + limits::PING;
        let silence = on.heard + limits::SILENCE;
        let earliest = ping.min(silence);
        Some(on.ack_at.map_or(earliest, |at| at.min(earliest)))
    }

    /// When a peer that stays silent is dead; `None` without a carrier.
    pub fn dead_at(&self) -> Option<Instant> {
        Some(self.carrier.as_ref()?.heard + limits::SILENCE)
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
