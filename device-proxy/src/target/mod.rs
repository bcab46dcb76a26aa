//! What a stream can reach: a local TCP service, or the built-in echo.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv6Addr;

use common::net::{DialError, Dialer};
use common::session::STREAM_PREFIX;
use tokio::net::TcpStream;

use crate::limits;

/// The name of the built-in echo target.
pub const ECHO: &str = "echo";

/// One target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A TCP service.
    Tcp {
        /// Host name or address, IPv6 without brackets.
        host: String,
        /// Port.
        port: u16,
    },
    /// Sends back what comes.
    Echo,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Echo => f.write_str("built-in echo"),
        }
    }
}

/// Why a target cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Not `[NAME=]HOST:PORT`.
    #[error("{0:?} is not [NAME=]HOST:PORT (IPv6 in brackets)")]
    Form(String),
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
    /// A TCP target from host and port as the person wrote them.
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
        if !is_host {
            return Err(TargetError::Host(host.to_owned()));
        }
        match port.parse() {
            Ok(port) if port != 0 => Ok(Self::Tcp {
                host: bare.to_owned(),
                port,
            }),
            _ => Err(TargetError::Port(port.to_owned())),
        }
    }

    /// Reads `[NAME=]HOST:PORT`.
    fn parse(text: &str) -> Result<(Option<String>, Self), TargetError> {
        let (name, address) = match text.split_once('=') {
            Some((name, address)) => (Some(name), address),
            None => (None, text),
        };
        if let Some(name) = name
            && common::identity::StreamName::parse(name).is_err()
        {
            return Err(TargetError::Name(name.to_owned()));
        }
        if let Some(name) = name
            && name.starts_with(STREAM_PREFIX)
        {
            return Err(TargetError::Reserved(name.to_owned()));
        }
        let form = || TargetError::Form(text.to_owned());
        let (host, port) = address.rsplit_once(':').ok_or_else(form)?;
        // An IPv6 address without brackets would lose its last group to the port.
        if host.contains(':') && !host.starts_with('[') {
            return Err(form());
        }
        Ok((name.map(str::to_owned), Self::tcp(host, port)?))
    }

    /// Connects to a TCP target. May be dropped.
    ///
    /// # Errors
    /// [`DialError`], within [`limits::TARGET_CONNECT`].
    pub async fn dial(dialer: &Dialer, host: &str, port: u16) -> Result<TcpStream, DialError> {
        dialer.tcp(host, port, limits::TARGET_CONNECT).await
    }
}

/// All targets, and the rule by which a stream's name selects one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Targets {
    named: BTreeMap<String, Target>,
    unnamed: Option<Target>,
    echo: bool,
}

impl Targets {
    /// Starts with the `--target` options and `--echo`.
    ///
    /// # Errors
    /// [`TargetError`] names the option at fault.
    pub fn parse(options: &[String], echo: bool) -> Result<Self, TargetError> {
        let mut targets = Self {
            echo,
            ..Self::default()
        };
        for option in options {
            targets.add(option)?;
        }
        Ok(targets)
    }

    /// Adds a target from `[NAME=]HOST:PORT`.
    ///
    /// # Errors
    /// [`TargetError`], also when there is one of this name.
    pub fn add(&mut self, text: &str) -> Result<(), TargetError> {
        match Target::parse(text)? {
            (None, target) => self.set_unnamed(target),
            (Some(name), target) => {
                let is_taken = self.echo && name == ECHO;
                if self.named.insert(name.clone(), target).is_some() || is_taken {
                    return Err(TargetError::Repeated(name));
                }
                Ok(())
            }
        }
    }

    /// Adds the target for streams of all other names.
    ///
    /// # Errors
    /// [`TargetError::TwoUnnamed`] when there is one.
    pub fn set_unnamed(&mut self, target: Target) -> Result<(), TargetError> {
        match self.unnamed.replace(target) {
            None => Ok(()),
            Some(_) => Err(TargetError::TwoUnnamed),
        }
    }

    /// Whether there is nothing to reach.
    pub fn is_empty(&self) -> bool {
        self.named.is_empty() && self.unnamed.is_none() && !self.echo
    }

    /// The target of a stream: exact name first, then the unnamed target. A stream
    /// named `echo` never falls to the unnamed target; with only the echo target,
    /// every name echoes. `None`: reject.
    pub fn select(&self, name: &str) -> Option<&Target> {
        if let Some(target) = self.named.get(name) {
            return Some(target);
        }
        let only_echo = self.named.is_empty() && self.unnamed.is_none();
        if self.echo && (name == ECHO || only_echo) {
            return Some(&Target::Echo);
        }
        if name == ECHO {
            return None;
        }
        self.unnamed.as_ref()
    }

    /// One line for the log: what can be reached.
    pub fn summary(&self) -> String {
        let mut parts: Vec<String> = self
            .named
            .iter()
            .map(|(name, target)| format!("{name} -> {target}"))
            .collect();
        if let Some(target) = &self.unnamed {
            parts.push(format!("any other name -> {target}"));
        }
        if self.echo {
            parts.push(format!("{ECHO} -> {}", Target::Echo));
        }
        parts.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(options: &[&str], echo: bool) -> Result<Targets, TargetError> {
        let options: Vec<String> = options.iter().map(|&text| text.to_owned()).collect();
        Targets::parse(&options, echo)
    }

    fn shown(targets: &Targets, name: &str) -> Option<String> {
        targets.select(name).map(ToString::to_string)
    }

    #[test]
    fn names_select() {
        let both = targets(&["ssh=localhost:22", "[::1]:3389"], false).unwrap();
        assert_eq!(shown(&both, "ssh").unwrap(), "localhost:22");
        assert_eq!(
            shown(&both, "SSH").unwrap(),
            "[::1]:3389",
            "names have case"
        );
        assert_eq!(shown(&both, "TestStream").unwrap(), "[::1]:3389");
        assert_eq!(
            shown(&both, "echo"),
            None,
            "echo never falls to the unnamed target"
        );
        let named = targets(&["ssh=localhost:22"], true).unwrap();
        assert_eq!(shown(&named, "TestStream"), None);
        assert_eq!(named.select("echo"), Some(&Target::Echo));
        let echo = targets(&[], true).unwrap();
        assert_eq!(echo.select("TestStream"), Some(&Target::Echo));
        let own = targets(&["echo=localhost:7"], false).unwrap();
        assert_eq!(shown(&own, "echo").unwrap(), "localhost:7");
    }

    #[test]
    fn mistakes_are_named() {
        use TargetError as E;
        let error = |text: &str| targets(&[text], false).unwrap_err();
        assert!(matches!(error("localhost"), E::Form(_)));
        assert!(matches!(error("::1:22"), E::Form(_)));
        assert!(matches!(error("a b=h:1"), E::Name(_)));
        assert!(matches!(error("=h:1"), E::Name(_)));
        assert!(matches!(error("_session.x=h:1"), E::Reserved(_)));
        assert!(matches!(error("h:0"), E::Port(_)));
        assert!(matches!(error("h:ssh"), E::Port(_)));
        assert!(matches!(error(":22"), E::Form(_)));
        assert_eq!(targets(&["h:1", "h:2"], false), Err(E::TwoUnnamed));
        assert_eq!(
            targets(&["a=h:1", "a=h:2"], false),
            Err(E::Repeated("a".into()))
        );
        assert_eq!(
            targets(&["echo=h:1"], true),
            Err(E::Repeated("echo".into()))
        );
        assert!(targets(&[], false).unwrap().is_empty());
    }
}
