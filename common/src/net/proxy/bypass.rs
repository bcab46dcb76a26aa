//! `NO_PROXY`: which hosts are reached without the proxy. As curl reads it: entries with commas or
//! blanks between; `*` for all hosts; a name stands for itself and everything below it, with or
//! without a leading dot (or `*.`); an address, or a network in CIDR notation, for hosts that are
//! given by address. Beyond curl, an entry with a port is for that port only, as in other tools.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// The hosts that are reached without a proxy. Any text is valid; an entry that cannot match
/// anything is ignored, since the variable is written for other programs, too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NoProxy(Vec<Entry>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    hosts: Hosts,
    /// For this port only.
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Hosts {
    All,
    Network(IpNet),
    /// A name and those below it; in lower case, without dots around it.
    Domain(String),
}

impl NoProxy {
    /// Reads the list.
    pub fn parse(text: &str) -> Self {
        let entries = text.split([',', ' ', '\t', '\r', '\n']);
        Self(entries.filter_map(Entry::parse).collect())
    }

    /// Whether this host, a name or an address without brackets, is reached without a proxy.
    pub fn has(&self, host: &str, port: u16) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        let address = host.parse::<IpAddr>().ok();
        self.0.iter().any(|entry| {
            entry.port.is_none_or(|only| only == port)
                && match (&entry.hosts, address) {
                    (Hosts::All, _) => true,
                    (Hosts::Network(network), Some(address)) => network.contains(&address),
                    (Hosts::Domain(domain), None) => is_within(host, domain),
                    _ => false,
                }
        })
    }
}

/// Never fails.
impl FromStr for NoProxy {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self::parse(text))
    }
}

/// Whether a name is the domain, or below it.
fn is_within(name: &str, domain: &str) -> bool {
    let Some(start) = name.len().checked_sub(domain.len()) else {
        return false;
    };
    let (before, end) = match (name.get(..start), name.get(start..)) {
        (Some(before), Some(end)) => (before, end),
        _ => return false,
    };
    end.eq_ignore_ascii_case(domain) && (before.is_empty() || before.ends_with('.'))
}

impl Entry {
    fn parse(text: &str) -> Option<Self> {
        if let Some(hosts) = Hosts::parse(text) {
            return Some(Self { hosts, port: None });
        }
        let (hosts, port) = text.rsplit_once(':')?;
        Some(Self {
            hosts: Hosts::parse(hosts)?,
            port: Some(port.parse().ok().filter(|port| *port != 0)?),
        })
    }
}

impl Hosts {
    fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::All);
        }
        let bare = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            // With a network's length behind the brackets, perhaps.
            Some((address, length)) if length.is_empty() || length.starts_with('/') => {
                format!("{address}{length}")
            }
            _ => text.to_owned(),
        };
        if let Ok(network) = bare.parse::<IpNet>() {
            return Some(Self::Network(network));
        }
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Some(Self::Network(address.into()));
        }
        let domain = text.strip_prefix("*.").unwrap_or(text).trim_matches('.');
        let is_name = |c: char| !"[]/:*".contains(c);
        (!domain.is_empty() && domain.chars().all(is_name))
            .then(|| Self::Domain(domain.to_ascii_lowercase()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn has(list: &str, host: &str) -> bool {
        NoProxy::parse(list).has(host, 443)
    }

    #[test]
    fn names_stand_for_what_is_below_them() {
        for list in [
            "example.com",
            ".example.com",
            "*.example.com",
            "EXAMPLE.com.",
            "a, example.com b",
        ] {
            for host in [
                "example.com",
                "hub.example.com",
                "HUB.Example.Com",
                "a.b.example.com.",
            ] {
                assert!(has(list, host), "{list} {host}");
            }
            for host in [
                "notexample.com",
                "example.com.org",
                "com",
                "10.0.0.1",
                "xexample.com",
            ] {
                assert!(!has(list, host), "{list} {host}");
            }
        }
        assert!(has("*", "anything") && has("*", "::1") && has("a,*", "b"));
        assert!(!has("", "anything") && !has(" , ", "anything") && !has("a*b", "a*b"));
        assert!(has("localhost", "localhost"));
    }

    #[test]
    fn addresses_and_networks_match_hosts_given_by_address() {
        for (list, host) in [
            ("10.0.0.0/8", "10.1.2.3"),
            ("10.1.2.3", "10.1.2.3"),
            ("10.1.2.3/8", "10.9.9.9"),
            ("fd00::/8", "fd12::1"),
            ("[fd00::]/8", "fd12::1"),
            ("::1", "::1"),
            ("[::1]", "::1"),
        ] {
            assert!(has(list, host), "{list} {host}");
        }
        for (list, host) in [
            ("10.0.0.0/8", "11.1.2.3"),
            ("10.0.0.0/33", "10.1.2.3"),
            ("10.0.0.0/", "10.0.0.0"),
            ("10.0.0.0/8", "10.0.0.1.example.com"),
            ("10", "10.0.0.1"),
            ("::/0", "10.0.0.1"),
        ] {
            assert!(!has(list, host), "{list} {host}");
        }
    }

    #[test]
    fn an_entry_with_a_port_is_for_that_port() {
        let list = NoProxy::parse("example.com:8443,10.0.0.0/8:443,[::1]:443,*:8883");
        assert!(list.has("hub.example.com", 8443) && !list.has("hub.example.com", 443));
        assert!(list.has("10.0.0.1", 443) && !list.has("10.0.0.1", 444));
        assert!(list.has("::1", 443) && !list.has("::1", 444));
        assert!(list.has("anything", 8883));
        assert!(!NoProxy::parse("example.com:0 example.com:x").has("example.com", 0));
    }

    proptest! {
        #[test]
        fn no_list_panics(list in ".*", host in ".*", port: u16) {
            let _ = NoProxy::parse(&list).has(&host, port);
        }

        #[test]
        fn a_domain_covers_exactly_what_ends_with_it_at_a_dot(
            before in "[a-z.é-]{0,8}",
            domain in "[a-z]{1,5}(\\.[a-z]{1,5}){0,2}",
        ) {
            let host = format!("{before}{domain}");
            let expected = before.is_empty() || before.ends_with('.');
            prop_assert_eq!(has(&domain, &host), expected);
        }

        #[test]
        fn a_network_covers_exactly_its_addresses(network: u32, length in 0u8..=32, address: u32) {
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            let list = format!("{}/{length}", std::net::Ipv4Addr::from(network));
            let host = std::net::Ipv4Addr::from(address).to_string();
            prop_assert_eq!(has(&list, &host), network & mask == address & mask);
        }
    }
}
