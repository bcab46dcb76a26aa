//! The local side of connections: open, send, take, release.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Over, Role, Session};
use crate::limits;
use crate::proto::chunk::Chunk;
use crate::proto::connection::{Connection, Fin, Inbound};
use crate::proto::inner::{ConnectionId, Inner, RefusedCode};

/// Data that waits longer than this is copied out of its receive buffer.
pub(super) const KEPT: Duration = Duration::from_millis(500);
/// How long a local socket that is not read because memory is short waits before the next attempt.
const STARVED: Duration = Duration::from_millis(100);
/// Pieces that may keep their receive buffers for [`KEPT`]: 16 MiB at most, and more than arrive in
/// one batch for a fast reader.
const LOOSE: usize = 128;
/// Entries of removed connections that a list may have.
const FORGOTTEN: usize = 64;

impl Session {
    /// Opens a connection; data may follow at once. `None` when the session is over or full, and on
    /// a device.
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

    /// The next connection that the peer has requested. Answer it with [`opened`](Self::opened) or
    /// [`refuse`](Self::refuse).
    pub fn next_incoming(&mut self) -> Option<ConnectionId> {
        self.incoming.pop_front()
    }

    /// Whether [`next_incoming`](Self::next_incoming) has one.
    pub fn has_incoming(&self) -> bool {
        !self.incoming.is_empty()
    }

    /// Whether frames without data wait to be sent.
    pub fn owes(&self) -> bool {
        !self.owing.is_empty()
    }

    /// Whether a connection was reset, or does not exist: no more of its data is delivered.
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
                // The peer has reset it already.
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
        // A detached session takes no more data.
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

    /// Whether a local socket waits for memory and no retry is scheduled: call
    /// [`tidy`](Self::tidy), which schedules one.
    pub fn is_starved(&self) -> bool {
        self.is_starved && self.retry_at.is_none()
    }

    /// Whether there is memory for one more connection.
    pub fn has_memory(&self) -> bool {
        self.account.may_take()
    }

    /// A chunk for so many bytes of input, for [`send`](Self::send) or
    /// [`give_back`](Self::give_back).
    pub fn chunk(&mut self, bytes: usize) -> Chunk {
        self.replay.chunk(bytes)
    }

    /// Takes back a chunk for which there was no input.
    pub fn give_back(&mut self, chunk: Chunk) {
        self.replay.give_back(chunk);
    }

    /// Queues input of the local socket. A chunk that is larger than [`room`](Self::room) is
    /// dropped.
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
        // Data that arrived before an orderly end is still delivered.
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
        if connection.wants_credit(round_trip, self.account.may_take(), now) {
            connection.owes_credit = true;
            self.list(id);
        }
        inbound
    }

    /// Takes back data for which the local socket has no room now: here its memory is counted.
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

    /// Does what is due at [`tidy_at`](Self::tidy_at): copies data that has waited for [`KEPT`] out
    /// of its receive buffers, since a piece of a few KiB may keep 128 KiB, and lets sockets that
    /// wait for memory try again.
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

    /// Copies data out of its receive buffers when too many pieces wait.
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

    /// When [`tidy`](Self::tidy) must be called.
    pub fn tidy_at(&self) -> Option<Instant> {
        match (self.tidy_at, self.retry_at) {
            (Some(tidy), Some(retry)) => Some(tidy.min(retry)),
            (tidy, retry) => tidy.or(retry),
        }
    }

    /// The local side is done with the connection. It is reset at the peer, unless both ends have
    /// finished it in order or the peer has ended it already.
    pub fn release(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        connection.released = true;
        if connection.owed.front() == Some(&Inner::Open) {
            // OPEN was not sent: the peer does not know the connection.
            connection.discard();
            return self.forget(id);
        }
        if !connection.is_settled() {
            connection.discard();
            connection.broken = true;
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

    /// Removes a connection for which nothing is left to do.
    pub(super) fn settle(&mut self, id: ConnectionId) {
        let is_over = self.over.is_some();
        if let Some(connection) = self.connections.get(&id)
            && (connection.is_over() || (is_over && connection.released))
        {
            self.forget(id);
        }
    }

    /// Removes a connection. Lists that are traversed only when something can be sent are purged
    /// when they are too long: in a stuck session they would grow with every connection.
    pub(super) fn forget(&mut self, id: ConnectionId) {
        self.connections.remove(&id);
        let most = 2 * self.connections.len() + FORGOTTEN;
        // The memory of those that have gone goes back.
        if self.connections.capacity() > 2 * most {
            self.connections.shrink_to(most);
        }
        if self.owing.len() > most {
            let connections = &self.connections;
            self.owing.retain(|id| connections.contains_key(id));
        }
        self.scheduler.forget(&self.connections, most);
    }

    /// Connections that have changed since the last call.
    pub fn touched(&mut self) -> std::vec::Drain<'_, ConnectionId> {
        self.touched.drain(..)
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Bytes of memory in the session's buffers, in both directions.
    pub fn held(&self) -> u64 {
        let waiting: u64 = self.connections.values().map(Connection::held).sum();
        self.replay.held() + waiting
    }

    /// The peer has received all bytes before this offset. It grows with progress.
    pub fn acknowledged_bytes(&self) -> u64 {
        self.replay.acknowledged()
    }

    /// All bytes before this offset were received from the peer. It grows with progress.
    pub fn received_bytes(&self) -> u64 {
        self.received
    }
}
