//! Whose a certificate is, by its subject.

use common::identity::DeviceIdentity;
use rustls::pki_types::CertificateDer;
use x509_parser::oid_registry::OID_X509_COMMON_NAME;
use x509_parser::prelude::AttributeTypeAndValue;

/// Why the subject of a certificate does not name an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommonNameError {
    /// It has none, or it cannot be read.
    #[error("the certificate has no common name that can be read")]
    None,
    /// Which of them counts would be a matter of taste.
    #[error("the certificate has several common names")]
    Several,
    /// It is another's.
    #[error(
        "the certificate's common name is not the identity's: it must be DEVICE, or DEVICE/MODULE, in the exact case"
    )]
    Other,
}

/// The one common name of a certificate has to be the identity, byte for byte: the device's id, or
/// `DEVICE/MODULE`, as in IoT Hub. Names in other places do not count.
///
/// # Errors
/// [`CommonNameError`].
pub(super) fn check(
    certificate: &CertificateDer<'_>,
    identity: &DeviceIdentity,
) -> Result<(), CommonNameError> {
    let (rest, parsed) =
        x509_parser::parse_x509_certificate(certificate).map_err(|_| CommonNameError::None)?;
    if !rest.is_empty() {
        return Err(CommonNameError::None);
    }
    // Wherever they stand: an RDN may have several attributes.
    let mut names = parsed
        .subject()
        .iter()
        .flat_map(|part| part.iter())
        .filter(|attribute| *attribute.attr_type() == OID_X509_COMMON_NAME);
    let name = names.next().ok_or(CommonNameError::None)?;
    if names.next().is_some() {
        return Err(CommonNameError::Several);
    }
    if text(name).ok_or(CommonNameError::None)? == identity.to_string() {
        Ok(())
    } else {
        Err(CommonNameError::Other)
    }
}

/// An attribute's text, in the encodings whose bytes are ASCII where the text is: ids have no other
/// characters.
fn text<'a>(attribute: &'a AttributeTypeAndValue<'_>) -> Option<&'a str> {
    use x509_parser::der_parser::asn1_rs::Tag;
    let value = attribute.attr_value();
    let is_fit = matches!(
        value.tag(),
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String
    );
    is_fit
        .then(|| std::str::from_utf8(value.data).ok())
        .flatten()
}
