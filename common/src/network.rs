//! Which addresses count as one peer, and which are one address.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The address that a connection to this one really reaches: an IPv4 address in IPv6 form is the
/// IPv4 address, and the unspecified address is loopback. Rules are matched on this form, so that
/// there is no other way to write what they forbid.
pub fn canonical(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}

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
    fn one_address_has_one_form() {
        for (written, reached) in [
            ("127.0.0.1", "127.0.0.1"),
            ("::ffff:10.0.0.5", "10.0.0.5"),
            ("::ffff:0.0.0.0", "127.0.0.1"),
            ("0.0.0.0", "127.0.0.1"),
            ("::", "::1"),
            ("fd00::1", "fd00::1"),
        ] {
            let reached: IpAddr = reached.parse().unwrap();
            assert_eq!(canonical(written.parse().unwrap()), reached, "{written}");
        }
    }

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
