//! One local port and the stream name behind it: `[BIND:]PORT[:TARGET]`, read and bound.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use common::identity::{IdentityError, StreamName};
use common::report;
use tokio::net::TcpListener;

/// How long the system may take to resolve a bind name.
const RESOLVE: Duration = Duration::from_secs(10);

/// On which addresses a port listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bind {
    /// 127.0.0.1, and ::1 where there is one: this machine only.
    Loopback,
    /// This address.
    Address(IpAddr),
    /// The addresses of this name.
    Name(String),
}

/// Why a text is not `[BIND:]PORT[:TARGET]`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForwardError {
    /// The port is missing or no number from 0 to 65535.
    #[error("{0:?} is not a port; give [BIND:]PORT[:TARGET], for instance 2222 or 2222:ssh")]
    BadPort(String),
    /// The bind address cannot be one.
    #[error("{0:?} is not an address to listen on; IPv6 stands in brackets, as [::1]:2222")]
    BadBind(String),
    /// The target is no stream name. The parser of the command line shows this text and no cause,
    /// so the reason is part of it.
    #[error(
        "{0}; TARGET is a stream name, which the device-proxy maps to a host and port with --target"
    )]
    BadTarget(IdentityError),
}

/// `[BIND:]PORT[:TARGET]` as given; the target may be left to the default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardSpec {
    /// Where to listen.
    pub bind: Bind,
    /// On which port; 0 picks one.
    pub port: u16,
    /// The stream name.
    pub target: Option<StreamName>,
}

impl FromStr for ForwardSpec {
    type Err = ForwardError;

    /// All digits before the first colon is a port; else it is an address or a name.
    fn from_str(text: &str) -> Result<Self, ForwardError> {
        let (bind, rest) = split_bind(text)?;
        let (port, target) = match rest.split_once(':') {
            Some((port, target)) => (port, Some(parse_target(target)?)),
            None => (rest, None),
        };
        let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        Ok(Self {
            bind,
            port: port
                .parse()
                .ok()
                .filter(|_| digits)
                .ok_or_else(|| ForwardError::BadPort(port.to_owned()))?,
            target,
        })
    }
}

fn parse_target(text: &str) -> Result<StreamName, ForwardError> {
    StreamName::parse(text).map_err(ForwardError::BadTarget)
}

/// Takes the bind address off the front, if there is one.
fn split_bind(text: &str) -> Result<(Bind, &str), ForwardError> {
    let bad = || ForwardError::BadBind(text.to_owned());
    if let Some(inside) = text.strip_prefix('[') {
        let (address, rest) = inside.split_once("]:").ok_or_else(bad)?;
        let address: Ipv6Addr = address.parse().map_err(|_| bad())?;
        return Ok((Bind::Address(address.into()), rest));
    }
    let (first, rest) = text.split_once(':').unwrap_or((text, ""));
    if first.bytes().all(|b| b.is_ascii_digit()) && !first.is_empty() {
        return Ok((Bind::Loopback, text));
    }
    if !text.contains(':') {
        return Err(ForwardError::BadPort(text.to_owned()));
    }
    if first.eq_ignore_ascii_case("localhost") {
        return Ok((Bind::Loopback, rest));
    }
    if let Ok(address) = first.parse::<Ipv4Addr>() {
        return Ok((Bind::Address(address.into()), rest));
    }
    let is_name = first
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
    // Digits and dots alone are a mistyped address, and hexadecimal ones an IPv6 address
    // without its brackets.
    let has_letters = first.chars().any(|c| c.is_ascii_alphabetic());
    if first.is_empty() || !is_name || !has_letters || text.parse::<Ipv6Addr>().is_ok() {
        return Err(bad());
    }
    Ok((Bind::Name(first.to_owned()), rest))
}

/// A local port to listen on and the stream name of its connections; nothing left open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// Where to listen.
    pub bind: Bind,
    /// On which port; 0 picks one.
    pub port: u16,
    /// The stream name.
    pub name: StreamName,
}

/// A port that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {place}{}", advice(source))]
pub struct BindError {
    /// Where.
    place: String,
    /// The system's error.
    #[source]
    source: io::Error,
}

/// What to do about it, if that is known.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            ": another program listens there; stop it or choose another port (0 picks a free one)"
        }
        io::ErrorKind::PermissionDenied => {
            ": ports below 1024 need privileges; choose a larger one"
        }
        io::ErrorKind::AddrNotAvailable => {
            ": this machine does not have the address; choose another"
        }
        _ => "",
    }
}

impl Forward {
    /// Binds the port on all its addresses; at least one. Dropping the future closes those that
    /// are bound.
    ///
    /// # Errors
    /// [`BindError`] names the place and what to do.
    pub async fn listen(&self) -> Result<Vec<TcpListener>, BindError> {
        match &self.bind {
            Bind::Address(ip) => Ok(vec![bind((*ip, self.port).into()).await?]),
            Bind::Loopback => self.listen_on_loopback().await,
            Bind::Name(name) => {
                let failed = |source| BindError {
                    place: format!("{name}:{}", self.port),
                    source,
                };
                let lookup = tokio::net::lookup_host((name.as_str(), self.port));
                let addresses = tokio::time::timeout(RESOLVE, lookup)
                    .await
                    .map_err(|_| failed(io::ErrorKind::TimedOut.into()))?
                    .map_err(failed)?;
                let mut listeners: Vec<TcpListener> = Vec::new();
                for mut address in addresses {
                    if let Some(first) = listeners.first()
                        && let Ok(local) = first.local_addr()
                    {
                        address.set_port(local.port());
                    }
                    listeners.push(bind(address).await?);
                }
                if listeners.is_empty() {
                    return Err(failed(io::ErrorKind::NotFound.into()));
                }
                Ok(listeners)
            }
        }
    }

    /// IPv4 decides; IPv6 is welcome, since clients try ::1 first for "localhost".
    async fn listen_on_loopback(&self) -> Result<Vec<TcpListener>, BindError> {
        let v4 = match bind((Ipv4Addr::LOCALHOST, self.port).into()).await {
            // A machine without IPv4.
            Err(error) if error.source.kind() == io::ErrorKind::AddrNotAvailable => {
                return Ok(vec![bind((Ipv6Addr::LOCALHOST, self.port).into()).await?]);
            }
            result => result?,
        };
        let port = v4.local_addr().map_or(self.port, |address| address.port());
        let mut listeners = vec![v4];
        match bind((Ipv6Addr::LOCALHOST, port).into()).await {
            Ok(v6) => listeners.push(v6),
            Err(error) if error.source.kind() == io::ErrorKind::AddrInUse => {
                tracing::warn!(
                    "another program listens on [::1]:{port}; connect to 127.0.0.1:{port}, not to localhost"
                );
            }
            Err(error) => tracing::debug!("no IPv6 loopback: {}", report::chain(&error)),
        }
        Ok(listeners)
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| BindError {
            place: address.to_string(),
            source,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_specifications() {
        let v4 = |text: &str| Bind::Address(text.parse().unwrap());
        for (text, bind, port, target) in [
            ("2222", Bind::Loopback, 2222, None),
            ("0", Bind::Loopback, 0, None),
            ("2222:ssh", Bind::Loopback, 2222, Some("ssh")),
            ("2222:22", Bind::Loopback, 2222, Some("22")),
            ("localhost:2222", Bind::Loopback, 2222, None),
            (
                "LocalHost:2222:a.b-c_d",
                Bind::Loopback,
                2222,
                Some("a.b-c_d"),
            ),
            ("0.0.0.0:2222:rdp", v4("0.0.0.0"), 2222, Some("rdp")),
            ("127.0.0.1:0", v4("127.0.0.1"), 0, None),
            ("[::1]:2222:ssh", v4("::1"), 2222, Some("ssh")),
            ("[::]:2222", v4("::"), 2222, None),
            ("my-host:2222", Bind::Name("my-host".into()), 2222, None),
        ] {
            let spec: ForwardSpec = text.parse().unwrap();
            assert_eq!(spec.bind, bind, "{text}");
            assert_eq!(spec.port, port, "{text}");
            assert_eq!(
                spec.target.as_ref().map(StreamName::as_str),
                target,
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_specification() {
        for bad in [
            "",
            ":",
            "ssh",
            "99999",
            "2222:",
            "2222:a/b",
            "2222:localhost:22",
            "1.2.3.4",
            "1.2.3.999:1",
            ":2222",
            "::1:2222",
            "[::1]",
            "[::1]2222",
            "[x]:1",
            "a b:1",
            "host:",
            "host:x",
            "host:+1",
            "-1",
            "fe80::1:2222",
        ] {
            assert!(bad.parse::<ForwardSpec>().is_err(), "{bad}");
        }
        let error = "2222:localhost:22".parse::<ForwardSpec>().unwrap_err();
        assert!(error.to_string().contains("--target"), "{error}");
    }

    fn forward(bind: Bind, port: u16) -> Forward {
        Forward {
            bind,
            port,
            name: StreamName::parse("TestStream").unwrap(),
        }
    }

    #[tokio::test]
    async fn loopback_is_one_port_on_both_families() {
        let listeners = forward(Bind::Loopback, 0).listen().await.unwrap();
        let ports: Vec<u16> = listeners
            .iter()
            .map(|listener| listener.local_addr().unwrap().port())
            .collect();
        assert!(ports.iter().all(|port| *port == ports[0] && *port != 0));
        assert!(listeners[0].local_addr().unwrap().is_ipv4());
    }

    #[tokio::test]
    async fn a_port_in_use_is_one_sentence() {
        let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = other.local_addr().unwrap().port();
        let error = forward(Bind::Loopback, port).listen().await.unwrap_err();
        let shown = report::chain(&error);
        assert!(
            shown.starts_with(&format!(
                "cannot listen on 127.0.0.1:{port}: another program"
            )),
            "{shown}"
        );
    }
}
