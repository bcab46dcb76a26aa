//! Which detached sessions must go when there are too many, or when they hold too much.
//! No I/O and no clock.

use tokio::time::Instant;

use super::handshake::SessionId;
use crate::limits;

/// What detached sessions may take.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// So many.
    pub sessions: usize,
    /// So many bytes of memory together.
    pub bytes: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            sessions: limits::SESSIONS,
            bytes: limits::SESSION_DETACHED_BYTES,
        }
    }
}

/// A detached session.
#[derive(Debug, Clone, Copy)]
pub struct Detached {
    /// Its name.
    pub id: SessionId,
    /// Since when.
    pub since: Instant,
    /// Bytes of memory that wait in it.
    pub held: u64,
}

impl Budget {
    /// Those that must go, the longest detached first. An attached session is never among
    /// them: it is not even asked for.
    pub fn evicted(&self, mut detached: Vec<Detached>) -> Vec<SessionId> {
        detached.sort_by_key(|session| session.since);
        let mut count = detached.len();
        let mut bytes: u64 = detached.iter().map(|session| session.held).sum();
        let mut evicted = Vec::new();
        for session in detached {
            if count <= self.sessions && bytes <= self.bytes {
                break;
            }
            count -= 1;
            bytes = bytes.saturating_sub(session.held);
            evicted.push(session.id);
        }
        evicted
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Duration;

    use super::*;

    #[test]
    fn the_longest_detached_goes_first() {
        let now = Instant::now();
        let detached = |number: u8, age: u64, held: u64| Detached {
            id: SessionId([number; 16]),
            since: now - Duration::from_secs(age),
            held,
        };
        let all = vec![detached(1, 5, 40), detached(2, 30, 40), detached(3, 20, 40)];
        let evicted = |sessions, bytes| Budget { sessions, bytes }.evicted(all.clone());
        assert_eq!(evicted(3, 120), []);
        assert_eq!(evicted(2, 120), [SessionId([2; 16])]);
        assert_eq!(evicted(3, 119), [SessionId([2; 16])]);
        assert_eq!(evicted(3, 40), [SessionId([2; 16]), SessionId([3; 16])]);
        assert_eq!(evicted(0, 0).len(), 3);
    }
}
