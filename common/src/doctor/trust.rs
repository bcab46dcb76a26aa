//! Who has signed a server's certificate, and whether something on the way seems to inspect TLS.

use std::path::Path;

use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;
use time::macros::format_description;

use crate::tls::{self, Link};

/// Makers and products that inspect TLS, as their CAs are called.
const INSPECTORS: &[&str] = &[
    "avast",
    "barracuda",
    "bitdefender",
    "blue coat",
    "bluecoat",
    "burp",
    "charles proxy",
    "check point",
    "checkpoint",
    "cisco umbrella",
    "cloudflare gateway",
    "eset ssl",
    "fiddler",
    "forcepoint",
    "fortigate",
    "fortinet",
    "iboss",
    "kaspersky",
    "mcafee",
    "menlo security",
    "mitmproxy",
    "netskope",
    "palo alto",
    "portswigger",
    "skyhigh",
    "sonicwall",
    "sophos",
    "squid",
    "symantec web",
    "untangle",
    "watchguard",
    "zscaler",
];

/// Domains of Azure's hubs, and the organisations whose CAs have signed there.
const AZURE: [&str; 4] = [
    ".azure-devices.net",
    ".azure-devices.us",
    ".azure-devices.cn",
    ".azure-devices-provisioning.net",
];
const AZURE_SIGNERS: [&str; 3] = ["microsoft", "digicert", "baltimore"];

/// What was seen of a server's certificate.
pub(super) struct Seen {
    /// The server's certificate, and those that lead to a CA.
    pub(super) links: Vec<Link>,
}

impl Seen {
    pub(super) fn of(presented: &[CertificateDer<'_>]) -> Self {
        Self {
            links: tls::links(presented),
        }
    }

    /// The signer of the server's certificate, and the CA at the end if that is another one.
    pub(super) fn signers(&self) -> String {
        let (Some(first), Some(last)) = (self.links.first(), self.links.last()) else {
            return "an unknown CA".to_owned();
        };
        if first.issuer == last.issuer {
            format!("\"{}\"", first.issuer)
        } else {
            format!("\"{}\", under \"{}\"", first.issuer, last.issuer)
        }
    }

    /// Until when the server's certificate is valid, Unix seconds.
    pub(super) fn valid_until(&self) -> Option<i64> {
        self.links.first().map(|link| link.not_after)
    }

    /// Why TLS seems to be inspected, if it does: the end of a sentence.
    pub(super) fn inspection(&self, host: &str, ca_file: Option<&Path>) -> Option<String> {
        let signer = self.links.first().map(|link| link.issuer.clone())?;
        let organisations = self.links.iter().flat_map(|link| &link.organisations);
        let names = self.links.iter().map(|link| &link.issuer);
        let words: Vec<String> = organisations
            .chain(names)
            .map(|name| name.to_ascii_lowercase())
            .collect();
        let has = |word: &str| words.iter().any(|name| name.contains(word));
        if INSPECTORS.iter().any(|word| has(word)) {
            return Some(format!(
                "TLS may be inspected by \"{signer}\", a name of products that do that"
            ));
        }
        let host = host.to_ascii_lowercase();
        if AZURE.iter().any(|domain| host.ends_with(domain))
            && !AZURE_SIGNERS.iter().any(|word| has(word))
        {
            return Some(format!(
                "TLS may be inspected by \"{signer}\": Azure's hubs have certificates of Microsoft's and DigiCert's CAs"
            ));
        }
        let own = tls::certificates(ca_file?).ok()?;
        let own: Vec<Link> = own
            .iter()
            .flat_map(|certificate| tls::links(std::slice::from_ref(certificate)))
            .collect();
        let is_own = |link: &Link| own.iter().any(|ca| ca.is_issuer_of(link));
        if own.is_empty() || self.links.iter().any(is_own) {
            return None;
        }
        Some(format!(
            "TLS may be inspected by \"{signer}\": the system trusts it, and the CA in {} has signed nothing here",
            ca_file?.display()
        ))
    }
}

/// A day, for a person.
pub(super) fn day(unix: i64) -> String {
    let format = format_description!("[year]-[month]-[day]");
    OffsetDateTime::from_unix_timestamp(unix)
        .ok()
        .and_then(|time| time.format(format).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, CertifiedIssuer, DnType, KeyPair};

    use super::*;

    fn seen(signer: &str, organisation: &str) -> Seen {
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        ca.distinguished_name.push(DnType::CommonName, signer);
        ca.distinguished_name
            .push(DnType::OrganizationName, organisation);
        let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["h".into()]).unwrap();
        Seen::of(&[leaf.signed_by(&key, &ca).unwrap().der().clone()])
    }

    #[test]
    fn inspection_is_guessed_by_the_signer() {
        let zscaler = seen("Zscaler Intermediate Root CA", "Zscaler Inc.");
        let text = zscaler.inspection("hub.example", None).unwrap();
        assert!(
            text.starts_with("TLS may be inspected by \"Zscaler"),
            "{text}"
        );
        let corporate = seen("Corp Gateway", "Corp");
        assert_eq!(corporate.inspection("hub.example", None), None);
        let azure = corporate.inspection("x.azure-devices.net", None).unwrap();
        assert!(azure.contains("\"Corp Gateway\""), "{azure}");
        let microsoft = seen(
            "Microsoft Azure RSA TLS Issuing CA 04",
            "Microsoft Corporation",
        );
        assert_eq!(microsoft.inspection("x.azure-devices.net", None), None);
        assert_eq!(
            microsoft.signers(),
            "\"Microsoft Azure RSA TLS Issuing CA 04\""
        );
    }
}
