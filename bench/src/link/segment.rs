//! TCP segments in IPv4 packets: reads the fields that are needed here, and writes segments without
//! payload, which end a connection.

use std::net::{Ipv4Addr, SocketAddrV4};

const PROTOCOL_TCP: u8 = 6;
const HEADERS: usize = 40;

/// The flags of a TCP header that matter here.
pub mod flags {
    /// No more data.
    pub const FIN: u8 = 0x01;
    /// The connection's first segment.
    pub const SYN: u8 = 0x02;
    /// The connection is reset.
    pub const RST: u8 = 0x04;
    /// The acknowledgement number is valid.
    pub const ACK: u8 = 0x10;
}

/// A TCP segment without its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Its source.
    pub source: SocketAddrV4,
    /// Its destination.
    pub destination: SocketAddrV4,
    /// Its first sequence number.
    pub sequence: u32,
    /// The next sequence number that the sender expects, when `ACK` is set.
    pub acknowledgement: u32,
    /// See [`flags`].
    pub flags: u8,
    /// Sequence numbers that it uses: its payload, and one each for SYN and FIN.
    pub length: u32,
}

impl Segment {
    /// Reads an IP packet; `None` when it is not the first fragment of TCP over IPv4.
    pub fn parse(packet: &[u8]) -> Option<Self> {
        let version_and_length = *packet.first()?;
        if version_and_length >> 4 != 4 || packet.get(9) != Some(&PROTOCOL_TCP) {
            return None;
        }
        let fragment_offset = number16(packet, 6)? & 0x1fff;
        if fragment_offset != 0 {
            return None;
        }
        let total = usize::from(number16(packet, 2)?).min(packet.len());
        let tcp = packet.get(usize::from(version_and_length & 0x0f) * 4..total)?;
        let header = usize::from(tcp.get(12)? >> 4) * 4;
        let flags = *tcp.get(13)?;
        let payload = tcp.len().checked_sub(header)?;
        let counted = u32::from(flags & flags::SYN != 0) + u32::from(flags & flags::FIN != 0);
        Some(Self {
            source: SocketAddrV4::new(address(packet, 12)?, number16(tcp, 0)?),
            destination: SocketAddrV4::new(address(packet, 16)?, number16(tcp, 2)?),
            sequence: number32(tcp, 4)?,
            acknowledgement: number32(tcp, 8)?,
            flags,
            length: u32::try_from(payload).ok()? + counted,
        })
    }

    /// Whether one of these flags is set.
    pub fn has(&self, flags: u8) -> bool {
        self.flags & flags != 0
    }

    /// The next sequence number of its sender.
    pub fn end(&self) -> u32 {
        self.sequence.wrapping_add(self.length)
    }

    /// The answer of a host that does not know the connection (RFC 9293, 3.10.7.1). It has the
    /// expected sequence number, so that it is accepted at once.
    pub fn refusal(&self) -> Option<Self> {
        if self.has(flags::RST) {
            return None;
        }
        let (sequence, acknowledgement, flags) = if self.has(flags::ACK) {
            (self.acknowledgement, 0, flags::RST)
        } else {
            (0, self.end(), flags::RST | flags::ACK)
        };
        Some(Self {
            source: self.destination,
            destination: self.source,
            sequence,
            acknowledgement,
            flags,
            length: 0,
        })
    }

    /// The IP packet of a segment without payload.
    pub fn to_packet(self) -> [u8; HEADERS] {
        let (source, destination) = (self.source.ip().octets(), self.destination.ip().octets());
        // Version 4, five words; length; no id; do not fragment; time to live.
        let ip = [0x45, 0, 0, HEADERS as u8, 0, 0, 0x40, 0, 64, PROTOCOL_TCP];
        let no_checksum = [0, 0];
        let ip_checksum = checksum(&[&ip, &no_checksum, &source, &destination]);
        let ports = [self.source.port(), self.destination.port()].map(u16::to_be_bytes);
        let numbers = [self.sequence, self.acknowledgement].map(u32::to_be_bytes);
        let rest = [0x50, self.flags, 0, 0];
        let tcp_length = [0, PROTOCOL_TCP, 0, 20];
        let tcp: [&[u8]; 5] = [
            ports.as_flattened(),
            numbers.as_flattened(),
            &rest,
            &no_checksum,
            &[0, 0],
        ];
        let pseudo: [&[u8]; 3] = [&source, &destination, &tcp_length];
        let tcp_checksum = checksum(&[pseudo.as_slice(), &tcp].concat());
        let mut packet = [0; HEADERS];
        let parts: [&[u8]; 9] = [
            &ip,
            &ip_checksum,
            &source,
            &destination,
            ports.as_flattened(),
            numbers.as_flattened(),
            &rest,
            &tcp_checksum,
            &[0, 0],
        ];
        for (to, from) in packet.iter_mut().zip(parts.concat()) {
            *to = from;
        }
        packet
    }
}

/// The internet checksum of parts of even length.
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let mut sum = 0;
    for part in parts {
        for pair in part.as_chunks().0 {
            sum += u32::from(u16::from_be_bytes(*pair));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!sum as u16).to_be_bytes()
}

fn number16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn number32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn address(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(*bytes.get(at..)?.first_chunk::<4>()?))
}

#[cfg(test)]
mod tests {
    use super::flags::{ACK, FIN, RST, SYN};
    use super::*;

    fn segment(flags: u8) -> Segment {
        Segment {
            source: "10.0.0.1:40000".parse().unwrap(),
            destination: "10.0.0.2:443".parse().unwrap(),
            sequence: 1000,
            acknowledgement: 2000,
            flags,
            length: u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0),
        }
    }

    #[test]
    fn segments_round_trip() {
        for flags in [SYN, ACK, RST, SYN | ACK, FIN | ACK] {
            let packet = segment(flags).to_packet();
            assert_eq!(Segment::parse(&packet), Some(segment(flags)));
            // The checksum of a header with its checksum is zero.
            assert_eq!(checksum(&[&packet[..20]]), [0, 0]);
            let pseudo = [&packet[12..20], &[0, PROTOCOL_TCP, 0, 20]].concat();
            assert_eq!(checksum(&[&pseudo, &packet[20..]]), [0, 0]);
        }
    }

    #[test]
    fn payload_uses_sequence_numbers() {
        let mut packet = segment(ACK).to_packet().to_vec();
        packet.extend([0; 7]);
        packet[3] += 7;
        assert_eq!(Segment::parse(&packet).unwrap().end(), 1007);
    }

    #[test]
    fn other_packets_are_ignored() {
        let good = segment(ACK).to_packet();
        assert_eq!(Segment::parse(&good[..30]), None);
        for (at, value) in [(0, 0x65), (9, 17), (7, 1), (0, 0x4f)] {
            let mut packet = good;
            packet[at] = value;
            assert_eq!(Segment::parse(&packet), None, "{at}");
        }
    }

    #[test]
    fn a_refusal_has_the_expected_sequence_number() {
        let refusal = segment(ACK).refusal().unwrap();
        assert_eq!((refusal.sequence, refusal.flags), (2000, RST));
        assert_eq!(refusal.destination, segment(ACK).source);
        let refusal = segment(SYN).refusal().unwrap();
        assert_eq!((refusal.acknowledgement, refusal.flags), (1001, RST | ACK));
        assert_eq!(segment(RST).refusal(), None);
    }
}
