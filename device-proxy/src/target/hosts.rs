//! The hosts of targets. Whatever is compared is compared in one form, so that there is no other way
//! to write what a rule is for.

use std::net::{IpAddr, Ipv6Addr};

use common::network::canonical;

/// A host in the form in which it is kept: an address as it is usually written, of IPv4 also where
/// it stood in IPv6 form; a name in lower case, without the dot of the root.
pub(crate) fn normal(host: &str) -> String {
    let host = host.trim_end_matches('.');
    if let Ok(address) = host.parse::<IpAddr>() {
        return address.to_canonical().to_string();
    }
    // A zone is the name of an interface, which may have capitals.
    if let Some((address, zone)) = host.split_once('%')
        && let Ok(address) = address.parse::<Ipv6Addr>()
    {
        return format!("{address}%{zone}");
    }
    host.to_ascii_lowercase()
}

/// `localhost`, and what stands below it (RFC 6761).
pub(crate) fn is_loopback_name(host: &str) -> bool {
    let host = host.trim_end_matches('.');
    let last = host.rsplit('.').next().unwrap_or_default();
    last.eq_ignore_ascii_case("localhost")
}

/// Whether this is one of the names and addresses by which every machine reaches itself.
pub(crate) fn is_this_machine(host: &str) -> bool {
    let address = host.parse::<IpAddr>().map(canonical);
    is_loopback_name(host) || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_one_form() {
        for (written, kept) in [
            ("LocalHost", "localhost"),
            ("nas.Lan.", "nas.lan"),
            ("127.0.0.1", "127.0.0.1"),
            ("127.0.0.1.", "127.0.0.1"),
            ("::ffff:10.0.0.5", "10.0.0.5"),
            ("FD00:0::5", "fd00::5"),
            ("FE80::1%Eth0", "fe80::1%Eth0"),
            ("Größe.lan", "größe.lan"),
            ("..", ""),
        ] {
            assert_eq!(normal(written), kept, "{written}");
        }
        for host in ["localhost", "a.localhost", "127.1.2.3", "::1", "0.0.0.0"] {
            assert!(is_this_machine(host), "{host}");
        }
        for host in ["localhost.lan", "10.0.0.5", "::2", "mylocalhost"] {
            assert!(!is_this_machine(host), "{host}");
        }
    }
}
