//! Which hosts and ports, and which Unix sockets, the cloud may name as targets: `--allow-cloud`.
//! Nothing, by default. A name is compared as text, in the form that targets have, so that a name of
//! the cloud's choice cannot lead to an address that is allowed only as an address.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use ipnet::IpNet;

use crate::target::{Target, UNIX, normal_host, plain_path};

/// A text is not a host and a port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not HOST:PORT, where HOST is a name, an address or a network as 10.0.0.0/8 (IPv6 in brackets) and PORT a number or *, nor unix:PATH, where PATH is that of a socket or FOLDER/*"
)]
pub struct AllowedError(String);

/// The hosts and ports that the cloud may name as targets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowed(Vec<Pattern>);

impl Allowed {
    /// Adds `HOST:PORT` or `unix:PATH`.
    ///
    /// # Errors
    /// [`AllowedError`].
    pub fn add(&mut self, text: &str) -> Result<(), AllowedError> {
        self.0.push(text.parse()?);
        Ok(())
    }

    /// Whether the cloud may name this target.
    pub fn contains(&self, target: &Target) -> bool {
        match target {
            Target::Tcp { host, port } => self.0.iter().any(|pattern| match pattern {
                Pattern::Tcp(hosts) => hosts.fits(host, *port),
                Pattern::Socket(_) | Pattern::Sockets(_) => false,
            }),
            Target::Unix(path) => self.0.iter().any(|pattern| match pattern {
                Pattern::Tcp(_) => false,
                Pattern::Socket(allowed) => path == allowed,
                Pattern::Sockets(folder) => path.parent() == Some(folder),
            }),
            Target::Echo => false,
        }
    }
}

impl Allowed {
    /// Whether nothing may be named.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this address and port are allowed as such, whatever name leads there.
    pub(super) fn contains_address(&self, address: IpAddr, port: u16) -> bool {
        self.0.iter().any(|pattern| match pattern {
            Pattern::Tcp(HostsAndPort {
                hosts: Hosts::Network(network),
                port: allowed,
            }) => network.contains(&address) && allowed.is_none_or(|allowed| allowed == port),
            _ => false,
        })
    }

    /// Whether any address is allowed with this port.
    pub(super) fn has_networks(&self, port: u16) -> bool {
        self.0.iter().any(|pattern| match pattern {
            Pattern::Tcp(HostsAndPort {
                hosts: Hosts::Network(_),
                port: allowed,
            }) => allowed.is_none_or(|allowed| allowed == port),
            _ => false,
        })
    }
}

/// What may be named.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    Tcp(HostsAndPort),
    /// The Unix socket of this path.
    Socket(PathBuf),
    /// Every Unix socket in this folder, and none below it.
    Sockets(PathBuf),
}

/// Hosts, and a port or all.
#[derive(Debug, Clone, PartialEq, Eq)]
struct HostsAndPort {
    hosts: Hosts,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Hosts {
    /// In the form that targets have.
    Name(String),
    Network(IpNet),
}

impl HostsAndPort {
    fn fits(&self, host: &str, port: u16) -> bool {
        let is_host = match &self.hosts {
            Hosts::Name(name) => host == name,
            Hosts::Network(network) => host
                .parse::<IpAddr>()
                .is_ok_and(|address| network.contains(&address.to_canonical())),
        };
        is_host && self.port.is_none_or(|allowed| allowed == port)
    }
}

impl FromStr for Pattern {
    type Err = AllowedError;

    fn from_str(text: &str) -> Result<Self, AllowedError> {
        let wrong = || AllowedError(text.to_owned());
        if let Some(path) = text.strip_prefix(UNIX) {
            let pattern = match path.strip_suffix("/*") {
                Some(folder) => plain_path(folder).map(Self::Sockets),
                None => plain_path(path).map(Self::Socket),
            };
            return pattern.ok_or_else(wrong);
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = match port {
            "*" => None,
            port => {
                // `parse` would accept a sign.
                let is_number = port.bytes().all(|b| b.is_ascii_digit());
                let port = port.parse().ok().filter(|port| is_number && *port != 0);
                Some(port.ok_or_else(wrong)?)
            }
        };
        let bracketed = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let network = |text: &str| match text.parse::<IpNet>() {
            Ok(network) => Some(network.trunc()),
            Err(_) => text
                .parse::<IpAddr>()
                .ok()
                .map(|ip| ip.to_canonical().into()),
        };
        let hosts = match bracketed {
            Some(v6) => {
                let network = network(v6).filter(|_| v6.contains(':'));
                Hosts::Network(network.ok_or_else(wrong)?)
            }
            // Without brackets, an IPv6 address would lose its last group to the port.
            None if host.contains(':') => return Err(wrong()),
            None => match network(host) {
                Some(network) => Hosts::Network(network),
                None if is_name(host) => Hosts::Name(normal_host(host)),
                None => return Err(wrong()),
            },
        };
        Ok(Self::Tcp(HostsAndPort { hosts, port }))
    }
}

/// Whether a target can have it as its host.
fn is_name(host: &str) -> bool {
    !normal_host(host).is_empty()
        && host
            .chars()
            .all(|c| c.is_alphanumeric() || "-._".contains(c))
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (index, pattern) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            match pattern {
                Pattern::Tcp(hosts) => hosts.fmt(f)?,
                Pattern::Socket(path) => write!(f, "{UNIX}{}", path.display())?,
                Pattern::Sockets(folder) => write!(f, "{UNIX}{}/*", folder.display())?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for HostsAndPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hosts, port } = self;
        match hosts {
            Hosts::Name(name) => f.write_str(name)?,
            Hosts::Network(network) => {
                let is_one = network.prefix_len() == network.max_prefix_len();
                let (open, close) = match network {
                    IpNet::V4(_) => ("", ""),
                    IpNet::V6(_) => ("[", "]"),
                };
                if is_one {
                    write!(f, "{open}{}{close}", network.addr())?;
                } else {
                    write!(f, "{open}{network}{close}")?;
                }
            }
        }
        match port {
            Some(port) => write!(f, ":{port}"),
            None => f.write_str(":*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(patterns: &[&str]) -> Allowed {
        let mut allowed = Allowed::default();
        for pattern in patterns {
            allowed.add(pattern).unwrap();
        }
        allowed
    }

    fn fits(patterns: &[&str], host: &str, port: &str) -> bool {
        allowed(patterns).contains(&Target::tcp(host, port).unwrap())
    }

    #[test]
    fn hosts_and_ports_are_compared() {
        let all = [
            "127.0.0.1:*",
            "10.0.0.0/8:3389",
            "Host.name:22",
            "nas.lan.:22",
            "[fd00::/8]:80",
        ];
        for (host, port) in [
            ("127.0.0.1", "1"),
            ("10.200.3.4", "3389"),
            ("::ffff:10.200.3.4", "3389"),
            ("host.NAME", "22"),
            ("nas.lan.", "22"),
            ("[fd00::1]", "80"),
        ] {
            assert!(fits(&all, host, port), "{host} {port}");
        }
        for (host, port) in [
            ("127.0.0.2", "1"),
            ("11.0.0.1", "3389"),
            ("10.200.3.4", "3388"),
            ("host.name", "23"),
            ("a.host.name", "22"),
            // With the dot of the root and without it a name may be looked up in other domains.
            ("host.name.", "22"),
            ("nas.lan", "22"),
            // Names never count as addresses: where they lead is decided by somebody else.
            ("localhost", "1"),
            ("127.1", "1"),
            ("0x7f000001", "1"),
            ("fe00::1", "80"),
        ] {
            assert!(!fits(&all, host, port), "{host} {port}");
        }
        assert!(!fits(&[], "127.0.0.1", "1"));
        assert!(!allowed(&["127.0.0.1:*"]).contains(&Target::Echo));
        assert_eq!(
            allowed(&all).to_string(),
            "127.0.0.1:*, 10.0.0.0/8:3389, host.name:22, nas.lan.:22, [fd00::/8]:80"
        );
        assert_eq!(allowed(&["10.1.2.3/8:1"]).to_string(), "10.0.0.0/8:1");
        assert_eq!(Allowed::default().to_string(), "none");
    }

    #[cfg(unix)]
    #[test]
    fn unix_sockets_are_compared_as_they_stand() {
        let all = allowed(&["unix:/run/docker.sock", "unix:/run/app/*", "127.0.0.1:*"]);
        let fits = |path: &str| all.contains(&Target::at(&format!("unix:{path}")).unwrap());
        for path in [
            "/run/docker.sock",
            "/run//docker.sock",
            "/run/app/a",
            "/run/app/./b",
        ] {
            assert!(fits(path), "{path}");
        }
        for path in [
            "/run/docker.sock2",
            "/run/app",
            "/run/app/a/b",
            "/run/ap",
            "/127.0.0.1",
        ] {
            assert!(!fits(path), "{path}");
        }
        let shown = all.to_string();
        assert_eq!(shown, "unix:/run/docker.sock, unix:/run/app/*, 127.0.0.1:*");
        // No way around the comparison.
        for path in [
            "/run/app/../docker.sock",
            "run/docker.sock",
            "/run/app/",
            "/",
            "",
            "/a\u{1b}",
        ] {
            assert!(Target::at(&format!("unix:{path}")).is_err(), "{path}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for bad in [
            "unix:",
            "unix:run/x",
            "unix:/run/../x",
            "unix:/",
            "unix:/run/",
            "unix:*",
            "",
            "*",
            ":22",
            "host",
            "host:",
            "host:0",
            "host:+1",
            "host:65536",
            "host:ssh",
            "*:22",
            ".:22",
            "10.0.0.0/33:1",
            "10.0.0/8:1",
            "::1:22",
            "[::1]",
            "[10.0.0.1]:22",
            "[x]:1",
            "a b:1",
            "a=b:1",
            "user@host:1",
        ] {
            let error = Allowed::default().add(bad).unwrap_err();
            assert!(
                error
                    .to_string()
                    .starts_with(&format!("{bad:?} is not HOST:PORT"))
            );
        }
    }
}
