//! A server that is known by the fingerprint of its certificate, of its public key, or of the CA that
//! signed it: for who has no CA file yet.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::BASE32_NOPAD;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

use super::verify::ServerVerifier;
use super::{TlsConfigError, provider};

/// Bytes of a fingerprint: nobody makes a second certificate with 128 given bits.
const FINGERPRINT: usize = 16;

/// The first 16 bytes of the SHA-256 digest of a certificate, or of a public key.
#[derive(Clone, Copy)]
pub struct Fingerprint([u8; FINGERPRINT]);

impl Fingerprint {
    /// Of this certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        Self::of_bytes(certificate)
    }

    /// Of this public key, with its algorithm (`SubjectPublicKeyInfo`, as in RFC 7469): it stays
    /// the same when a certificate is renewed for the same key.
    pub fn of_public_key(key: &SubjectPublicKeyInfoDer<'_>) -> Self {
        Self::of_bytes(key)
    }

    fn of_bytes(bytes: &[u8]) -> Self {
        let mut first = [0; FINGERPRINT];
        for (byte, of_digest) in first.iter_mut().zip(digest(&SHA256, bytes).as_ref()) {
            *byte = *of_digest;
        }
        Self(first)
    }

    /// From its 16 bytes; `None`: there are more or fewer.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self(bytes.try_into().ok()?))
    }

    /// The 16 bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Reads what `Display` writes: base32, in any case.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = BASE32_NOPAD.decode(text.to_ascii_uppercase().as_bytes());
        Self::from_bytes(&bytes.ok()?)
    }
}

impl PartialEq for Fingerprint {
    fn eq(&self, other: &Self) -> bool {
        verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl Eq for Fingerprint {}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE32_NOPAD.encode(&self.0).to_ascii_lowercase())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// The certificate that a client shows of itself, and its key.
#[derive(Debug)]
pub struct OwnCertificate {
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// Its key.
    pub key: PrivateKeyDer<'static>,
}

/// A client configuration that trusts a server with this fingerprint and no other. If it is that
/// of the server's own certificate or public key, it is trusted whatever its name and its dates; if
/// it is that of a CA which the server sends along, the server's certificate has to be signed by it,
/// for the server's name.
///
/// # Errors
/// [`TlsConfigError::Rustls`] when certificate and key of `own` do not match.
pub fn pinned_config(
    fingerprint: Fingerprint,
    own: Option<OwnCertificate>,
) -> Result<Arc<ClientConfig>, TlsConfigError> {
    let provider = provider();
    let verifier = PinnedVerifier {
        fingerprint,
        provider: Arc::clone(&provider),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        // This verifies another property, and no less strictly.
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let config = match own {
        None => builder.with_no_client_auth(),
        Some(own) => builder.with_client_auth_cert(vec![own.certificate], own.key)?,
    };
    Ok(Arc::new(config))
}

/// Trusts one certificate.
#[derive(Debug)]
struct PinnedVerifier {
    fingerprint: Fingerprint,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let is_pinned =
            |certificate: &&CertificateDer<'_>| Fingerprint::of(certificate) == self.fingerprint;
        // The handshake's signature proves that the server has the key.
        let has_pinned_key = || {
            let parsed = ParsedCertificate::try_from(end_entity);
            parsed.is_ok_and(|parsed| {
                Fingerprint::of_public_key(&parsed.subject_public_key_info()) == self.fingerprint
            })
        };
        if is_pinned(&end_entity) || has_pinned_key() {
            return Ok(ServerCertVerified::assertion());
        }
        let unknown = rustls::Error::from(CertificateError::ApplicationVerificationFailure);
        let Some(authority) = intermediates.iter().find(is_pinned) else {
            return Err(unknown);
        };
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        ServerVerifier::new(roots, &self.provider)?.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        )
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PublicKeyData as _,
    };
    use rustls::ServerConfig;
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;

    struct Server {
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    }

    fn authority() -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn server(by: &CertifiedIssuer<'static, KeyPair>, sent: &CertificateDer<'static>) -> Server {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["hub.example".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, by).unwrap();
        Server {
            chain: vec![certificate.der().clone(), sent.clone()],
            key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        }
    }

    async fn connects(server: &Server, fingerprint: Fingerprint, name: &str) -> bool {
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(server.chain.clone(), server.key.clone_key())
            .unwrap();
        let (near, far) = tokio::io::duplex(16 << 10);
        let client = TlsConnector::from(pinned_config(fingerprint, None).unwrap());
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (client, _) = tokio::join!(client.connect(name, near), acceptor.accept(far));
        client.is_ok()
    }

    #[tokio::test]
    async fn a_server_is_known_by_its_certificate_or_by_its_ca() {
        let (ca, other) = (authority(), authority());
        let ca_der = ca.der().clone();
        let good = server(&ca, &ca_der);
        let [own, of_ca] = [&good.chain[0], &ca_der].map(Fingerprint::of);
        assert!(connects(&good, own, "hub.example").await);
        assert!(connects(&good, own, "by.another.name").await);
        assert!(connects(&good, of_ca, "hub.example").await);
        assert!(!connects(&good, of_ca, "by.another.name").await);
        assert!(!connects(&good, Fingerprint::of(other.der()), "hub.example").await);
        // It shows the CA, and is not signed by it.
        let impostor = server(&other, &ca_der);
        assert!(!connects(&impostor, of_ca, "hub.example").await);
        assert!(!connects(&impostor, own, "hub.example").await);
        // A certificate that was renewed for the same key.
        let key = KeyPair::try_from(good.key.secret_der()).unwrap();
        let of_key = key.subject_public_key_info();
        let of_key = Fingerprint::of_public_key(&of_key.into());
        let params = CertificateParams::new(vec!["hub.example".to_owned()]).unwrap();
        let renewed = Server {
            chain: vec![params.signed_by(&key, &other).unwrap().der().clone()],
            key: good.key.clone_key(),
        };
        assert!(connects(&renewed, of_key, "hub.example").await);
        assert!(!connects(&renewed, own, "hub.example").await);
        assert!(!connects(&impostor, of_key, "hub.example").await);
        let thief = Server {
            chain: renewed.chain.clone(),
            key: impostor.key.clone_key(),
        };
        assert!(!connects_unchecked(&thief, of_key).await);
        // It shows the certificate, and has another key.
        let thief = Server {
            chain: good.chain.clone(),
            key: impostor.key.clone_key(),
        };
        assert!(!connects_unchecked(&thief, own).await);
    }

    /// As a server that does not look whether its key fits.
    async fn connects_unchecked(server: &Server, fingerprint: Fingerprint) -> bool {
        #[derive(Debug)]
        struct Shown(Arc<rustls::sign::CertifiedKey>);
        impl rustls::server::ResolvesServerCert for Shown {
            fn resolve(
                &self,
                _: rustls::server::ClientHello<'_>,
            ) -> Option<Arc<rustls::sign::CertifiedKey>> {
                Some(Arc::clone(&self.0))
            }
        }
        let key = provider()
            .key_provider
            .load_private_key(server.key.clone_key())
            .unwrap();
        let shown = Shown(Arc::new(rustls::sign::CertifiedKey::new(
            server.chain.clone(),
            key,
        )));
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(shown));
        let (near, far) = tokio::io::duplex(16 << 10);
        let client = TlsConnector::from(pinned_config(fingerprint, None).unwrap());
        let name = ServerName::try_from("hub.example").unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (client, _) = tokio::join!(client.connect(name, near), acceptor.accept(far));
        client.is_ok()
    }

    #[test]
    fn fingerprints_are_read_as_written() {
        let fingerprint = Fingerprint::of(&CertificateDer::from(b"x".to_vec()));
        let text = fingerprint.to_string();
        assert_eq!(Fingerprint::parse(&text.to_uppercase()), Some(fingerprint));
        assert_eq!(Fingerprint::parse(&text[1..]), None);
        assert_eq!(Fingerprint::parse("!"), None);
    }
}
