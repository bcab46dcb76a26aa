//! Where the admin listener listens, as an operator writes it.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// Where the admin listener listens, if it does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AdminListen {
    /// Nowhere.
    #[default]
    Off,
    /// On an address that only this machine reaches.
    Here(SocketAddr),
    /// On one that others may reach: somebody has said `open:`.
    Open(SocketAddr),
}

/// In front of an address that others may reach.
const OPEN: &str = "open:";

impl AdminListen {
    /// The address, if there is one.
    pub fn address(self) -> Option<SocketAddr> {
        match self {
            Self::Off => None,
            Self::Here(address) | Self::Open(address) => Some(address),
        }
    }

    /// Whether others were meant to reach it.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Open(_))
    }
}

/// An address that cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AdminListenError {
    /// It is none.
    #[error("give IP:PORT (IPv6 in brackets), a port alone for 127.0.0.1, or off")]
    NoAddress,
    /// It is not of this machine alone.
    #[error(
        "others can reach {0}, and metrics are given to anyone who asks: give a loopback address, or say open:{0} if that is meant"
    )]
    NotLoopback(SocketAddr),
}

impl FromStr for AdminListen {
    type Err = AdminListenError;

    /// `IP:PORT`, `[IPv6]:PORT`, `PORT` on 127.0.0.1, `off`; with `open:` before it any address,
    /// and a port alone on all.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.eq_ignore_ascii_case("off") {
            return Ok(Self::Off);
        }
        let (is_open, text) = match text.strip_prefix(OPEN) {
            Some(text) => (true, text),
            None => (false, text),
        };
        let address = match text.parse::<SocketAddr>() {
            Ok(address) => address,
            Err(_) => {
                let port = text.strip_prefix(':').unwrap_or(text);
                let port = port.parse().map_err(|_| AdminListenError::NoAddress)?;
                match is_open {
                    true => (Ipv6Addr::UNSPECIFIED, port).into(),
                    false => (Ipv4Addr::LOCALHOST, port).into(),
                }
            }
        };
        match (is_open, address.ip().to_canonical().is_loopback()) {
            (true, _) => Ok(Self::Open(address)),
            (false, true) => Ok(Self::Here(address)),
            (false, false) => Err(AdminListenError::NotLoopback(address)),
        }
    }
}

impl fmt::Display for AdminListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Here(address) => address.fmt(f),
            Self::Open(address) => write!(f, "{OPEN}{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_spelled_out_is_reached_from_elsewhere() {
        for (text, shown) in [
            ("off", "off"),
            ("9464", "127.0.0.1:9464"),
            (":9464", "127.0.0.1:9464"),
            ("127.8.0.1:0", "127.8.0.1:0"),
            ("[::1]:1", "[::1]:1"),
            ("[::ffff:127.0.0.1]:1", "[::ffff:127.0.0.1]:1"),
            ("open:9464", "open:[::]:9464"),
            ("open:192.0.2.1:80", "open:192.0.2.1:80"),
            ("open:127.0.0.1:80", "open:127.0.0.1:80"),
        ] {
            assert_eq!(text.parse::<AdminListen>().unwrap().to_string(), shown);
        }
        for text in ["0.0.0.0:80", "[::]:80", "192.0.2.1:80", "[fe80::1]:80"] {
            let address = text.parse().unwrap();
            let error = AdminListenError::NotLoopback(address);
            assert_eq!(text.parse::<AdminListen>(), Err(error), "{text}");
        }
        for text in ["", ":", "open:", "x", "localhost:1", "99999", "open:off"] {
            let error = AdminListenError::NoAddress;
            assert_eq!(text.parse::<AdminListen>(), Err(error), "{text}");
        }
    }
}
