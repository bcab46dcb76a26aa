//! Whole handshakes with certificates of each version, in each version of TLS.

use rustls::client::ResolvesClientCert;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, ClientConnection, ServerConfig, ServerConnection, SupportedProtocolVersion,
    version,
};

use super::*;
use crate::tls::AnyServer;

/// Made by `openssl x509 -req -signkey`: of version 1.
const FIRST_VERSION: &str = include_str!("version1.pem");

/// Shows this certificate and signs with this key, whether or not they belong together.
#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl ResolvesClientCert for Shows {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// The certificate that the server has seen at the end of a handshake.
fn handshake(
    tls: &'static SupportedProtocolVersion,
    certificate: CertificateDer<'static>,
    key: &PrivateKeyDer<'static>,
) -> Result<CertificateDer<'static>, Error> {
    let provider = common::tls::provider();
    let own = rcgen::generate_simple_self_signed(["hub".to_owned()]).unwrap();
    let own_key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[tls])?
        .with_client_cert_verifier(Arc::new(AnyClientCertificate(Arc::clone(&provider))))
        .with_single_cert(vec![own.cert.der().clone()], own_key)?;
    let signer = provider.key_provider.load_private_key(key.clone_key())?;
    let shown = Arc::new(CertifiedKey::new(vec![certificate], signer));
    let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[tls])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(provider)))
        .with_client_cert_resolver(Arc::new(Shows(shown)));
    let mut server = ServerConnection::new(Arc::new(server))?;
    let name = ServerName::try_from("hub").unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name)?;
    let mut wire = Vec::new();
    while client.is_handshaking() || server.is_handshaking() {
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        server.read_tls(&mut wire.as_slice()).unwrap();
        wire.clear();
        server.process_new_packets()?;
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        client.read_tls(&mut wire.as_slice()).unwrap();
        wire.clear();
        client.process_new_packets()?;
    }
    let seen = server.peer_certificates().and_then(<[_]>::first);
    Ok(seen.unwrap().clone().into_owned())
}

fn first_version() -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let certificate = CertificateDer::from_pem_slice(FIRST_VERSION.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(FIRST_VERSION.as_bytes()).unwrap();
    (certificate, key)
}

fn third_version() -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let made = rcgen::generate_simple_self_signed(["device".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    (made.cert.der().clone(), key)
}

#[test]
fn certificates_of_each_version_prove_their_key() {
    let (old, _) = first_version();
    let (_, parsed) = x509_parser::parse_x509_certificate(&old).unwrap();
    assert_eq!(parsed.version(), x509_parser::prelude::X509Version::V1);
    for tls in [&version::TLS12, &version::TLS13] {
        for (certificate, key) in [first_version(), third_version()] {
            let seen = handshake(tls, certificate.clone(), &key).unwrap();
            assert_eq!(seen, certificate);
        }
    }
}

#[test]
fn a_certificate_without_its_key_is_refused() {
    let (_, other) = third_version();
    for tls in [&version::TLS12, &version::TLS13] {
        for (certificate, _) in [first_version(), third_version()] {
            let error = handshake(tls, certificate, &other).unwrap_err();
            let expected = CertificateError::BadSignature;
            assert_eq!(error, Error::InvalidCertificate(expected), "{tls:?}");
        }
    }
}

#[test]
fn what_is_no_certificate_is_refused() {
    let (_, key) = third_version();
    for tls in [&version::TLS12, &version::TLS13] {
        let error = handshake(tls, CertificateDer::from(vec![0x30, 0x00]), &key).unwrap_err();
        assert_eq!(error, Error::InvalidCertificate(BAD_ENCODING), "{tls:?}");
    }
}
