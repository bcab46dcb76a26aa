//! One registered CA, ready to verify by.

use aws_lc_rs::digest;
use rustls::pki_types::{CertificateDer, TrustAnchor};
use webpki::VerifiedPath;
use x509_parser::prelude::X509Certificate;

use super::crl::{Crls, Stamp};
use crate::auth::ClientChain;
use crate::events::{self, Event, Events};
use crate::registry::Authority;

/// Why a certificate is of no use as a CA of devices.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// It cannot be read.
    #[error("it is not an X.509 certificate of version 3")]
    NotACertificate,
    /// It is a device's or a server's.
    #[error(
        "it is not a CA's certificate: its basic constraints do not say so, or it may not sign certificates"
    )]
    NotACa,
    /// Its time is over.
    #[error("it has expired")]
    Expired,
    /// It is used in a way that webpki does not know.
    #[error("it cannot be used to verify others")]
    Unusable(#[source] webpki::Error),
}

/// A registered CA, with what verifying needs of it.
#[derive(Debug, Clone)]
pub struct KnownAuthority {
    authority: Authority,
    anchor: TrustAnchor<'static>,
    /// Since when and until when, Unix seconds.
    validity: [u64; 2],
    /// How many CAs may stand between this one and a device's certificate.
    path_length: Option<u32>,
    crls: Option<Crls>,
    /// Of the file that `crls` was read from, or that was of no use.
    seen: Option<Stamp>,
}

impl KnownAuthority {
    /// Reads what a CA's certificate says. Its revocation lists are not read.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn read(authority: Authority) -> Result<Self, AuthorityError> {
        let (anchor, validity, path_length) = {
            let parsed = parsed(&authority.certificate)?;
            let may_sign = match parsed.key_usage() {
                Ok(usage) => usage.is_none_or(|usage| usage.value.key_cert_sign()),
                Err(_) => false,
            };
            if !parsed.is_ca() || !may_sign {
                return Err(AuthorityError::NotACa);
            }
            let constraints = parsed.basic_constraints().ok().flatten();
            let path_length = constraints.and_then(|found| found.value.path_len_constraint);
            let anchor = webpki::anchor_from_trusted_cert(&authority.certificate)
                .map_err(AuthorityError::Unusable)?;
            (anchor.to_owned(), validity(&parsed), path_length)
        };
        Ok(Self {
            authority,
            anchor,
            validity,
            path_length,
            crls: None,
            seen: None,
        })
    }

    /// A CA to register from its certificate, now in Unix seconds.
    ///
    /// # Errors
    /// [`AuthorityError`] says why it is of no use.
    pub fn to_register(
        name: String,
        certificate: CertificateDer<'static>,
        now: u64,
    ) -> Result<Self, AuthorityError> {
        let mut known = Self::read(Authority {
            name,
            certificate,
            digest: [0; 32],
            crl_file: None,
            added: now,
        })?;
        if known.validity[1] < now {
            return Err(AuthorityError::Expired);
        }
        let mut hash = digest::Context::new(&digest::SHA256);
        // Each is one element of DER, which has its length.
        hash.update(&known.anchor.subject);
        hash.update(&known.anchor.subject_public_key_info);
        if let Ok(digest) = hash.finish().as_ref().try_into() {
            known.authority.digest = digest;
        }
        Ok(known)
    }

    /// A registered CA; `earlier` is what was known of it. `None`, and an event, if it is of no use.
    /// Blocks.
    pub(super) fn load(
        authority: Authority,
        earlier: Option<&Self>,
        events: &Events,
    ) -> Option<Self> {
        let name = authority.name.clone();
        let mut known = match Self::read(authority) {
            Ok(known) => known,
            Err(reason) => {
                let (name, reason) = (&name, &reason);
                events.emit(Event::Authority(events::Authority::Unusable {
                    name,
                    reason,
                }));
                return None;
            }
        };
        known.read_crls(earlier, events);
        Some(known)
    }

    fn read_crls(&mut self, earlier: Option<&Self>, events: &Events) {
        let Some(file) = &self.authority.crl_file else {
            return;
        };
        let earlier = earlier.filter(|known| known.authority.crl_file.as_ref() == Some(file));
        let seen = Stamp::of(file);
        if let Some(earlier) = earlier {
            self.crls = earlier.crls.clone();
            self.seen = earlier.seen.clone();
            if earlier.seen == seen {
                return;
            }
        }
        self.seen = seen;
        let name = &self.authority.name;
        match Crls::read(file, self.subject()) {
            Ok(crls) => {
                let is_old = crls
                    .next_update()
                    .is_some_and(|time| time < common::clock::unix_now());
                events.emit(Event::Authority(events::Authority::CrlRead {
                    name,
                    file,
                    is_old,
                }));
                self.crls = Some(crls);
            }
            Err(reason) => {
                let (reason, has_earlier) = (&reason, self.crls.is_some());
                events.emit(Event::Authority(events::Authority::CrlNotRead {
                    name,
                    file,
                    reason,
                    has_earlier,
                }));
            }
        }
    }

    /// As it is registered.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Its subject in DER, without tag and length, as an issuer's name stands in its lists.
    pub fn subject(&self) -> &[u8] {
        &self.anchor.subject
    }

    /// Its subject for a person; it may contain anything.
    pub fn subject_text(&self) -> String {
        parsed(&self.authority.certificate)
            .map(|parsed| parsed.subject().to_string())
            .unwrap_or_default()
    }

    /// Until when it is valid, Unix seconds.
    pub fn until(&self) -> u64 {
        self.validity[1]
    }

    pub(super) fn anchor(&self) -> &TrustAnchor<'static> {
        &self.anchor
    }

    /// Whether the CA's own certificate is valid: webpki does not look at that of an anchor.
    pub(super) fn is_valid_at(&self, now: u64) -> bool {
        let [since, until] = self.validity;
        (since..=until).contains(&now)
    }

    /// Whether a path is not longer than the CA allows: an anchor's own limit is not webpki's.
    pub(super) fn check_length(&self, path: &VerifiedPath<'_>) -> Result<(), webpki::Error> {
        let between = u32::try_from(path.intermediate_certificates().count()).unwrap_or(u32::MAX);
        match self.path_length {
            Some(most) if between > most => Err(webpki::Error::PathLenConstraintViolated),
            _ => Ok(()),
        }
    }

    pub(super) fn has_crl_file(&self) -> bool {
        self.authority.crl_file.is_some()
    }

    pub(super) fn crls(&self) -> Option<&Crls> {
        self.crls.as_ref()
    }

    /// Whether one of these is this CA under this name.
    pub(super) fn is_in(&self, others: &[Self]) -> bool {
        let is_same = |other: &&Self| {
            other.authority.digest == self.authority.digest
                && other.authority.name == self.authority.name
        };
        others.iter().any(|other| is_same(&other))
    }
}

impl PartialEq for KnownAuthority {
    /// Whether all certificates are judged in the same way.
    fn eq(&self, other: &Self) -> bool {
        let is_same_list = match (&self.crls, &other.crls) {
            (None, None) => true,
            (Some(one), Some(other)) => one.is(other),
            _ => false,
        };
        self.authority == other.authority && is_same_list
    }
}

/// When a chain that was verified stops to be valid: with the first of its certificates, or of those
/// that the client sent along in vain.
pub(super) fn end(known: &KnownAuthority, chain: &ClientChain, now: u64) -> u64 {
    std::iter::once(chain.own())
        .chain(chain.others())
        .filter_map(|certificate| Some(validity(&parsed(certificate).ok()?)[1]))
        // One that has expired was not needed.
        .filter(|until| *until > now)
        .fold(known.validity[1], u64::min)
        // The last second is one of those in which it is valid.
        .saturating_add(1)
}

fn parsed<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, AuthorityError> {
    match x509_parser::parse_x509_certificate(certificate) {
        Ok(([], parsed)) => Ok(parsed),
        _ => Err(AuthorityError::NotACertificate),
    }
}

fn validity(certificate: &X509Certificate<'_>) -> [u64; 2] {
    let validity = certificate.validity();
    [validity.not_before, validity.not_after]
        .map(|time| u64::try_from(time.timestamp()).unwrap_or_default())
}
