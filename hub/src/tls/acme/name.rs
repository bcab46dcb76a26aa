//! Which host names a CA signs by ACME.

use std::net::IpAddr;

use rustls::pki_types::ServerName;

use super::LETS_ENCRYPT;

/// Names without a place in the public DNS (RFC 6761, RFC 6762, RFC 8375, ICANN's `.internal`), and
/// those that home routers use.
const NOT_PUBLIC: [&str; 11] = [
    "arpa",
    "corp",
    "example",
    "home",
    "internal",
    "invalid",
    "lan",
    "local",
    "localdomain",
    "onion",
    "test",
];

/// Why no CA signs a certificate for a host name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It is loopback's.
    #[error(
        "--acme needs the name by which the CA reaches this hub, and {0} is each machine's own: give --hostname hub.example.com, or leave --acme out"
    )]
    Loopback(String),
    /// It is an address.
    #[error(
        "--acme needs a host name, and {0} is an address: give --hostname hub.example.com, or leave --acme out"
    )]
    Address(String),
    /// It does not lead here from everywhere.
    #[error(
        "Let's Encrypt signs for names in the public DNS only, and {0} is none: give --hostname hub.example.com, name a private CA with --acme-directory, or leave --acme out"
    )]
    NotPublic(String),
}

/// Checks that the CA with this directory may sign for this host name, which has no port.
///
/// # Errors
/// [`NameError`]: one sentence on what to give.
pub fn check_name(host: &str, directory: &str) -> Result<(), NameError> {
    if host.parse::<IpAddr>().is_ok() {
        return Err(NameError::Address(host.to_owned()));
    }
    let name = host.to_ascii_lowercase();
    let last = name.rsplit('.').next().unwrap_or_default();
    if last == "localhost" {
        return Err(NameError::Loopback(host.to_owned()));
    }
    let is_public = name.contains('.')
        && !NOT_PUBLIC.contains(&last)
        && matches!(
            ServerName::try_from(name.as_str()),
            Ok(ServerName::DnsName(_))
        );
    if directory == LETS_ENCRYPT && !is_public {
        return Err(NameError::NotPublic(host.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_ca_signs_are_refused() {
        let private = "https://ca.internal/acme/acme/directory";
        for (host, by_public, by_private) in [
            ("hub.example.com", true, true),
            ("HUB.Example.COM", true, true),
            ("hub", false, true),
            ("hub.local", false, true),
            ("hub.corp.internal", false, true),
            ("localhost", false, false),
            ("hub.localhost", false, false),
            ("192.0.2.7", false, false),
            ("2001:db8::7", false, false),
        ] {
            let allowed = |directory| check_name(host, directory).is_ok();
            assert_eq!(allowed(LETS_ENCRYPT), by_public, "{host}");
            assert_eq!(allowed(private), by_private, "{host}");
        }
    }
}
