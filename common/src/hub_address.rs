//! The address of a hub: a host name, and a port if it is not the default.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::Ipv6Addr;

/// The port of HTTPS and of everything that runs over it.
pub const HTTPS_PORT: u16 = 443;
/// The port of MQTT over TLS.
pub const MQTTS_PORT: u16 = 8883;
/// The port of AMQP over TLS.
pub const AMQPS_PORT: u16 = 5671;

/// Why a text is not a hub's address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HubAddressError {
    /// There is no host name.
    #[error("the host name is empty")]
    Empty,
    /// The part after the colon is not a port number.
    #[error("{0:?} is not a port number")]
    BadPort(String),
    /// The host name has invalid characters.
    #[error("{0:?} is not a host name")]
    BadName(String),
}

/// `NAME[:PORT]`, as in `HostName=` of connection strings. The port is our extension: the SDKs
/// support only the fixed ports.
///
/// Two are equal where they lead to the same port: one that names 443 is the one that names none.
#[derive(Clone, Debug)]
pub struct HubAddress {
    name: String,
    port: Option<u16>,
}

impl HubAddress {
    /// Reads `NAME`, `NAME:PORT` or `[IPv6]:PORT`.
    ///
    /// # Errors
    /// [`HubAddressError`] names the invalid part.
    pub fn parse(text: &str) -> Result<Self, HubAddressError> {
        let (name, port) = if let Some(rest) = text.strip_prefix('[') {
            let (name, after) = rest
                .split_once(']')
                .ok_or_else(|| HubAddressError::BadName(text.to_owned()))?;
            let port = match after {
                "" => None,
                _ => Some(
                    after
                        .strip_prefix(':')
                        .ok_or_else(|| HubAddressError::BadName(text.to_owned()))?,
                ),
            };
            if name.parse::<Ipv6Addr>().is_err() {
                return Err(HubAddressError::BadName(text.to_owned()));
            }
            (name, port)
        } else {
            match text.split_once(':') {
                Some((name, port)) => (name, Some(port)),
                None => (text, None),
            }
        };
        // A trailing dot is allowed, but certificates and tokens do not have it.
        let name = name.strip_suffix('.').unwrap_or(name);
        if name.is_empty() {
            return Err(HubAddressError::Empty);
        }
        let is_name = name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-._:".contains(c));
        if !is_name || name.split('.').any(str::is_empty) {
            return Err(HubAddressError::BadName(name.to_owned()));
        }
        let port = port
            .map(|p| match p.parse::<u16>() {
                Ok(number) if number != 0 => Ok(number),
                _ => Err(HubAddressError::BadPort(p.to_owned())),
            })
            .transpose()?;
        Ok(Self {
            name: name.to_owned(),
            port,
        })
    }

    /// The same host name with another port.
    pub fn with_port(&self, port: u16) -> Self {
        Self {
            name: self.name.clone(),
            port: Some(port),
        }
    }

    /// The host name alone, as in TLS certificates and SAS tokens.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The port that was given, if any.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The HTTPS port: the one given, else 443.
    pub fn https_port(&self) -> u16 {
        self.port.unwrap_or(HTTPS_PORT)
    }

    /// The same as a person would write it.
    #[must_use]
    pub fn without_default_port(&self) -> Self {
        Self {
            port: self.port.filter(|port| *port != HTTPS_PORT),
            ..self.clone()
        }
    }

    /// The name as in a URL, IPv6 in brackets.
    pub fn url_host(&self) -> String {
        if self.name.contains(':') {
            format!("[{}]", self.name)
        } else {
            self.name.clone()
        }
    }

    /// The first label of the host name, which IoT Hub uses as the name of the hub.
    pub fn hub_name(&self) -> &str {
        self.name.split('.').next().unwrap_or(&self.name)
    }

    /// Whether the text, with or without a port, is this host; case does not matter.
    pub fn is_named_by(&self, text: &str) -> bool {
        // Some write IPv6 addresses without brackets.
        if let Ok(address) = text.parse::<Ipv6Addr>() {
            return self.name.parse() == Ok(address);
        }
        Self::parse(text).is_ok_and(|other| other.name.eq_ignore_ascii_case(&self.name))
    }
}

impl PartialEq for HubAddress {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, self.https_port()) == (&other.name, other.https_port())
    }
}

impl Eq for HubAddress {}

impl Hash for HubAddress {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.name, self.https_port()).hash(state);
    }
}

impl fmt::Display for HubAddress {
    /// As in `HostName=`: the port only when it is not 443.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) if port != HTTPS_PORT => write!(f, "{}:{port}", self.url_host()),
            _ => f.write_str(&self.url_host()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_and_ports() {
        let plain = HubAddress::parse("myhub.example.net").unwrap();
        assert_eq!(
            (plain.name(), plain.https_port()),
            ("myhub.example.net", 443)
        );
        assert_eq!(plain.hub_name(), "myhub");
        let local = HubAddress::parse("localhost:8443").unwrap();
        assert_eq!(local.to_string(), "localhost:8443");
        assert_eq!(HubAddress::parse("h:443").unwrap().to_string(), "h");
        let rooted = HubAddress::parse("myhub.example.net.:8443").unwrap();
        assert_eq!(rooted.to_string(), "myhub.example.net:8443");
        let v6 = HubAddress::parse("[::1]:8443").unwrap();
        assert_eq!((v6.name(), v6.to_string().as_str()), ("::1", "[::1]:8443"));
        for bad in [
            "", ".", ":1", "h:", "h:0", "h:99999", "a b", "[::1", "a/b", "h..", "a..b", ".a",
        ] {
            assert!(HubAddress::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_default_port_is_the_same_where_it_is_written_and_where_it_is_not() {
        let address = |text| HubAddress::parse(text).unwrap();
        assert_eq!(address("h:443"), address("h"));
        assert_ne!(address("h:8443"), address("h"));
        assert_ne!(address("h:443"), address("g"));
        let both = HashSet::from([address("h:443"), address("h"), address("h:1")]);
        assert_eq!(both.len(), 2);
        // Where a port was given, that is known.
        assert_eq!(address("h:443").port(), Some(443));
    }

    #[test]
    fn hosts_compare_without_case_and_port() {
        let hub = HubAddress::parse("MyHub.example.net:8443").unwrap();
        assert!(hub.is_named_by("myhub.EXAMPLE.net"));
        assert!(hub.is_named_by("myhub.example.net:8443"));
        assert!(!hub.is_named_by("other.example.net"));
        let v6 = HubAddress::parse("[::1]:8443").unwrap();
        assert!(v6.is_named_by("::1") && v6.is_named_by("[::1]") && v6.is_named_by("[::1]:8443"));
        assert!(!v6.is_named_by("::2"));
    }
}
