//! Which addresses a target's name may resolve to. The names are the device's owner's, or come from
//! the cloud within `allow-cloud`; where a name leads is decided by a resolver, which is neither.

use std::fmt;
use std::net::IpAddr;

use common::network::canonical;
use ipnet::IpNet;

use super::Allowed;
use crate::target::{Target, is_loopback_name};

/// A text is neither an address nor a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither an address nor a network as 10.0.0.0/8")]
pub struct NotANetwork(String);

/// Which addresses targets may have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Of the option; without any, the device's owner's names lead where they lead.
    listed: Vec<IpNet>,
    /// Targets that only the cloud names, and what it may name.
    of_cloud: Vec<Target>,
    allowed_cloud: Allowed,
}

impl Addresses {
    /// Adds an address or a network.
    ///
    /// # Errors
    /// [`NotANetwork`].
    pub fn add(&mut self, text: &str) -> Result<(), NotANetwork> {
        let network = match text.parse::<IpNet>() {
            Ok(network) => network.trunc(),
            Err(_) => match text.parse::<IpAddr>() {
                Ok(address) => canonical(address).into(),
                Err(_) => return Err(NotANetwork(text.to_owned())),
            },
        };
        self.listed.push(network);
        Ok(())
    }

    /// The same with these targets of the cloud's, within what it may name.
    pub(super) fn with_cloud(mut self, targets: Vec<Target>, allowed: &Allowed) -> Self {
        if !targets.is_empty() {
            self.of_cloud = targets;
            self.allowed_cloud = allowed.clone();
        }
        self
    }

    /// Whether there is a list at all.
    pub fn are_listed(&self) -> bool {
        !self.listed.is_empty()
    }

    /// Whether this address is on the list.
    fn lists(&self, address: IpAddr) -> bool {
        self.listed.iter().any(|network| network.contains(&address))
    }

    /// Whether this address, in canonical form, may be dialled for this target.
    pub fn permit(&self, target: &Target, address: IpAddr) -> bool {
        let Target::Tcp { host, port } = target else {
            return false;
        };
        let literal = host.parse::<IpAddr>().ok().map(canonical);
        if literal.is_some_and(|literal| literal != address) {
            return false;
        }
        // Whatever a hosts file or a resolver says, these names are this machine.
        if is_loopback_name(host) && !address.is_loopback() {
            return false;
        }
        if self.are_listed() {
            return self.lists(address);
        }
        // What the cloud names leads only to where the owner has said so by address.
        !self.of_cloud.contains(target)
            || is_loopback_name(host)
            || self.allowed_cloud.contains_address(address, *port)
    }

    /// Whether any address could be dialled for this target of the cloud's.
    pub(super) fn can_permit(&self, target: &Target, allowed: &Allowed) -> bool {
        match target {
            Target::Tcp { host, port } => match host.parse::<IpAddr>() {
                Ok(address) => !self.are_listed() || self.lists(canonical(address)),
                Err(_) => {
                    self.are_listed() || is_loopback_name(host) || allowed.has_networks(*port)
                }
            },
            Target::Unix(_) | Target::Echo => true,
        }
    }

    /// A configured target that could never be reached: an address that is not on the list.
    pub fn contradicts(&self, target: &Target) -> bool {
        match target {
            Target::Tcp { host, .. } => {
                let address = host.parse::<IpAddr>().map(canonical);
                self.are_listed() && address.is_ok_and(|address| !self.lists(address))
            }
            Target::Unix(_) | Target::Echo => false,
        }
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, network) in self.listed.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            match network.prefix_len() == network.max_prefix_len() {
                true => write!(f, "{}", network.addr())?,
                false => write!(f, "{network}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(listed: &[&str]) -> Addresses {
        let mut addresses = Addresses::default();
        for text in listed {
            addresses.add(text).unwrap();
        }
        addresses
    }

    fn permits(addresses: &Addresses, host: &str, address: &str) -> bool {
        let target = Target::tcp(host, "22").unwrap();
        addresses.permit(&target, canonical(address.parse().unwrap()))
    }

    #[test]
    fn the_owners_names_lead_anywhere_but_localhost_away_from_here() {
        let none = addresses(&[]);
        for (host, address) in [
            ("nas.lan", "10.1.2.3"),
            ("nas.lan", "127.0.1.1"),
            ("localhost", "127.0.0.1"),
            ("localhost", "::1"),
            ("LocalHost.", "::ffff:127.0.0.1"),
            ("app.localhost", "127.9.9.9"),
            ("0.0.0.0", "0.0.0.0"),
            ("10.0.0.5", "::ffff:10.0.0.5"),
        ] {
            assert!(permits(&none, host, address), "{host} {address}");
        }
        for (host, address) in [
            ("localhost", "10.0.0.5"),
            ("localhost.", "169.254.169.254"),
            ("app.LOCALHOST", "::ffff:10.0.0.5"),
            ("10.0.0.5", "10.0.0.6"),
        ] {
            assert!(!permits(&none, host, address), "{host} {address}");
        }
    }

    #[test]
    fn a_list_holds_for_all() {
        let listed = addresses(&["127.0.0.0/8", "10.0.0.5", "fd00::/8"]);
        assert_eq!(listed.to_string(), "127.0.0.0/8, 10.0.0.5, fd00::/8");
        for (address, is_permitted) in [
            ("127.0.0.1", true),
            ("0.0.0.0", true),
            ("10.0.0.5", true),
            ("::ffff:10.0.0.5", true),
            ("10.0.0.6", false),
            ("::ffff:10.0.0.6", false),
            ("::1", false),
            ("::", false),
            ("fd12::1", true),
            ("169.254.169.254", false),
            ("64:ff9b::10.0.0.5", false),
        ] {
            assert_eq!(
                permits(&listed, "nas.lan", address),
                is_permitted,
                "{address}"
            );
        }
        let there = |host| Target::tcp(host, "22").unwrap();
        assert!(listed.contradicts(&there("10.0.0.6")));
        assert!(listed.contradicts(&there("::1")));
        assert!(!listed.contradicts(&there("10.0.0.5")));
        assert!(!listed.contradicts(&there("nas.lan")));
        for bad in ["", "nas.lan", "10.0.0.0/33", "10.0.0.5:22", "127.1"] {
            assert!(Addresses::default().add(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_the_cloud_names_needs_an_address_that_the_owner_has_named() {
        let mut allowed = Allowed::default();
        for pattern in ["nas.lan:*", "10.0.0.0/8:22"] {
            allowed.add(pattern).unwrap();
        }
        let named = Target::tcp("nas.lan", "22").unwrap();
        let cloud = addresses(&[]).with_cloud(vec![named.clone()], &allowed);
        assert!(permits(&cloud, "nas.lan", "10.1.2.3"));
        assert!(!permits(&cloud, "nas.lan", "127.0.0.1"));
        assert!(!permits(&cloud, "nas.lan", "192.168.0.1"));
        // Names that the owner has given are no matter of the cloud's.
        assert!(permits(&cloud, "other.lan", "192.168.0.1"));
        let none = addresses(&[]);
        assert!(none.can_permit(&named, &allowed));
        let other_port = Target::tcp("nas.lan", "80").unwrap();
        assert!(!none.can_permit(&other_port, &allowed));
        assert!(addresses(&["10.0.0.5"]).can_permit(&other_port, &allowed));
    }
}
