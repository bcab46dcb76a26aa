//! A local port and the addresses on which it listens: `[BIND:]PORT`, read and bound.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use common::report;
use tokio::net::TcpListener;

use super::ForwardError;

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

/// A local port, and the addresses on which it listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// On which addresses.
    pub bind: Bind,
    /// On which port; 0 picks one.
    pub port: u16,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.bind {
            Bind::Loopback => write!(f, "{}", self.port),
            Bind::Address(ip) => write!(f, "{}", SocketAddr::new(*ip, self.port)),
            Bind::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

impl FromStr for Place {
    type Err = ForwardError;

    /// Reads `[BIND:]PORT`.
    fn from_str(text: &str) -> Result<Self, ForwardError> {
        match Self::split_off(text) {
            Ok((place, None)) => Ok(place),
            // Its text would speak of a target.
            Ok((_, Some(_))) | Err(ForwardError::BadPort(_)) => {
                Err(ForwardError::BadPlace(text.to_owned()))
            }
            Err(error) => Err(error),
        }
    }
}

impl Place {
    /// Takes `[BIND:]PORT` off the front of a text, and the colon behind it. What has only digits
    /// before its first colon begins with the port, else with an address or a name.
    pub(super) fn split_off(text: &str) -> Result<(Self, Option<&str>), ForwardError> {
        let (bind, rest) = split_bind(text)?;
        let (port, rest) = match rest.split_once(':') {
            Some((port, rest)) => (port, Some(rest)),
            None => (rest, None),
        };
        let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        let number = port.parse().ok().filter(|_| digits);
        let port = number.ok_or_else(|| ForwardError::BadPort(port.to_owned()))?;
        Ok((Self { bind, port }, rest))
    }

    /// Whether both cannot be bound: the same port on addresses of which one is, or contains, the
    /// other. What a name stands for is not known here.
    pub fn overlaps(&self, other: &Self) -> bool {
        if self.port == 0 || self.port != other.port {
            return false;
        }
        match (&self.bind, &other.bind) {
            (Bind::Name(one), Bind::Name(other)) => one.eq_ignore_ascii_case(other),
            (Bind::Name(_), _) | (_, Bind::Name(_)) => false,
            (Bind::Loopback, Bind::Loopback) => true,
            (Bind::Address(one), Bind::Address(other)) => covers(*one, *other),
            (Bind::Loopback, Bind::Address(ip)) | (Bind::Address(ip), Bind::Loopback) => {
                covers(*ip, Ipv4Addr::LOCALHOST.into()) || covers(*ip, Ipv6Addr::LOCALHOST.into())
            }
        }
    }

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

/// Whether the addresses are the same, or one of them stands for all: for IPv6 with IPv4.
fn covers(one: IpAddr, other: IpAddr) -> bool {
    let is_all_of =
        |all: IpAddr, of: IpAddr| all.is_unspecified() && (all.is_ipv6() || of.is_ipv4());
    one == other || is_all_of(one, other) || is_all_of(other, one)
}

async fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| BindError {
            place: address.to_string(),
            source,
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_and_shown() {
        for text in ["1080", "127.0.0.1:0", "[::1]:2222", "my-host:22"] {
            assert_eq!(text.parse::<Place>().unwrap().to_string(), text);
        }
        assert_eq!("localhost:9".parse::<Place>().unwrap().to_string(), "9");
        for bad in ["", "x", "1080:ssh", "0.0.0.0", "::1:5", "1080:"] {
            assert!(bad.parse::<Place>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_cannot_be_bound_together() {
        let overlap = |one: &str, other: &str| {
            let [one, other] = [one, other].map(|it| it.parse::<Place>().unwrap());
            assert_eq!(one.overlaps(&other), other.overlaps(&one));
            one.overlaps(&other)
        };
        for (one, other) in [
            ("1", "1"),
            ("1", "127.0.0.1:1"),
            ("1", "[::1]:1"),
            ("1", "0.0.0.0:1"),
            ("10.0.0.1:1", "[::]:1"),
            ("host:1", "HOST:1"),
        ] {
            assert!(overlap(one, other), "{one} {other}");
        }
        for (one, other) in [
            ("0", "0"),
            ("1", "2"),
            ("1", "127.0.0.2:1"),
            ("[::1]:1", "0.0.0.0:1"),
            ("host:1", "1"),
        ] {
            assert!(!overlap(one, other), "{one} {other}");
        }
    }

    #[tokio::test]
    async fn loopback_is_one_port_on_both_families() {
        let listeners = Place {
            bind: Bind::Loopback,
            port: 0,
        }
        .listen()
        .await
        .unwrap();
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
        let error = Place {
            bind: Bind::Loopback,
            port,
        }
        .listen()
        .await
        .unwrap_err();
        let shown = report::chain(&error);
        assert!(
            shown.starts_with(&format!(
                "cannot listen on 127.0.0.1:{port}: another program"
            )),
            "{shown}"
        );
    }
}
