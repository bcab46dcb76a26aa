//! Which address of a host accepted last time: it is tried first next time, so that a dead
//! one beside it costs one connection its delay and not each.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

/// Hosts that are remembered; the one that was not dialled for longest goes. A program
/// dials a hub, its streaming endpoints and some targets.
const HOSTS: usize = 64;
/// How long one is: what was dead may be the better way again (RFC 8305, section 4).
const LIFE: Duration = Duration::from_secs(600);

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

    /// Remembers an address that has accepted. The time of one that is known already stays:
    /// in the end the resolver's order is tried again.
    pub(super) fn note(&mut self, host: &str, address: SocketAddr, now: Instant) {
        let port = address.port();
        let known = self
            .entries
            .iter()
            .position(|entry| entry.is_of(host, port))
            .and_then(|at| self.entries.remove(at));
        let since = known
            .filter(|known| known.address == address)
            .map(|known| known.since)
            .filter(|since| now.saturating_duration_since(*since) < LIFE)
            .unwrap_or(now);
        while self.entries.len() >= HOSTS {
            self.entries.pop_front();
        }
        self.entries.push_back(Entry {
            host: host.to_owned(),
            address,
            since,
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
        memory.note("h", four, start);
        assert_eq!(memory.last("h", 443, start), Some(four));
        assert_eq!(memory.last("h", 8883, start), None);
        assert_eq!(memory.last("other", 443, start), None);
        memory.note("h", four, start + LIFE / 2);
        assert_eq!(memory.last("h", 443, start + LIFE), None, "looked at again");
        memory.note("h", four, start + LIFE);
        memory.note("h", six, start + LIFE);
        assert_eq!(memory.last("h", 443, start + LIFE), Some(six));
        for number in 0..2 * HOSTS {
            // What is in use stays.
            memory.note("h", six, start + LIFE);
            memory.note(&number.to_string(), four, start + LIFE);
        }
        assert_eq!(memory.entries.len(), HOSTS);
        assert_eq!(memory.last("h", 443, start + LIFE), Some(six));
    }
}
