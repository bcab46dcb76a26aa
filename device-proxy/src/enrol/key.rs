//! The device's key and its certificate, which signs itself: what counts is its thumbprint.

use common::enrolment::FolderError;
use common::tls::{self, OwnCertificate, TlsConfigError};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, date_time_ymd,
};

use super::Place;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It cannot be made.
    #[error("cannot make a key and a certificate")]
    Make(#[from] rcgen::Error),
    /// It cannot be written.
    #[error(transparent)]
    Write(#[from] FolderError),
    /// One that is there cannot be used.
    #[error("the device's key of an earlier enrolment cannot be used; remove it to make a new one")]
    Unusable(#[from] TlsConfigError),
}

/// The key and the certificate in their files; made if one of the two is missing. Blocks.
///
/// # Errors
/// [`KeyError`].
pub(super) fn ensure(place: &Place) -> Result<OwnCertificate, KeyError> {
    if !(place.key().exists() && place.certificate().exists()) {
        make(place)?;
    }
    let mut chain = tls::certificates(&place.certificate())?;
    Ok(OwnCertificate {
        certificate: chain.swap_remove(0),
        key: tls::private_key(&place.key())?,
    })
}

fn make(place: &Place) -> Result<(), KeyError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    // Whose it is, the hub knows; a name would only be one more thing that can be wrong.
    params
        .distinguished_name
        .push(DnType::CommonName, "device-proxy");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    // The clock of a new device may not be set; and IEEE 802.1AR has devices' certificates end so.
    params.not_before = date_time_ymd(2000, 1, 1);
    params.not_after = date_time_ymd(9999, 12, 31);
    let certificate = params.self_signed(&key)?;
    place.write_key(&key.serialize_pem(), &certificate.pem())?;
    Ok(())
}
