//! The TCP connections that cross the link: as much of their state as is needed to reset them.

use std::collections::HashMap;
use std::net::SocketAddrV4;

use super::Side;
use super::segment::{Segment, flags};

/// Connections that are tracked; beyond that, those that were silent longest are dropped.
const MOST: usize = 16 << 10;

/// One end of a connection, as known from its own segments.
#[derive(Debug, Clone, Copy)]
struct End {
    /// Its next sequence number.
    next: u32,
    /// The sequence number that it expects from the other end, if it has sent one.
    expects: Option<u32>,
}

#[derive(Debug, Default)]
struct Flow {
    first: Option<End>,
    second: Option<End>,
    last_seen: u64,
}

/// The connections.
#[derive(Debug, Default)]
pub struct Flows {
    flows: HashMap<(SocketAddrV4, SocketAddrV4), Flow>,
    segments: u64,
}

impl Flows {
    /// Tracks a segment from this side.
    pub fn note(&mut self, from: Side, segment: &Segment) {
        let key = match from {
            Side::First => (segment.source, segment.destination),
            Side::Second => (segment.destination, segment.source),
        };
        if segment.has(flags::RST) {
            self.flows.remove(&key);
            return;
        }
        self.segments += 1;
        if self.flows.len() >= MOST && !self.flows.contains_key(&key) {
            self.forget_half();
        }
        let flow = self.flows.entry(key).or_default();
        if segment.has(flags::SYN) && !segment.has(flags::ACK) {
            // A new connection, possibly between the ports of an old one.
            *flow = Flow::default();
        }
        flow.last_seen = self.segments;
        let end = match from {
            Side::First => &mut flow.first,
            Side::Second => &mut flow.second,
        };
        let expects = segment.has(flags::ACK).then_some(segment.acknowledgement);
        let known = end.get_or_insert(End {
            next: segment.end(),
            expects,
        });
        known.next = later(known.next, segment.end());
        known.expects = match (known.expects, expects) {
            (Some(known), Some(new)) => Some(later(known, new)),
            (known, new) => new.or(known),
        };
    }

    /// How many connections are tracked.
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// Whether none is tracked.
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// The segments that reset every connection, and the side to which each must be sent. An end
    /// that has acknowledged everything accepts its reset at once. An end that has not is probed
    /// for an acknowledgement, which must be answered with [`Segment::refusal`].
    pub fn take_resets(&mut self) -> Vec<(Side, Segment)> {
        let mut resets = Vec::new();
        for ((first, second), flow) in self.flows.drain() {
            for (side, end, own, other) in [
                (Side::First, flow.first, first, second),
                (Side::Second, flow.second, second, first),
            ] {
                let Some(end) = end else { continue };
                let segment = |sequence, acknowledgement, flags| Segment {
                    source: other,
                    destination: own,
                    sequence,
                    acknowledgement,
                    flags,
                    length: 0,
                };
                match end.expects {
                    None => {
                        resets.push((side, segment(0, end.next, flags::RST | flags::ACK)));
                    }
                    Some(expects) => {
                        resets.push((side, segment(expects, 0, flags::RST)));
                        // Like a keepalive probe: outside the window, so it is answered.
                        let probe = segment(expects.wrapping_sub(1), end.next, flags::ACK);
                        resets.push((side, probe));
                    }
                }
            }
        }
        resets
    }

    fn forget_half(&mut self) {
        let mut times: Vec<u64> = self.flows.values().map(|flow| flow.last_seen).collect();
        let middle = times.len() / 2;
        let (_, &mut median, _) = times.select_nth_unstable(middle);
        self.flows.retain(|_, flow| flow.last_seen > median);
    }
}

fn later(a: u32, b: u32) -> u32 {
    // Sequence numbers wrap around.
    if b.wrapping_sub(a) < 1 << 31 { b } else { a }
}

#[cfg(test)]
mod tests {
    use super::flags::{ACK, FIN, RST, SYN};
    use super::*;

    fn client() -> SocketAddrV4 {
        "10.0.0.1:40000".parse().unwrap()
    }

    fn server() -> SocketAddrV4 {
        "10.0.0.2:443".parse().unwrap()
    }

    fn from_client(flags: u8, sequence: u32, acknowledgement: u32, length: u32) -> Segment {
        Segment {
            source: client(),
            destination: server(),
            sequence,
            acknowledgement,
            flags,
            length,
        }
    }

    fn from_server(flags: u8, sequence: u32, acknowledgement: u32, length: u32) -> Segment {
        Segment {
            source: server(),
            destination: client(),
            ..from_client(flags, sequence, acknowledgement, length)
        }
    }

    fn established() -> Flows {
        let mut flows = Flows::default();
        flows.note(Side::First, &from_client(SYN, 99, 0, 1));
        flows.note(Side::Second, &from_server(SYN | ACK, 499, 100, 1));
        flows.note(Side::First, &from_client(ACK, 100, 500, 10));
        flows.note(Side::Second, &from_server(ACK, 500, 110, 0));
        flows
    }

    #[test]
    fn both_ends_are_reset_with_the_number_they_expect() {
        let mut flows = established();
        let resets = flows.take_resets();
        assert!(flows.is_empty());
        assert!(resets.contains(&(Side::First, from_server(RST, 500, 0, 0))));
        assert!(resets.contains(&(Side::Second, from_client(RST, 110, 0, 0))));
        assert!(resets.contains(&(Side::First, from_server(ACK, 499, 110, 0))));
        assert!(resets.contains(&(Side::Second, from_client(ACK, 109, 500, 0))));
        assert_eq!(resets.len(), 4);
    }

    #[test]
    fn a_retransmission_does_not_move_numbers_back() {
        let mut flows = established();
        flows.note(Side::First, &from_client(ACK, 100, 500, 5));
        let resets = flows.take_resets();
        assert!(resets.contains(&(Side::First, from_server(ACK, 499, 110, 0))));
        assert_eq!(later(u32::MAX, 3), 3);
        assert_eq!(later(3, u32::MAX), 3);
    }

    #[test]
    fn a_handshake_is_refused() {
        let mut flows = Flows::default();
        flows.note(Side::First, &from_client(SYN, 99, 0, 1));
        let refusal = from_server(RST | ACK, 0, 100, 0);
        assert_eq!(flows.take_resets(), [(Side::First, refusal)]);
    }

    #[test]
    fn reset_connections_are_dropped_and_their_ports_can_be_reused() {
        let mut flows = established();
        flows.note(Side::Second, &from_server(RST, 500, 0, 0));
        assert!(flows.is_empty());
        let mut flows = established();
        flows.note(Side::First, &from_client(FIN | ACK, 110, 500, 1));
        // The same ports again.
        flows.note(Side::First, &from_client(SYN, 7000, 0, 1));
        assert_eq!(flows.len(), 1);
        let refusal = from_server(RST | ACK, 0, 7001, 0);
        assert_eq!(flows.take_resets(), [(Side::First, refusal)]);
    }

    #[test]
    fn the_oldest_connections_are_dropped_when_there_are_too_many() {
        let mut flows = Flows::default();
        for number in 0..=MOST as u32 {
            let ip = std::net::Ipv4Addr::from_bits(0x0a00_0000 + number);
            let source = SocketAddrV4::new(ip, 1);
            let segment = Segment {
                source,
                ..from_client(SYN, 0, 0, 1)
            };
            flows.note(Side::First, &segment);
        }
        assert!(flows.len() <= MOST / 2 + 1);
        let newest = std::net::Ipv4Addr::from_bits(0x0a00_0000 + MOST as u32);
        let resets = flows.take_resets();
        assert!(
            resets
                .iter()
                .any(|(_, reset)| *reset.destination.ip() == newest)
        );
    }
}
