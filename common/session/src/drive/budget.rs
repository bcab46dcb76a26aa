//! Decides which detached sessions are evicted when there are too many, or when they hold too much
//! memory or too many connections. No I/O and no clock.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::Instant;

use crate::limits;
use crate::proto::proof::SessionId;

/// Limits of all detached sessions together.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Their number.
    pub sessions: usize,
    /// Their memory, in bytes.
    pub bytes: u64,
    /// Their connections.
    pub connections: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            sessions: limits::SESSIONS,
            bytes: limits::DETACHED_BYTES,
            connections: limits::DETACHED_CONNECTIONS,
        }
    }
}

/// A detached session.
#[derive(Debug, Clone)]
pub struct Detached {
    /// Its id.
    pub id: SessionId,
    /// When it began. Older sessions are kept, however long they are detached, so that a peer that
    /// opens and abandons sessions does not evict earlier ones.
    pub began: Instant,
    /// Its connections.
    pub connections: usize,
    /// Its memory, in bytes.
    pub held: u64,
    /// Its owner, as far as it is known: the budget is shared among holders.
    pub holder: Arc<str>,
}

impl Budget {
    /// The sessions to evict: those without connections first, then the newest of the holder that
    /// has most.
    pub fn evicted(&self, mut detached: Vec<Detached>) -> Vec<SessionId> {
        let mut evicted = Vec::new();
        loop {
            let bytes = excess(&detached, |it| it.held, self.bytes);
            let connections = excess(&detached, connections, self.connections as u64);
            let victim = if detached.len() > self.sessions {
                first_to_go(&detached)
            } else if bytes > 0 {
                first_to_free(&detached, |it| it.held, bytes)
            } else if connections > 0 {
                first_to_free(&detached, self::connections, connections)
            } else {
                None
            };
            let Some(victim) = victim else {
                return evicted;
            };
            evicted.push(detached.swap_remove(victim).id);
        }
    }
}

/// The index of the session to evict for a new one.
pub fn first_to_go(detached: &[Detached]) -> Option<usize> {
    let shares = shares(detached, |_| 1);
    let places = detached.iter().enumerate();
    let victim = places.max_by_key(|(_, it)| (it.connections == 0, share(&shares, it), it.began));
    victim.map(|(place, _)| place)
}

fn connections(session: &Detached) -> u64 {
    session.connections as u64
}

/// By how much the sum of a quantity exceeds its limit.
fn excess(detached: &[Detached], of: impl Fn(&Detached) -> u64, most: u64) -> u64 {
    let all: u64 = detached.iter().map(of).sum();
    all.saturating_sub(most)
}

/// The index of the session to evict to reduce a quantity. Among those of one holder, a session
/// that frees the whole `excess` comes first, so that no more sessions than necessary end.
fn first_to_free(
    detached: &[Detached],
    of: impl Fn(&Detached) -> u64,
    excess: u64,
) -> Option<usize> {
    let shares = shares(detached, &of);
    let places = detached.iter().enumerate().filter(|(_, it)| of(it) > 0);
    let victim = places.max_by_key(|(_, it)| {
        let is_idle = it.connections == 0;
        (is_idle, share(&shares, it), of(it) >= excess, it.began)
    });
    victim.map(|(place, _)| place)
}

/// The total of each holder.
fn shares(detached: &[Detached], of: impl Fn(&Detached) -> u64) -> HashMap<&str, u64> {
    let mut shares = HashMap::new();
    for session in detached {
        *shares.entry(&*session.holder).or_default() += of(session);
    }
    shares
}

fn share(shares: &HashMap<&str, u64>, session: &Detached) -> u64 {
    shares.get(&*session.holder).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use tokio::time::Duration;

    use super::*;

    fn detached(number: u8, holder: &str, connections: usize, held: u64) -> Detached {
        Detached {
            id: SessionId([number; 16]),
            began: Instant::now() + Duration::from_secs(number.into()),
            connections,
            held,
            holder: holder.into(),
        }
    }

    fn evicted(sessions: usize, bytes: u64, detached: &[Detached]) -> Vec<u8> {
        let budget = Budget {
            sessions,
            bytes,
            connections: 100,
        };
        let evicted = budget.evicted(detached.to_vec());
        evicted.iter().map(|id| id.0[0]).collect()
    }

    #[test]
    fn the_newest_session_of_the_holder_with_most_is_evicted_first() {
        let all = [
            detached(1, "a", 1, 40),
            detached(2, "b", 1, 10),
            detached(3, "b", 1, 10),
            detached(4, "b", 1, 10),
            detached(5, "c", 1, 10),
        ];
        assert_eq!(evicted(5, 80, &all), [0u8; 0]);
        assert_eq!(evicted(4, 80, &all), [4]);
        // Now all holders have one session: the newest goes.
        assert_eq!(evicted(3, 80, &all), [4, 3]);
        assert_eq!(evicted(2, 80, &all), [4, 3, 5]);
        // Another holder has the most bytes.
        assert_eq!(evicted(5, 79, &all), [1]);
        assert_eq!(evicted(5, 39, &all), [1, 4]);
        assert_eq!(evicted(0, 0, &all).len(), 5);
    }

    #[test]
    fn a_holder_that_opens_and_abandons_sessions_evicts_its_own() {
        let shell = detached(0, "operator", 1, 100);
        let mut all = vec![shell.clone()];
        for number in 1..=200 {
            // Every second one has the holder of the protected session.
            let holder = if number % 2 == 0 {
                "operator"
            } else {
                "opener"
            };
            all.push(detached(number, holder, usize::from(number % 3), 100));
            let gone = evicted(50, 4_000, &all);
            assert!(!gone.contains(&0), "{number}");
            all.retain(|it| !gone.contains(&it.id.0[0]));
        }
        assert!(all.iter().any(|it| it.id == shell.id));
        assert_eq!(all.len(), 40);
    }

    #[test]
    fn a_session_without_connections_is_evicted_before_any_other() {
        let all = [
            detached(1, "a", 0, 5),
            detached(2, "b", 1, 90),
            detached(3, "b", 1, 5),
        ];
        assert_eq!(evicted(2, 100, &all), [1]);
        assert_eq!(evicted(3, 99, &all), [1]);
        assert_eq!(evicted(3, 94, &all), [1, 3]);
    }

    #[test]
    fn the_connections_of_detached_sessions_are_limited() {
        let all = [
            detached(1, "a", 60, 0),
            detached(2, "b", 30, 0),
            detached(3, "b", 40, 0),
        ];
        assert_eq!(evicted(3, 9, &all), [3]);
        let all = [
            detached(1, "a", 60, 0),
            detached(2, "b", 30, 0),
            detached(3, "b", 10, 0),
        ];
        assert_eq!(evicted(3, 9, &all), [0u8; 0]);
    }

    #[test]
    fn a_session_that_frees_enough_is_evicted_alone() {
        let all = [
            detached(1, "a", 1, 90),
            detached(2, "a", 1, 1),
            detached(3, "a", 1, 1),
        ];
        assert_eq!(evicted(3, 91, &all), [3]);
        assert_eq!(evicted(3, 60, &all), [1]);
        // A session that holds nothing frees nothing.
        let all = [detached(1, "a", 1, 90), detached(2, "a", 0, 0)];
        assert_eq!(evicted(3, 60, &all), [1]);
    }
}
