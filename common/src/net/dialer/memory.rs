//! Which address of a host accepted last time: it is tried first next time, so that a dead
//! one beside it costs one connection its delay and not each. For a short time it is tried without
//! asking the resolver, which takes a thread and, where the system keeps no answers, a round trip.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

/// Hosts that are remembered; the one that was not looked up for longest goes. A program
/// dials a hub, its streaming endpoints and some targets.
const HOSTS: usize = 64;
/// How long one is: what was dead may be the better way again (RFC 8305, section 4).
const LIFE: Duration = Duration::from_secs(600);
/// How long the resolver's answer is used again. Openings that follow each other closely share it:
/// a burst, or the steps of one (request, leg). Resolvers keep a name's addresses for longer
/// themselves, as a rule 30 s and more, so that a name that has moved is hardly known later; and
/// only where its old address still accepts connections.
pub(super) const RESOLVED_FOR: Duration = Duration::from_secs(15);

/// The address that accepted, for each host and port.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// The newest is the last.
    entries: VecDeque<Entry>,
}

#[derive(Debug)]
struct Entry {
    host: String,
    address: SocketAddr,
    since: Instant,
    /// When the resolver gave it; `None` if it is to be asked.
    resolved: Option<Instant>,
}

impl Entry {
    fn is_of(&self, host: &str, port: u16) -> bool {
        self.address.port() == port && self.host == host
    }
}

impl Memory {
    /// The address of `host:port` that accepted last, if that is not long ago.
    pub(super) fn last(&self, host: &str, port: u16, now: Instant) -> Option<SocketAddr> {
        let entry = self.entries.iter().find(|entry| entry.is_of(host, port))?;
        (now.saturating_duration_since(entry.since) < LIFE).then_some(entry.address)
    }

    /// The same address, if the resolver need not be asked: its answer is fresh, and the address
    /// has not failed since.
    pub(super) fn resolved(&self, host: &str, port: u16, now: Instant) -> Option<SocketAddr> {
        let entry = self.entries.iter().find(|entry| entry.is_of(host, port))?;
        let is_fresh = |at: Instant| now.saturating_duration_since(at) < RESOLVED_FOR;
        entry
            .resolved
            .is_some_and(is_fresh)
            .then_some(entry.address)
    }

    /// Has the resolver asked next time.
    pub(super) fn forget(&mut self, host: &str, port: u16) {
        let mut entries = self.entries.iter_mut();
        if let Some(entry) = entries.find(|entry| entry.is_of(host, port)) {
            entry.resolved = None;
        }
    }

    /// Remembers an address that has accepted, and that the resolver gave at `resolved`. The time
    /// of one that is known already stays: in the end the resolver's order is tried again.
    pub(super) fn note(
        &mut self,
        host: &str,
        address: SocketAddr,
        resolved: Instant,
        now: Instant,
    ) {
        let port = address.port();
        let known = self
            .entries
            .iter()
            .position(|entry| entry.is_of(host, port))
            .and_then(|at| self.entries.remove(at))
            .filter(|known| known.address == address);
        let since = known
            .as_ref()
            .map(|known| known.since)
            .filter(|since| now.saturating_duration_since(*since) < LIFE)
            .unwrap_or(now);
        let resolved = known.and_then(|known| known.resolved).max(Some(resolved));
        while self.entries.len() >= HOSTS {
            self.entries.pop_front();
        }
        self.entries.push_back(Entry {
            host: host.to_owned(),
            address,
            since,
            resolved,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_address_of_a_host_is_kept_for_its_time_and_no_more_than_so_many() {
        let mut memory = Memory::default();
        let start = Instant::now();
        let (six, four): (SocketAddr, SocketAddr) = (
            "[::1]:443".parse().unwrap(),
            "127.0.0.1:443".parse().unwrap(),
        );
        memory.note("h", four, start, start);
        assert_eq!(memory.last("h", 443, start), Some(four));
        assert_eq!(memory.last("h", 8883, start), None);
        assert_eq!(memory.last("other", 443, start), None);
        memory.note("h", four, start + LIFE / 2, start + LIFE / 2);
        assert_eq!(memory.last("h", 443, start + LIFE), None, "looked at again");
        memory.note("h", four, start + LIFE, start + LIFE);
        memory.note("h", six, start + LIFE, start + LIFE);
        assert_eq!(memory.last("h", 443, start + LIFE), Some(six));
        for number in 0..2 * HOSTS {
            // What is in use stays.
            memory.note("h", six, start + LIFE, start + LIFE);
            memory.note(&number.to_string(), four, start + LIFE, start + LIFE);
        }
        assert_eq!(memory.entries.len(), HOSTS);
        assert_eq!(memory.last("h", 443, start + LIFE), Some(six));
    }

    #[test]
    fn the_resolver_is_asked_again_after_its_time_and_after_a_failure() {
        let mut memory = Memory::default();
        let start = Instant::now();
        let (six, four): (SocketAddr, SocketAddr) = (
            "[::1]:443".parse().unwrap(),
            "127.0.0.1:443".parse().unwrap(),
        );
        let moment = Duration::from_millis(1);
        assert_eq!(memory.resolved("h", 443, start), None);
        memory.note("h", four, start, start);
        for (host, port) in [("other", 443), ("h", 8883)] {
            assert_eq!(memory.resolved(host, port, start), None);
        }
        let late = start + RESOLVED_FOR - moment;
        assert_eq!(memory.resolved("h", 443, late), Some(four));
        // An older answer, as a probe of the path may have it, changes nothing.
        memory.note("h", four, start - moment, late);
        assert_eq!(memory.resolved("h", 443, late), Some(four));
        assert_eq!(memory.resolved("h", 443, start + RESOLVED_FOR), None);
        assert_eq!(memory.last("h", 443, start + RESOLVED_FOR), Some(four));
        // A newer one counts from when it was given.
        memory.note("h", four, late, late + RESOLVED_FOR / 2);
        assert_eq!(memory.resolved("h", 443, late + RESOLVED_FOR), None);
        assert_eq!(
            memory.resolved("h", 443, late + RESOLVED_FOR / 2),
            Some(four)
        );
        memory.note("h", six, late, late);
        assert_eq!(memory.resolved("h", 443, late), Some(six));
        memory.forget("h", 443);
        assert_eq!(memory.resolved("h", 443, late), None);
        assert_eq!(memory.last("h", 443, late), Some(six), "still the first");
    }
}
