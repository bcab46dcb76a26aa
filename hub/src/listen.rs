//! Where a listener listens, as an operator writes it.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// Where to listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen {
    /// On this address; `None` for all addresses, IPv4 and IPv6.
    pub ip: Option<IpAddr>,
    /// On this port; 0 picks one.
    pub port: u16,
}

impl Listen {
    /// A port on all addresses.
    pub fn everywhere(port: u16) -> Self {
        Self { ip: None, port }
    }

    /// The address to bind; `[::]` stands for all addresses of both families.
    pub fn socket_address(self) -> SocketAddr {
        let ip = self.ip.unwrap_or(Ipv6Addr::UNSPECIFIED.into());
        SocketAddr::new(ip, self.port)
    }
}

impl FromStr for Listen {
    type Err = &'static str;

    /// `IP:PORT`, `[IPv6]:PORT`, `:PORT` or `PORT`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self {
                ip: Some(address.ip()),
                port: address.port(),
            });
        }
        text.strip_prefix(':')
            .unwrap_or(text)
            .parse()
            .map(Self::everywhere)
            .map_err(|_| "give IP:PORT (IPv6 in brackets), or a port alone for all addresses")
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip {
            Some(ip) => SocketAddr::new(ip, self.port).fmt(f),
            None => write!(f, ":{}", self.port),
        }
    }
}

/// Where to listen: somewhere or nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenOrOff(pub Option<Listen>);

impl FromStr for ListenOrOff {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.eq_ignore_ascii_case("off") {
            return Ok(Self(None));
        }
        text.parse()
            .map(|listen| Self(Some(listen)))
            .map_err(|_| "give IP:PORT (IPv6 in brackets), a port alone, or off")
    }
}

impl fmt::Display for ListenOrOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(listen) => listen.fmt(f),
            None => f.write_str("off"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_addresses() {
        for (text, shown) in [
            ("8443", ":8443"),
            (":8443", ":8443"),
            ("0", ":0"),
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("[::]:443", "[::]:443"),
        ] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), shown);
        }
        for bad in ["", ":", "x", "localhost:1", "1.2.3.4", "99999", "::1:80:"] {
            assert!(bad.parse::<Listen>().is_err(), "{bad}");
        }
    }
}
