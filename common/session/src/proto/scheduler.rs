//! Which connection sends next: deficit round robin, in which connections that recently sent little
//! go before bulk (as in fq_codel). No I/O and no clock.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::proto::inner::ConnectionId;

/// Bytes that each connection may send before the next one's turn.
const QUANTUM: i64 = 16 << 10;
/// A connection that recently sent less is interactive.
const LITTLE: u64 = 16 << 10;
/// Bytes that were sent this long ago count half.
const HALF_LIFE: Duration = Duration::from_millis(50);

/// The queue of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Queue {
    #[default]
    None,
    Interactive,
    Bulk,
}

/// A connection's place in the order.
#[derive(Debug, Default)]
pub(super) struct Turn {
    queue: Queue,
    deficit: i64,
    recent: u64,
    recent_at: Option<Instant>,
}

impl Turn {
    /// Bytes that were sent recently.
    fn recent(&self, now: Instant) -> u64 {
        let Some(at) = self.recent_at else { return 0 };
        let halves = (now - at).as_nanos() / HALF_LIFE.as_nanos();
        u32::try_from(halves)
            .ok()
            .and_then(|halves| self.recent.checked_shr(halves))
            .unwrap_or(0)
    }

    fn sent(&mut self, length: usize, now: Instant) {
        self.deficit = self.deficit.saturating_sub_unsigned(length as u64);
        self.recent = self.recent(now).saturating_add(length as u64);
        self.recent_at = Some(now);
    }
}

/// A connection, as the scheduler sees it.
pub(super) trait Scheduled {
    /// Whether it has something to send.
    fn has_output(&self) -> bool;
    /// Its place in the order.
    fn turn(&mut self) -> &mut Turn;
}

/// The order of all connections that have something to send.
#[derive(Debug, Default)]
pub(super) struct Scheduler {
    interactive: VecDeque<ConnectionId>,
    bulk: VecDeque<ConnectionId>,
}

impl Scheduler {
    /// A connection has something to send.
    pub(super) fn ready(&mut self, id: ConnectionId, turn: &mut Turn, now: Instant) {
        if turn.queue != Queue::None {
            return;
        }
        if turn.recent(now) < LITTLE {
            turn.queue = Queue::Interactive;
            turn.deficit = QUANTUM;
            self.interactive.push_back(id);
        } else {
            turn.queue = Queue::Bulk;
            self.bulk.push_back(id);
        }
    }

    /// The connection that sends next. With `small_only`, bulk waits.
    pub(super) fn next(
        &mut self,
        connections: &mut HashMap<ConnectionId, impl Scheduled>,
        small_only: bool,
    ) -> Option<ConnectionId> {
        while let Some(id) = self.interactive.front().copied() {
            if let Some(connection) = connections.get_mut(&id) {
                if !connection.has_output() {
                    connection.turn().queue = Queue::None;
                } else if connection.turn().deficit > 0 {
                    return Some(id);
                } else {
                    // It sent more than its share, and becomes bulk.
                    connection.turn().queue = Queue::Bulk;
                    self.bulk.push_back(id);
                }
            }
            self.interactive.pop_front();
        }
        if small_only {
            return None;
        }
        while let Some(id) = self.bulk.front().copied() {
            match connections.get_mut(&id) {
                Some(connection) if connection.has_output() => {
                    if connection.turn().deficit > 0 {
                        return Some(id);
                    }
                    connection.turn().deficit += QUANTUM;
                    self.bulk.rotate_left(1);
                }
                Some(connection) => {
                    connection.turn().queue = Queue::None;
                    self.bulk.pop_front();
                }
                None => {
                    self.bulk.pop_front();
                }
            }
        }
        None
    }

    /// The connection that [`next`](Self::next) returned has sent `length` bytes.
    pub(super) fn sent(&mut self, turn: &mut Turn, length: usize, now: Instant) {
        turn.sent(length, now);
    }

    /// Removes entries of connections that are gone from queues with more than `most` entries.
    pub(super) fn forget(
        &mut self,
        connections: &HashMap<ConnectionId, impl Scheduled>,
        most: usize,
    ) {
        for queue in [&mut self.interactive, &mut self.bulk] {
            if queue.len() > most {
                queue.retain(|id| connections.contains_key(id));
            }
        }
    }

    /// The number of entries, for tests.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.interactive.len() + self.bulk.len()
    }

    /// Whether no connection waits.
    pub(super) fn is_empty(&self) -> bool {
        self.interactive.is_empty() && self.bulk.is_empty()
    }
}
