//! Whose bytes go next: deficit round robin, in which a connection that sent little of
//! late goes before those that say much (the way of fq_codel). No I/O and no clock.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::proto::inner::ConnectionId;

/// Bytes that each connection may send before the next one's turn.
const QUANTUM: i64 = 16 << 10;
/// A connection that sent less of late is interactive.
const LITTLE: u64 = 16 << 10;
/// What was sent this long ago counts half.
const HALF_LIFE: Duration = Duration::from_millis(50);

/// In which queue a connection stands.
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
    /// Bytes of late.
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

/// What takes its turn: a connection, as the scheduler sees it.
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

    /// The connection that sends next, out of those that have something. With
    /// `small_only`, bulk waits.
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
                    // It sent more than its share: behind the others.
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

    /// A connection that [`next`](Self::next) named has sent so much.
    pub(super) fn sent(&mut self, turn: &mut Turn, length: usize, now: Instant) {
        turn.sent(length, now);
    }

    /// Takes those that are gone out of the order, if there are more in it than `most`.
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

    /// Entries, for tests.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.interactive.len() + self.bulk.len()
    }

    /// Whether anybody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.interactive.is_empty() && self.bulk.is_empty()
    }
}
