//! What a stream can reach: a local TCP service, a Unix socket, or the built-in echo.

mod examine;
mod hosts;
mod reach;
mod targets;

pub use examine::{Fault, Found};
pub(crate) use hosts::{is_loopback_name, is_this_machine, normal as normal_host};
pub use reach::{ReachError, Reached};
pub use targets::Targets;

use std::fmt;
use std::net::Ipv6Addr;
use std::path::{Component, Path, PathBuf};

use common::session::STREAM_PREFIX;

/// The name of the built-in echo target.
pub const ECHO: &str = "echo";
/// Stands for the target without a name where targets are listed by their names.
pub const ANY: &str = "*";
/// Before the path of a Unix socket.
pub const UNIX: &str = "unix:";

/// One target.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// A TCP service.
    Tcp {
        /// Host name or address, IPv6 without brackets, in one form: see [`Target::tcp`].
        host: String,
        /// Port.
        port: u16,
    },
    /// A Unix socket, by its absolute path without `..`.
    Unix(PathBuf),
    /// Sends back what comes.
    Echo,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
            Self::Echo => f.write_str("built-in echo"),
        }
    }
}

/// Why a target cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Not `[NAME=]HOST:PORT`.
    #[error("{0:?} is not [NAME=]HOST:PORT (IPv6 in brackets) or [NAME=]unix:PATH")]
    Form(String),
    /// Not a path that says where a socket is.
    #[error("{0:?} is not the absolute path of a Unix socket, without `..`")]
    Path(String),
    /// This system has none.
    #[error("{0:?} is a Unix socket, and device-proxy reaches none on this system; give HOST:PORT")]
    NoUnixSockets(String),
    /// No host name.
    #[error("{0:?} is not the name or address of a host; a target is [NAME=]HOST:PORT")]
    Host(String),
    /// A user before the host, as for ssh.
    #[error(
        "{0:?} names a user; a target is a host and a port alone, and the user is named by the program that connects (ssh user@localhost)"
    )]
    User(String),
    /// The port stands behind the host, and once more.
    #[error("{0:?} already has a port: give the host and the port {1} apart, or --target {0}")]
    PortTwice(String, String),
    /// The name has other characters than stream names.
    #[error("the target's name {0:?} may have letters, digits and . _ - only")]
    Name(String),
    /// The name is one of ours.
    #[error(
        "a target's name may not begin with {STREAM_PREFIX} as {0:?} does: streams of session mode do"
    )]
    Reserved(String),
    /// No port number.
    #[error("{0:?} is not a port number (1 to 65535)")]
    Port(String),
    /// The same name twice.
    #[error("there are two targets named {0:?}")]
    Repeated(String),
    /// Two targets without a name.
    #[error("there are two targets without a name; name one of them with --target NAME=HOST:PORT")]
    TwoUnnamed,
}

impl Target {
    /// A TCP target from host and port as the person wrote them. However a host is written, it is
    /// kept in one form: in lower case, an IPv4 address in IPv6 form as such.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn tcp(host: &str, port: &str) -> Result<Self, TargetError> {
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        if host.contains('@') {
            return Err(TargetError::User(host.to_owned()));
        }
        // Who writes HOST:PORT PORT has given the port twice.
        if let Some((_, twice)) = host.rsplit_once(':')
            && bare == host
            && bare.parse::<Ipv6Addr>().is_err()
        {
            return Err(TargetError::PortTwice(host.to_owned(), twice.to_owned()));
        }
        let is_address = bare.contains(':');
        let fits = |c: char| c.is_alphanumeric() || "-._".contains(c);
        // A zone may stand behind an IPv6 address.
        let is_host = bare
            .chars()
            .all(|c| fits(c) || is_address && ":%".contains(c));
        if bare.is_empty() || bare.contains(['[', ']', '/', '=']) {
            return Err(TargetError::Form(format!("{host}:{port}")));
        }
        let kept = hosts::normal(bare);
        if !is_host || kept.is_empty() {
            return Err(TargetError::Host(host.to_owned()));
        }
        match port.parse() {
            Ok(port) if port != 0 => Ok(Self::Tcp { host: kept, port }),
            _ => Err(TargetError::Port(port.to_owned())),
        }
    }

    /// Whether both lead to the same place: a name is the same with the dot of the root and without
    /// it, and with one port, all names and addresses by which this
    /// machine reaches itself do. What listens on one of them mostly listens on the others, and what
    /// holds for it shall not depend on how it is written.
    pub fn is_same_place<'a>(&'a self, other: &'a Self) -> bool {
        let loops_back = |target: &Self| match target {
            Self::Tcp { host, port } => is_this_machine(host).then_some(*port),
            Self::Unix(_) | Self::Echo => None,
        };
        let bare = |target: &'a Self| match target {
            Self::Tcp { host, port } => Some((host.trim_end_matches('.'), *port)),
            Self::Unix(_) | Self::Echo => None,
        };
        self == other
            || bare(self).is_some_and(|it| bare(other) == Some(it))
            || loops_back(self).is_some_and(|port| loops_back(other) == Some(port))
    }

    /// Reads `[NAME=]HOST:PORT` or `[NAME=]unix:PATH`.
    fn parse(text: &str) -> Result<(Option<String>, Self), TargetError> {
        let (name, address) = match text.split_once('=') {
            // A path may have one.
            Some((name, address)) if !name.starts_with(UNIX) => (Some(name), address),
            _ => (None, text),
        };
        if let Some(name) = name {
            checked_name(name)?;
        }
        Ok((name.map(str::to_owned), Self::at(address)?))
    }

    /// Reads `HOST:PORT` or `unix:PATH`.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn at(address: &str) -> Result<Self, TargetError> {
        if let Some(path) = address.strip_prefix(UNIX) {
            return Self::unix(path);
        }
        let form = || TargetError::Form(address.to_owned());
        let (host, port) = address.rsplit_once(':').ok_or_else(form)?;
        // An IPv6 address without brackets would lose its last group to the port.
        if host.contains(':') && !host.starts_with('[') {
            return Err(form());
        }
        Self::tcp(host, port)
    }

    /// A Unix socket. Paths are compared as they stand, so they say by themselves where they lead.
    fn unix(path: &str) -> Result<Self, TargetError> {
        if cfg!(not(unix)) {
            return Err(TargetError::NoUnixSockets(path.to_owned()));
        }
        plain_path(path)
            .map(Self::Unix)
            .ok_or_else(|| TargetError::Path(path.to_owned()))
    }
}

/// An absolute path of a file, without `..`; repeated slashes and `.` are removed.
pub fn plain_path(text: &str) -> Option<PathBuf> {
    let path = Path::new(text);
    let is_plain = path
        .components()
        .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    let is_file = !text.ends_with('/') && path.file_name().is_some();
    let is_printable = !text.chars().any(common::outside::is_unprintable);
    (path.is_absolute() && is_plain && is_file && is_printable).then(|| path.components().collect())
}

/// Checks that a target can have this name.
///
/// # Errors
/// [`TargetError`].
pub fn checked_name(name: &str) -> Result<(), TargetError> {
    if common::identity::StreamName::parse(name).is_err() {
        return Err(TargetError::Name(name.to_owned()));
    }
    if name.starts_with(STREAM_PREFIX) {
        return Err(TargetError::Reserved(name.to_owned()));
    }
    Ok(())
}
