//! The CA.

use std::path::Path;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;

use super::host::Host;
use super::pem::{text_in, write};
use super::server::Pair;
use super::{CA_CERTIFICATE, CA_KEY, CA_LIFE, PkiError, SERVER_LIFE, SKEW};
use common::files::Access;

/// The CA with its key.
pub(super) struct Authority {
    pub(super) certificate: CertificateDer<'static>,
    pem: Option<String>,
    issuer: Issuer<'static, KeyPair>,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
}

impl Authority {
    pub(super) fn new(host: &Host, now: OffsetDateTime) -> Result<Self, PkiError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        // A name of its own, so that an older CA in the same trust store is not taken
        // for this one.
        let mark = u32::from_be_bytes(common::random::bytes());
        params.distinguished_name = name(&format!("stream-hub CA {mark:08x}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.name_constraints = Some(host.constraints());
        (params.not_before, params.not_after) = (now - SKEW, now + CA_LIFE);
        let certificate = params.self_signed(&key)?;
        Ok(Self {
            certificate: certificate.der().clone(),
            pem: Some(certificate.pem()),
            not_before: params.not_before,
            not_after: params.not_after,
            issuer: Issuer::new(params, key),
        })
    }

    /// The CA on disk, if its key is there too.
    pub(super) fn read(
        dir: &Path,
        certificate: &CertificateDer<'static>,
    ) -> Result<Option<Self>, PkiError> {
        let path = dir.join(CA_KEY);
        let Some(text) = text_in(&path)? else {
            return Ok(None);
        };
        let key = KeyPair::from_pem(&text).map_err(|_| PkiError::Unreadable(path))?;
        let unreadable = || PkiError::Unreadable(dir.join(CA_CERTIFICATE));
        let (_, parsed) =
            x509_parser::parse_x509_certificate(certificate).map_err(|_| unreadable())?;
        let validity = parsed.validity();
        Ok(Some(Self {
            not_before: validity.not_before.to_datetime(),
            not_after: validity.not_after.to_datetime(),
            issuer: Issuer::from_ca_cert_der(certificate, key).map_err(|_| unreadable())?,
            certificate: certificate.clone(),
            pem: None,
        }))
    }

    /// A certificate for the host, within the CA's own life. A clock that is not set
    /// yet stands before the CA's begin: then the CA's begin is the better clock.
    pub(super) fn issue(&self, host: &Host, now: OffsetDateTime) -> Result<Pair, PkiError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = self.sign(host, &key, now)?;
        let pem = (certificate.pem(), key.serialize_pem());
        Ok(Pair::new(certificate.der().clone(), key.into(), pem))
    }

    /// The same for a key that is there.
    pub(super) fn sign(
        &self,
        host: &Host,
        key: &KeyPair,
        now: OffsetDateTime,
    ) -> Result<Certificate, PkiError> {
        let mut params = CertificateParams::default();
        // No host name here: verifiers that look at it would judge it by other rules.
        params.distinguished_name = name("stream-hub server");
        params.subject_alt_names = host.alternative_names()?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = (now - SKEW).max(self.not_before);
        params.not_after = (now.max(self.not_before) + SERVER_LIFE).min(self.not_after);
        Ok(params.signed_by(key, &self.issuer)?)
    }

    pub(super) fn write(&self, dir: &Path) -> Result<(), PkiError> {
        let Some(pem) = &self.pem else {
            return Ok(());
        };
        let key = self.issuer.key().serialize_pem();
        write(dir.join(CA_KEY), &key, Access::Private)?;
        write(dir.join(CA_CERTIFICATE), pem, Access::Public)
    }
}

fn name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}
