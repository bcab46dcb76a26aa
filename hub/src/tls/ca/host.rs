//! The hub's name, as certificates carry it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rcgen::{CidrSubnet, GeneralSubtree, NameConstraints, SanType};
use rustls::pki_types::ServerName;

use super::PkiError;

/// The host, and the names that its certificate carries.
pub(super) struct Host {
    pub(super) names: Vec<ServerName<'static>>,
}

impl Host {
    pub(super) fn parse(text: &str) -> Result<Self, PkiError> {
        let name = text.trim_end_matches('.').to_ascii_lowercase();
        let mut names = vec![
            ServerName::try_from(name.clone()).map_err(|_| PkiError::HostName(text.to_owned()))?,
        ];
        if name == "localhost" {
            names.push(IpAddr::from(Ipv4Addr::LOCALHOST).into());
            names.push(IpAddr::from(Ipv6Addr::LOCALHOST).into());
        }
        Ok(Self { names })
    }

    pub(super) fn alternative_names(&self) -> Result<Vec<SanType>, PkiError> {
        self.names
            .iter()
            .map(|name| match name {
                ServerName::IpAddress(ip) => Ok(SanType::IpAddress((*ip).into())),
                name => Ok(SanType::DnsName(name.to_str().as_ref().try_into()?)),
            })
            .collect()
    }

    /// These names and no others: a kind of name of which none is permitted is excluded
    /// as a whole (the empty DNS name stands for all, as does a prefix of length 0).
    pub(super) fn constraints(&self) -> NameConstraints {
        let mut constraints = NameConstraints {
            permitted_subtrees: Vec::new(),
            excluded_subtrees: Vec::new(),
        };
        let (mut has_dns, mut has_ip) = (false, false);
        for name in &self.names {
            constraints.permitted_subtrees.push(match name {
                ServerName::IpAddress(ip) => {
                    has_ip = true;
                    let ip = IpAddr::from(*ip);
                    let whole = if ip.is_ipv4() { 32 } else { 128 };
                    GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(ip, whole))
                }
                name => {
                    has_dns = true;
                    GeneralSubtree::DnsName(name.to_str().into_owned())
                }
            });
        }
        if !has_dns {
            let all = GeneralSubtree::DnsName(String::new());
            constraints.excluded_subtrees.push(all);
        }
        if !has_ip {
            for all in [
                IpAddr::from(Ipv4Addr::UNSPECIFIED),
                Ipv6Addr::UNSPECIFIED.into(),
            ] {
                let all = GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(all, 0));
                constraints.excluded_subtrees.push(all);
            }
        }
        constraints
    }
}
