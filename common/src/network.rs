//! Which addresses count as one peer.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// An IPv4 address, or the /64 of an IPv6 address: one host may have all addresses in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network(IpAddr);

impl Network {
    /// No peer has it: it represents peers that cannot be distinguished.
    pub const UNSPECIFIED: Self = Self(IpAddr::V6(Ipv6Addr::UNSPECIFIED));

    /// The network of an address. An IPv4 address in IPv6 form counts as the IPv4 address.
    pub fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(ip) if !ip.is_loopback() => {
                Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into()
            }
            ip => ip,
        })
    }
}

/// `192.0.2.1`, `2001:db8::/64`.
impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V6(ip) if !ip.is_loopback() => write!(f, "{ip}/64"),
            ip => ip.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_displayed() {
        for (address, shown) in [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("2001:db8:1:3::", "2001:db8:1:3::/64"),
            ("::1", "::1"),
        ] {
            assert_eq!(Network::of(address.parse().unwrap()).to_string(), shown);
        }
    }
}
