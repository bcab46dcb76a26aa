//! TLS client certificates: any is let in, since what counts is its thumbprint in
//! the registry; the handshake still proves that the client holds its key.
//!
//! So only the key is taken from a certificate. webpki reads certificates of version 3 alone, and
//! those that `openssl x509 -req` signs with their own key, as IoT Hub's documentation has devices
//! do, are of version 1.

use std::fmt::Write as _;
use std::sync::Arc;

use aws_lc_rs::digest;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerMisbehaved,
    SignatureScheme,
};
use webpki::Error::UnsupportedSignatureAlgorithmForPublicKeyContext as OtherKind;
use webpki::RawPublicKeyEntity;

/// SHA-1 and SHA-256 of a certificate, upper-case hex: IoT Hub's two kinds of thumbprint.
pub fn fingerprints(certificate: &CertificateDer<'_>) -> [String; 2] {
    [&digest::SHA1_FOR_LEGACY_USE_ONLY, &digest::SHA256].map(|algorithm| {
        digest::digest(algorithm, certificate).as_ref().iter().fold(
            String::new(),
            |mut text, byte| {
                let _ = write!(text, "{byte:02X}");
                text
            },
        )
    })
}

/// Asks for a client certificate, does without one, and believes none by itself.
#[derive(Debug)]
pub struct AnyClientCertificate(pub Arc<CryptoProvider>);

impl ClientCertVerifier for AnyClientCertificate {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = public_key(certificate)?;
        let key = RawPublicKeyEntity::try_from(&key).map_err(|_| Error::from(BAD_ENCODING))?;
        let mapping = self.0.signature_verification_algorithms.mapping;
        // In TLS 1.2 a scheme does not fix the curve: the first algorithm of the key's kind counts.
        let verified = mapping
            .iter()
            .filter(|(scheme, _)| *scheme == signature.scheme)
            .flat_map(|(_, algorithms)| *algorithms)
            .map(|algorithm| key.verify_signature(*algorithm, message, signature.signature()))
            .find(|result| !matches!(result, Err(OtherKind(_))));
        match verified {
            Some(Ok(())) => Ok(HandshakeSignatureValid::assertion()),
            Some(Err(_)) => Err(CertificateError::BadSignature.into()),
            None => Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into()),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        let key = public_key(certificate)?;
        verify_tls13_signature_with_raw_key(message, &key, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

const BAD_ENCODING: CertificateError = CertificateError::BadEncoding;

/// The public key in a certificate of any version.
fn public_key<'a>(
    certificate: &'a CertificateDer<'_>,
) -> Result<SubjectPublicKeyInfoDer<'a>, Error> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|_| BAD_ENCODING)?;
    Ok(parsed.tbs_certificate.subject_pki.raw.into())
}

#[cfg(test)]
mod tests;
