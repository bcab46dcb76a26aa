//! Which hosts a hub may name as streaming endpoints. The hub chooses the host to which both
//! proxies connect, and they may reach networks that the hub cannot: without this check, a hub
//! could make them connect to any port of an internal network.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::hub_address::HubAddress;
use crate::wire::streaming_endpoint::{StreamingEndpoint, StreamingEndpointError};

/// Domains of clouds whose hubs have their streaming endpoints at other names in the same domain,
/// such as `{hub}.{region}.streams.azure-devices.net` (`docs/protocol.md`, "Streaming endpoints").
const CLOUDS: [&str; 3] = ["azure-devices.net", "azure-devices.cn", "azure-devices.us"];

/// Why a streaming endpoint is not dialled.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The URL is not that of a streaming endpoint. It is not repeated: it may contain secrets.
    #[error("the streaming endpoint's URL is not a wss:// URL with a host")]
    BadUrl,
    /// The host is not allowed.
    #[error(
        "the hub names {host}:{port} as streaming endpoint, and only {allowed} may be; if that host is right, name it with --streaming-hosts"
    )]
    Host {
        /// The host of the URL.
        host: String,
        /// Its port.
        port: u16,
        /// What is allowed.
        allowed: String,
    },
}

/// The allowed hosts: the hub's own host and, for a hub in a cloud's domain, that domain; or the
/// configured patterns instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamingHosts(Vec<Pattern>);

impl StreamingHosts {
    /// For a device or service that uses these addresses of its hub; a device that connects through
    /// a gateway has two.
    pub fn new<'a>(
        hubs: impl IntoIterator<Item = &'a HubAddress>,
        instead: Option<&Patterns>,
    ) -> Self {
        if let Some(Patterns(patterns)) = instead
            && !patterns.is_empty()
        {
            return Self(patterns.clone());
        }
        let mut allowed = Vec::new();
        let mut allow = |hosts| {
            let pattern = Pattern { hosts, port: None };
            if !allowed.contains(&pattern) {
                allowed.push(pattern);
            }
        };
        for hub in hubs {
            let name = Host::of(hub.name());
            let cloud = CLOUDS.iter().find(|cloud| name.is_below(cloud));
            allow(Hosts::One(name));
            if let Some(cloud) = cloud {
                allow(Hosts::Below((*cloud).to_owned()));
            }
        }
        Self(allowed)
    }

    /// Parses a streaming endpoint's URL, if its host is allowed.
    ///
    /// # Errors
    /// [`EndpointError`].
    pub fn check(&self, url: &str) -> Result<StreamingEndpoint, EndpointError> {
        let endpoint = StreamingEndpoint::parse(url)
            .map_err(|_: StreamingEndpointError| EndpointError::BadUrl)?;
        let host = Host::of(endpoint.host());
        let is_allowed = |pattern: &Pattern| {
            pattern.hosts.contain(&host) && pattern.port.is_none_or(|port| port == endpoint.port())
        };
        if self.0.iter().any(is_allowed) {
            return Ok(endpoint);
        }
        Err(EndpointError::Host {
            host: host.to_string(),
            port: endpoint.port(),
            allowed: self.to_string(),
        })
    }
}

impl fmt::Display for StreamingHosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(&self.0, f)
    }
}

/// The patterns, with commas between.
fn list(patterns: &[Pattern], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (index, pattern) in patterns.iter().enumerate() {
        let separator = if index == 0 { "" } else { ", " };
        write!(f, "{separator}{pattern}")?;
    }
    Ok(())
}

/// A text is not a list of hosts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not NAME[:PORT], *.DOMAIN[:PORT] or * (IPv6 in brackets)")]
pub struct PatternError(String);

/// The value of `--streaming-hosts`: hosts separated by commas. An empty list is the same as no
/// option.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Patterns(Vec<Pattern>);

impl FromStr for Patterns {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let patterns = text.split(',').map(str::trim);
        let patterns = patterns.filter(|pattern| !pattern.is_empty());
        Ok(Self(patterns.map(str::parse).collect::<Result<_, _>>()?))
    }
}

impl fmt::Display for Patterns {
    /// A text that is parsed to the same patterns.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(&self.0, f)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    hosts: Hosts,
    port: Option<u16>,
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let error = || PatternError(text.to_owned());
        if text == "*" {
            return Ok(Self {
                hosts: Hosts::All,
                port: None,
            });
        }
        let domain = text.strip_prefix("*.");
        let address = HubAddress::parse(domain.unwrap_or(text)).map_err(|_| error())?;
        let host = Host::of(address.name());
        let hosts = match (domain, host) {
            (None, host) => Hosts::One(host),
            (Some(_), Host::Name(name)) => Hosts::Below(name),
            (Some(_), Host::Address(_)) => return Err(error()),
        };
        Ok(Self {
            hosts,
            port: address.port(),
        })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.hosts {
            Hosts::All => f.write_str("*")?,
            Hosts::One(host) => write!(f, "{host}")?,
            Hosts::Below(domain) => write!(f, "*.{domain}")?,
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Hosts {
    /// Any.
    All,
    /// This one.
    One(Host),
    /// All names below this domain, but not the domain itself.
    Below(String),
}

impl Hosts {
    fn contain(&self, host: &Host) -> bool {
        match self {
            Self::All => true,
            Self::One(one) => one == host,
            Self::Below(domain) => host.is_below(domain),
        }
    }
}

/// A host for comparison: names in lower case and without a trailing dot, addresses by value.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Address(IpAddr),
    Name(String),
}

impl Host {
    fn of(text: &str) -> Self {
        match text.parse::<IpAddr>() {
            Ok(address) => Self::Address(address.to_canonical()),
            Err(_) => {
                let name = text.strip_suffix('.').unwrap_or(text);
                Self::Name(name.to_ascii_lowercase())
            }
        }
    }

    fn is_below(&self, domain: &str) -> bool {
        match self {
            Self::Address(_) => false,
            Self::Name(name) => name
                .strip_suffix(domain)
                .and_then(|label| label.strip_suffix('.'))
                .is_some_and(|label| !label.is_empty()),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Address(address) => write!(f, "{address}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(hub: &str, patterns: &str) -> StreamingHosts {
        let hub = HubAddress::parse(hub).unwrap();
        StreamingHosts::new([&hub], Some(&patterns.parse().unwrap()))
    }

    fn allows(rule: &StreamingHosts, url: &str) -> bool {
        match rule.check(url) {
            Ok(_) => true,
            Err(EndpointError::Host { .. }) => false,
            Err(error) => panic!("{url}: {error}"),
        }
    }

    #[test]
    fn patterns_are_printed_as_they_are_given() {
        for text in ["", "*", "a.b:8443, *.c, [::1]:1"] {
            let patterns: Patterns = text.parse().unwrap();
            assert_eq!(patterns.to_string(), text);
        }
    }

    #[test]
    fn a_self_hosted_hub_may_name_only_itself() {
        let own = rule("hub.example.net:8443", "");
        for (url, expected) in [
            ("wss://hub.example.net:8443/bridges/x", true),
            ("wss://hub.example.net/bridges/x", true),
            ("wss://HUB.Example.NET./bridges/x", true),
            ("wss://sub.hub.example.net/", false),
            ("wss://other.example.net/", false),
            ("wss://hub.example.net.evil.org/", false),
            ("wss://evil-hub.example.net/", false),
            ("wss://hub.example.net../", false),
            ("wss://127.0.0.1:22/", false),
            ("wss://[::1]:22/", false),
            ("wss://169.254.169.254/", false),
            // Resolvers parse these as addresses.
            ("wss://2130706433/", false),
            ("wss://0x7f.1/", false),
            ("wss://localhost:8443/", false),
            ("wss://myhub.azure-devices.net/", false),
            ("wss://hub%2eexample.net/", false),
        ] {
            // Invalid URLs are refused too.
            let found = own.check(url).is_ok();
            assert_eq!(found, expected, "{url}");
        }
        let by_address = rule("[::1]:8443", "");
        assert!(allows(&by_address, "wss://[::1]:8443/x"));
        assert!(allows(&by_address, "wss://[0:0::1]/x"));
        assert!(!allows(&by_address, "wss://[::2]:8443/x"));
        let four = rule("127.0.0.1:8443", "");
        assert!(allows(&four, "wss://[::ffff:127.0.0.1]:8443/x"));
        assert!(!allows(&four, "wss://127.0.0.1.:8443/x"));
    }

    #[test]
    fn a_hub_in_a_cloud_may_name_hosts_of_its_domain() {
        let cloud = rule("MyHub.azure-devices.net", "");
        for (url, expected) in [
            (
                "wss://eastus2euap.eastus2euap-001.streams.azure-devices.net:443/b",
                true,
            ),
            ("wss://myhub.azure-devices.net/", true),
            ("wss://STREAMS.AZURE-DEVICES.NET./", true),
            ("wss://evilazure-devices.net/", false),
            ("wss://azure-devices.net/", false),
            ("wss://.azure-devices.net/", false),
            ("wss://streams.azure-devices.net.evil.org/", false),
            ("wss://streams.azure-devices.cn/", false),
            ("wss://10.0.0.1/", false),
        ] {
            assert_eq!(cloud.check(url).is_ok(), expected, "{url}");
        }
        for hub in ["h.azure-devices.cn", "h.azure-devices.us."] {
            let domain = hub.trim_end_matches('.').trim_start_matches('h');
            assert!(allows(&rule(hub, ""), &format!("wss://a.b{domain}/")));
        }
        // Names that only look like a cloud's.
        for hub in ["azure-devices.net", "h.evilazure-devices.net"] {
            assert!(
                !allows(&rule(hub, ""), "wss://s.azure-devices.net/"),
                "{hub}"
            );
        }
    }

    #[test]
    fn only_wss_without_a_user_name_is_allowed() {
        let all = rule("hub.example.net", "*");
        assert!(allows(&all, "wss://anything:1/"));
        for url in [
            "ws://hub.example.net/",
            "https://hub.example.net/",
            "hub.example.net:443",
            "wss://",
            "wss:///x",
            "wss://hub.example.net@evil.org/",
            "wss://evil.org@hub.example.net/",
            "wss://user:secret@hub.example.net/",
            "wss://hub.example.net:0/",
            "wss://hub.example.net:99999/",
            "wss://a b/",
            "",
        ] {
            let error = all.check(url).unwrap_err();
            assert!(matches!(error, EndpointError::BadUrl), "{url}: {error}");
            assert!(!error.to_string().contains("secret"));
        }
    }

    #[test]
    fn patterns_replace_the_rule() {
        let some = rule(
            "hub.example.net",
            " streams.example.net:443, *.Example.org.,10.0.0.5,[fd00::1]:8443 ",
        );
        for (url, expected) in [
            ("wss://streams.example.net/", true),
            ("wss://streams.example.net:8443/", false),
            ("wss://hub.example.net/", false),
            ("wss://a.b.example.org:1/", true),
            ("wss://example.org/", false),
            ("wss://evilexample.org/", false),
            ("wss://10.0.0.5:9/", true),
            ("wss://[fd00:0::1]:8443/", true),
            ("wss://[fd00::1]/", false),
        ] {
            assert_eq!(allows(&some, url), expected, "{url}");
        }
        let text = some
            .check("wss://hub.example.net/")
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("hub.example.net:443")
                && text.contains(
                    "only streams.example.net:443, *.example.org, 10.0.0.5, [fd00::1]:8443 may be"
                ),
            "{text}"
        );
        for wrong in [
            "a b",
            "*.",
            "*x",
            "a*.b",
            "**",
            "*.10.0.0.5",
            "h:0",
            "wss://h",
        ] {
            assert!(wrong.parse::<Patterns>().is_err(), "{wrong}");
        }
        assert_eq!(" , ".parse::<Patterns>(), Ok(Patterns::default()));
    }
}
