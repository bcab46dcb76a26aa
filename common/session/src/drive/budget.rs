//! Which detached sessions must go when there are too many, or when they hold too much.
//! No I/O and no clock.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::Instant;

use crate::limits;
use crate::proto::proof::SessionId;

/// What detached sessions may take.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// So many.
    pub sessions: usize,
    /// So many bytes of memory together.
    pub bytes: u64,
    /// So many connections together.
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
    /// Its name.
    pub id: SessionId,
    /// When it began. The age of a session protects it, and the time for which it is detached
    /// does not count: who opens and drops sessions does not push out those of before.
    pub began: Instant,
    /// Connections that wait in it.
    pub connections: usize,
    /// Bytes of memory that wait in it.
    pub held: u64,
    /// Whose it is, as far as that is known: what there is, is shared among holders.
    pub holder: Arc<str>,
}

impl Budget {
    /// Those that must go: sessions without connections first, then the newest of the holder
    /// that has most. An attached session is never among them: it is not even asked for.
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

/// Where the session stands that makes room for another one.
pub fn first_to_go(detached: &[Detached]) -> Option<usize> {
    let shares = shares(detached, |_| 1);
    let places = detached.iter().enumerate();
    let victim = places.max_by_key(|(_, it)| (it.connections == 0, share(&shares, it), it.began));
    victim.map(|(place, _)| place)
}

fn connections(session: &Detached) -> u64 {
    session.connections as u64
}

/// By how much they have more of something than they may have.
fn excess(detached: &[Detached], of: impl Fn(&Detached) -> u64, most: u64) -> u64 {
    let all: u64 = detached.iter().map(of).sum();
    all.saturating_sub(most)
}

/// Where the session stands that frees some of what there is too much of. Of those of one holder
/// one goes that frees `excess` alone, if there is one: the end of others would be of no use.
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

/// What each holder has in all.
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
    fn the_newest_of_who_has_most_goes_first() {
        let all = [
            detached(1, "a", 1, 40),
            detached(2, "b", 1, 10),
            detached(3, "b", 1, 10),
            detached(4, "b", 1, 10),
            detached(5, "c", 1, 10),
        ];
        assert_eq!(evicted(5, 80, &all), [0u8; 0]);
        assert_eq!(evicted(4, 80, &all), [4]);
        // Then all but one have as many: the newest.
        assert_eq!(evicted(3, 80, &all), [4, 3]);
        assert_eq!(evicted(2, 80, &all), [4, 3, 5]);
        // Of bytes another one has most.
        assert_eq!(evicted(5, 79, &all), [1]);
        assert_eq!(evicted(5, 39, &all), [1, 4]);
        assert_eq!(evicted(0, 0, &all).len(), 5);
    }

    #[test]
    fn who_opens_and_drops_sessions_pushes_out_its_own() {
        let shell = detached(0, "operator", 1, 100);
        let mut all = vec![shell.clone()];
        for number in 1..=200 {
            // Also one that looks like the operator.
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
    fn a_session_without_connections_goes_before_any_other() {
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
    fn connections_of_detached_sessions_leave_room_for_others() {
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
    fn the_end_of_one_that_suffices_spares_the_others() {
        let all = [
            detached(1, "a", 1, 90),
            detached(2, "a", 1, 1),
            detached(3, "a", 1, 1),
        ];
        assert_eq!(evicted(3, 91, &all), [3]);
        assert_eq!(evicted(3, 60, &all), [1]);
        // What holds nothing frees nothing.
        let all = [detached(1, "a", 1, 90), detached(2, "a", 0, 0)];
        assert_eq!(evicted(3, 60, &all), [1]);
    }
}
