//! The hosts of targets. Whatever is compared is compared in one form, so that there is no other way
//! to write what a rule is for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use common::network::canonical;

/// A host in the form in which it is kept: an address as it is usually written, of IPv4 also where
/// it stood in IPv6 form; a name in lower case, with at most one dot at its end.
pub(crate) fn normal(written: &str) -> String {
    let host = written.trim_end_matches('.');
    if let Ok(address) = host.parse::<IpAddr>() {
        return address.to_canonical().to_string();
    }
    // A zone is the name of an interface, which may have capitals.
    if let Some((address, zone)) = host.split_once('%')
        && let Ok(address) = address.parse::<Ipv6Addr>()
    {
        return format!("{address}%{zone}");
    }
    // The dot of the root says that the name is not to be looked for in other domains as well.
    let has_root = host.len() < written.len() && !host.is_empty() && !is_loopback_name(host);
    let root = if has_root { "." } else { "" };
    format!("{}{root}", host.to_ascii_lowercase())
}

/// `localhost`, and what stands below it (RFC 6761).
pub(crate) fn is_loopback_name(host: &str) -> bool {
    let host = host.trim_end_matches('.');
    let last = host.rsplit('.').next().unwrap_or_default();
    last.eq_ignore_ascii_case("localhost")
}

/// Whether this is one of the names and addresses by which every machine reaches itself.
pub(crate) fn is_this_machine(host: &str) -> bool {
    let address = host.parse().ok().or_else(|| old_form(host).map(IpAddr::V4));
    is_loopback_name(host) || address.is_some_and(|address| canonical(address).is_loopback())
}

/// An IPv4 address in a form that resolvers know from old times: `127.1`, `0x7f000001`.
fn old_form(host: &str) -> Option<Ipv4Addr> {
    let number = |part: &str| {
        let (digits, radix) = match part.strip_prefix("0x") {
            Some(digits) => (digits, 16),
            None if part.len() > 1 && part.starts_with('0') => (part, 8),
            None => (part, 10),
        };
        // `from_str_radix` would accept a sign.
        let is_number = digits.chars().all(|digit| digit.is_digit(radix));
        u32::from_str_radix(digits, radix)
            .ok()
            .filter(|_| is_number)
    };
    let parts: Option<Vec<u32>> = host.split('.').map(number).collect();
    let parts = parts?;
    let (last, first) = parts.split_last()?;
    // The last one stands for all that do not stand there.
    let bytes = 4_usize
        .checked_sub(first.len())
        .filter(|bytes| *bytes > 0)?;
    let is_small = bytes == 4 || *last < 1 << (8 * bytes);
    let mut address = *last;
    for (part, shift) in first.iter().zip([24, 16, 8]) {
        address |= u32::from(u8::try_from(*part).ok()?) << shift;
    }
    is_small.then(|| address.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_one_form() {
        for (written, kept) in [
            ("LocalHost", "localhost"),
            ("nas.Lan.", "nas.lan."),
            ("nas..", "nas."),
            ("Localhost.", "localhost"),
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
    }

    #[test]
    fn this_machine_is_known_by_all_its_names() {
        for host in [
            "localhost",
            "a.localhost",
            "127.1.2.3",
            "::1",
            "0.0.0.0",
            "::",
            "127.1",
            "127.0.1",
            "0x7f.1",
            "0x7f000001",
            "2130706433",
            "0177.0.0.01",
            "0",
        ] {
            assert!(is_this_machine(host), "{host}");
        }
        for host in [
            "localhost.lan",
            "10.0.0.5",
            "::2",
            "mylocalhost",
            "10.1",
            "127",
            "127.16777216",
            "127.0.0.0.1",
            "127.0.0.256",
            "256.127.0.1",
            "0127.0.0.1",
            "09.1",
            "+127.1",
            "127..1",
            "4294967296",
            "0x",
            "",
        ] {
            assert!(!is_this_machine(host), "{host}");
        }
    }
}
