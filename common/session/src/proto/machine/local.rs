//! Connections from their local sides: open, send, take, release.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Over, Role, Session};
use crate::limits;
use crate::proto::chunk::Chunk;
use crate::proto::connection::{Connection, Fin, Inbound};
use crate::proto::inner::{ConnectionId, Inner, RefusedCode};

/// What waits for longer than this does not wait in the buffer that it came in.
pub(super) const KEPT: Duration = Duration::from_millis(500);
/// How long a local socket that is not read for want of memory waits before it asks again.
const STARVED: Duration = Duration::from_millis(100);
/// So many pieces may keep such buffers for that long: 16 MiB at most, and more than come in
/// one batch to a reader that is fast.
const LOOSE: usize = 128;
/// So many connections that are gone may stand in a list.
const FORGOTTEN: usize = 64;

impl Session {
    /// Opens a connection; data may follow at once. `None` when the session is over, or as
    /// many are open as may be.
    pub fn open(&mut self) -> Option<ConnectionId> {
        let is_full = self.connections.len() >= limits::CONNECTIONS;
        if self.role != Role::Service || is_full || self.ending || self.over.is_some() {
            return None;
        }
        self.last = self.last.checked_add(1)?;
        let id = ConnectionId(self.last);
        self.connections.insert(id, Connection::new(&self.account));
        self.owe(id, Inner::Open);
        Some(id)
    }

    /// The next connection that the peer wants opened: to be answered with
    /// [`opened`](Self::opened) or [`refuse`](Self::refuse).
    pub fn next_incoming(&mut self) -> Option<ConnectionId> {
        self.incoming.pop_front()
    }

    /// Whether one waits to be taken by [`next_incoming`](Self::next_incoming).
    pub fn has_incoming(&self) -> bool {
        !self.incoming.is_empty()
    }

    /// Whether frames without data wait to be sent.
    pub fn owes(&self) -> bool {
        !self.owing.is_empty()
    }

    /// Whether a connection is broken off, or was never there: nothing of it is delivered
    /// any more.
    pub fn is_broken(&self, id: ConnectionId) -> bool {
        let connection = self.connections.get(&id);
        connection.is_none_or(|connection| connection.broken)
    }

    /// The target is connected.
    pub fn opened(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.opened = true;
            self.owe(id, Inner::Opened);
        }
    }

    /// The target cannot be connected; the connection is over.
    pub fn refuse(&mut self, id: ConnectionId, code: RefusedCode, text: String) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.discard();
            connection.released = true;
            if std::mem::replace(&mut connection.broken, true) {
                // The peer has given it up already.
                connection.owed.clear();
            } else {
                self.owe(id, Inner::Refused { code, text });
            }
            self.settle(id);
        }
    }

    /// Whether the device has reported that the target is connected.
    pub fn is_opened(&self, id: ConnectionId) -> bool {
        self.connections
            .get(&id)
            .is_some_and(|connection| connection.opened)
    }

    /// How many bytes of the local socket's input can be taken now.
    pub fn room(&mut self, id: ConnectionId) -> usize {
        // A detached session takes nothing more into its memory.
        let chunk = self.carrier.as_ref().map_or(0, |on| on.window.chunk());
        let room = self.connections.get(&id).map_or(0, Connection::room);
        let room = room.min(chunk);
        if self.over.is_some() || room == 0 {
            0
        } else if self.account.may_take() {
            room
        } else {
            self.is_starved = true;
            0
        }
    }

    /// Whether a local socket waits for memory: [`tidy`](Self::tidy) is to be called now, and
    /// sees to it that it asks again.
    pub fn is_starved(&self) -> bool {
        self.is_starved && self.retry_at.is_none()
    }

    /// Whether there is memory for one more connection.
    pub fn has_memory(&self) -> bool {
        self.account.may_take()
    }

    /// A chunk for so many bytes of input, to be given to [`send`](Self::send), or
    /// [back](Self::give_back).
    pub fn chunk(&mut self, bytes: usize) -> Chunk {
        self.replay.chunk(bytes)
    }

    /// Takes back a chunk for which there was no input.
    pub fn give_back(&mut self, chunk: Chunk) {
        self.replay.give_back(chunk);
    }

    /// Takes input of the local socket, at most as much as there is [`room`](Self::room)
    /// for; more is not taken at all.
    pub fn send(&mut self, id: ConnectionId, chunk: Chunk, now: Instant) {
        if let Some(connection) = self.connections.get_mut(&id)
            && !chunk.is_empty()
            && chunk.len() <= connection.room()
        {
            connection.queue(chunk);
            self.scheduler.ready(id, &mut connection.turn, now);
        }
    }

    /// The local socket's input has ended in order.
    pub fn finish(&mut self, id: ConnectionId, now: Instant) {
        if let Some(connection) = self.connections.get_mut(&id)
            && connection.fin == Fin::Open
        {
            connection.fin = Fin::Queued;
            self.scheduler.ready(id, &mut connection.turn, now);
        }
    }

    /// The next thing for the local socket.
    pub fn take(&mut self, id: ConnectionId, now: Instant) -> Inbound {
        // What had come before an orderly end is still delivered.
        if self.over.as_ref().is_some_and(|over| *over != Over::Ended) {
            return Inbound::Reset;
        }
        let round_trip = self
            .carrier
            .as_ref()
            .and_then(|on| on.window.round_trip())
            .unwrap_or_default();
        let Some(connection) = self.connections.get_mut(&id) else {
            return Inbound::Reset;
        };
        let inbound = connection.take();
        let may_grow = self.account.may_take();
        if connection.wants_credit(round_trip, &mut self.shared_credit, may_grow, now) {
            connection.owes_credit = true;
            self.list(id);
        }
        inbound
    }

    /// Takes back what the local socket has no room for now: it waits here, where it is counted.
    /// Returns whether [`tidy_at`](Self::tidy_at) has changed.
    pub fn give_back_inbound(&mut self, id: ConnectionId, bytes: Bytes, now: Instant) -> bool {
        let Some(connection) = self.connections.get_mut(&id) else {
            return false;
        };
        connection.give_back(bytes);
        if self.carrier.is_none() {
            connection.tidy();
            return false;
        }
        let is_new = self.tidy_at.is_none();
        self.tidy_at.get_or_insert(now + KEPT);
        is_new
    }

    /// Copies out of the buffers that they came in what waits for longer than a moment, if it
    /// is time for that: a piece of a few KiB may keep 128 KiB.
    pub fn tidy(&mut self, now: Instant) {
        if self.tidy_at.is_some_and(|at| at <= now) {
            self.tidy_all();
        }
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.is_starved = false;
            self.touched.extend(self.connections.keys());
        } else if self.is_starved {
            self.retry_at.get_or_insert(now + STARVED);
        }
    }

    /// The same when too many pieces wait, whatever the time.
    pub(super) fn tidy_if_many(&mut self) {
        if self.loose > LOOSE {
            self.loose = self.connections.values().map(Connection::loose).sum();
            if self.loose > LOOSE {
                self.tidy_all();
            }
        }
    }

    pub(super) fn tidy_all(&mut self) {
        self.tidy_at = None;
        self.loose = 0;
        for connection in self.connections.values_mut() {
            connection.tidy();
        }
    }

    /// When [`tidy`](Self::tidy) is to be called.
    pub fn tidy_at(&self) -> Option<Instant> {
        match (self.tidy_at, self.retry_at) {
            (Some(tidy), Some(retry)) => Some(tidy.min(retry)),
            (tidy, retry) => tidy.or(retry),
        }
    }

    /// The local side is done with the connection. Unless both ends have ended it in due
    /// form, or the peer knows already, the peer's side is broken off.
    pub fn release(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        connection.released = true;
        if connection.owed.front() == Some(&Inner::Open) {
            // The peer does not know of it, and need not.
            connection.discard();
            return self.forget(id);
        }
        if !connection.is_settled() {
            connection.discard();
            connection.broken = true;
            // Refused while it was never opened, or broken off.
            self.owe(id, Inner::Rst);
        } else if connection.broken {
            // The peer has forgotten it.
            connection.owed.clear();
        }
        self.settle(id);
    }

    pub(super) fn owe(&mut self, id: ConnectionId, frame: Inner) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.owed.push_back(frame);
            self.list(id);
        }
    }

    pub(super) fn list(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id)
            && !connection.is_listed
        {
            connection.is_listed = true;
            self.owing.push_back(id);
        }
    }

    /// Forgets a connection of which nothing is left to do.
    pub(super) fn settle(&mut self, id: ConnectionId) {
        let is_over = self.over.is_some();
        if let Some(connection) = self.connections.get(&id)
            && (connection.is_over() || (is_over && connection.released))
        {
            self.forget(id);
        }
    }

    /// Takes a connection out of every list. Those that are walked through only when something
    /// can be sent are cleaned now and then: in a session that is stuck they would grow with
    /// each connection that comes and goes.
    pub(super) fn forget(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.remove(&id) {
            self.shared_credit += connection.shared_credit();
        }
        let most = 2 * self.connections.len() + FORGOTTEN;
        if self.owing.len() > most {
            let connections = &self.connections;
            self.owing.retain(|id| connections.contains_key(id));
        }
        self.scheduler.forget(&self.connections, most);
    }

    /// Connections for which something has changed since the last call.
    pub fn touched(&mut self) -> std::vec::Drain<'_, ConnectionId> {
        self.touched.drain(..)
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Bytes of memory that wait here, in both directions.
    pub fn held(&self) -> u64 {
        let waiting: u64 = self.connections.values().map(Connection::held).sum();
        self.replay.held() + waiting
    }

    /// All before this place has reached the peer: progress, when it grows.
    pub fn acknowledged_bytes(&self) -> u64 {
        self.replay.acknowledged()
    }

    /// All before this place has come from the peer: progress, when it grows.
    pub fn received_bytes(&self) -> u64 {
        self.received
    }
}
