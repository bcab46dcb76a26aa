//! What the certificates that a server sends say of themselves, for a person: who signed which, and
//! which one is missing.

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::x509::X509Name;

use crate::outside;

/// The most characters of a name that are displayed.
const NAME_LENGTH: usize = 128;

/// A certificate's own words. All texts are printable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Whom it is for: the common name, else the organisation.
    pub subject: String,
    /// Who has signed it, likewise.
    pub issuer: String,
    /// The organisations of both.
    pub organisations: Vec<String>,
    /// From when it is valid, Unix seconds.
    pub not_before: i64,
    /// Until when it is valid, Unix seconds.
    pub not_after: i64,
    /// It says where its issuer's certificate can be had: that is what CAs write that have
    /// intermediate ones.
    pub names_issuers_place: bool,
    raw_subject: Vec<u8>,
    raw_issuer: Vec<u8>,
}

impl Link {
    fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let organisations = [parsed.subject(), parsed.issuer()]
            .into_iter()
            .flat_map(X509Name::iter_organization)
            .filter_map(|organisation| organisation.as_str().ok().map(plain))
            .collect();
        let names_issuers_place = parsed.extensions().iter().any(|extension| {
            let ParsedExtension::AuthorityInfoAccess(access) = extension.parsed_extension() else {
                return false;
            };
            let mut places = access.accessdescs.iter();
            places.any(|place| {
                place.access_method
                    == x509_parser::oid_registry::OID_PKIX_ACCESS_DESCRIPTOR_CA_ISSUERS
                    && matches!(place.access_location, GeneralName::URI(_))
            })
        });
        Some(Self {
            subject: name(parsed.subject()),
            issuer: name(parsed.issuer()),
            organisations,
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            names_issuers_place,
            raw_subject: parsed.subject().as_raw().to_vec(),
            raw_issuer: parsed.issuer().as_raw().to_vec(),
        })
    }

    /// Whether it names itself as its issuer.
    pub fn is_self_signed(&self) -> bool {
        self.raw_subject == self.raw_issuer
    }

    /// Whether this one's subject has signed `other`, by the names in both.
    pub fn is_issuer_of(&self, other: &Self) -> bool {
        self.raw_subject == other.raw_issuer
    }
}

/// The server's certificate, and those that lead from it to a CA, in this order. What cannot be read
/// is left out.
pub fn links(presented: &[CertificateDer<'_>]) -> Vec<Link> {
    let mut rest: Vec<Link> = presented.iter().filter_map(Link::of).collect();
    let mut ordered: Vec<Link> = Vec::new();
    if rest.is_empty() {
        return ordered;
    }
    ordered.push(rest.remove(0));
    while let Some(last) = ordered.last()
        && !last.is_self_signed()
        && let Some(next) = rest.iter().position(|link| link.is_issuer_of(last))
    {
        let next = rest.remove(next);
        ordered.push(next);
    }
    ordered
}

/// The intermediate CA whose certificate was not sent, if that is why these lead to no root. A CA
/// that nobody here knows looks the same, unless it resembles a trusted one or says that it has
/// intermediate ones.
pub(super) fn missing(presented: &[CertificateDer<'_>], roots: &RootCertStore) -> Option<String> {
    let links = links(presented);
    let last = links.last()?;
    if last.is_self_signed() {
        return None;
    }
    let mut resembles = last.names_issuers_place;
    for root in &roots.roots {
        let whole = rustls::DistinguishedName::in_sequence(root.subject.as_ref());
        if whole.as_ref() == last.raw_issuer {
            // The root is there, and has not signed it.
            return None;
        }
        resembles = resembles
            || X509Name::from_der(whole.as_ref()).is_ok_and(|(_, root)| {
                organisation(&root).is_some_and(|ours| {
                    X509Name::from_der(&last.raw_issuer)
                        .is_ok_and(|(_, issuer)| organisation(&issuer) == Some(ours))
                })
            });
    }
    (resembles && !last.issuer.is_empty()).then(|| last.issuer.clone())
}

fn organisation<'a>(name: &'a X509Name<'_>) -> Option<&'a str> {
    let organisation = name.iter_organization().next()?.as_str().ok()?;
    (!organisation.trim().is_empty()).then_some(organisation)
}

/// The common name; without one the organisation.
fn name(name: &X509Name<'_>) -> String {
    let mut names = name.iter_common_name().chain(name.iter_organization());
    names
        .find_map(|attribute| attribute.as_str().ok())
        .map(plain)
        .unwrap_or_default()
}

fn plain(text: &str) -> String {
    text.chars()
        .filter(|c| !outside::is_unprintable(*c))
        .take(NAME_LENGTH)
        .collect()
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

    use super::*;

    fn authority(name: &str, organisation: &str) -> CertificateParams {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let organisation = (DnType::OrganizationName, organisation);
        params
            .distinguished_name
            .push(organisation.0, organisation.1);
        params
    }

    #[test]
    fn an_intermediate_that_was_not_sent_is_named() {
        let key = || KeyPair::generate().unwrap();
        let root = CertifiedIssuer::self_signed(authority("Root", "Acme"), key()).unwrap();
        let between =
            CertifiedIssuer::signed_by(authority("Between", "Acme"), key(), &root).unwrap();
        let leaf_key = key();
        let leaf = CertificateParams::new(vec!["hub.example".into()]).unwrap();
        let leaf = leaf.signed_by(&leaf_key, &between).unwrap();
        let all = [
            leaf.der().clone(),
            root.der().clone(),
            between.der().clone(),
        ];
        let named: Vec<_> = links(&all).iter().map(|link| link.issuer.clone()).collect();
        assert_eq!(named, ["Between", "Root", "Root"]);

        let mut roots = RootCertStore::empty();
        roots.add(root.der().clone()).unwrap();
        assert_eq!(missing(&all[..1], &roots).unwrap(), "Between");
        let mut others = RootCertStore::empty();
        let other = CertifiedIssuer::self_signed(authority("Other", "Else"), key()).unwrap();
        others.add(other.der().clone()).unwrap();
        assert_eq!(missing(&all[..1], &others), None, "an unknown CA");
        assert_eq!(missing(&all, &others), None, "all were sent");
        assert_eq!(missing(&[], &roots), None);
        let junk = CertificateDer::from(vec![1, 2, 3]);
        assert!(links(&[junk]).is_empty());
    }
}
