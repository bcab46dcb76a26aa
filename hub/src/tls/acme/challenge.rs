//! Answers to TLS-ALPN-01 challenges (RFC 8737): who asks for the protocol `acme-tls/1` alone gets a
//! certificate with the challenge's digest, if one is being answered; all others get the hub's.

use std::fmt;
use std::sync::{Arc, Mutex};

use common::locks::lock;
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::AcmeError;
use crate::tls::slot::CertificateSlot;

/// The protocol of a challenge, in ALPN.
pub const PROTOCOL: &[u8] = b"acme-tls/1";

/// The certificates of the HTTPS listener.
pub struct Challenges {
    slot: Arc<CertificateSlot>,
    answer: Mutex<Option<(String, Arc<CertifiedKey>)>>,
}

impl Challenges {
    /// Answers none yet.
    pub fn new(slot: &Arc<CertificateSlot>) -> Arc<Self> {
        Arc::new(Self {
            slot: Arc::clone(slot),
            answer: Mutex::default(),
        })
    }

    /// Answers this challenge for this host as long as the result lives; one at a time.
    ///
    /// # Errors
    /// [`AcmeError`] when its certificate cannot be made.
    pub(super) fn answer(
        self: &Arc<Self>,
        host: &str,
        digest: &[u8],
    ) -> Result<Answering, AcmeError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![host.to_owned()])?;
        params.distinguished_name = DistinguishedName::new();
        params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
        let chain = vec![params.self_signed(&key)?.der().clone()];
        let key = common::tls::provider()
            .key_provider
            .load_private_key(key.into())?;
        // Not by way of a check: rustls does not know the critical extension.
        let certified = CertifiedKey::new(chain, key);
        *lock(&self.answer) = Some((host.to_owned(), Arc::new(certified)));
        Ok(Answering(Arc::clone(self)))
    }
}

impl ResolvesServerCert for Challenges {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if !hello
            .alpn()
            .is_some_and(|protocols| protocols.eq([PROTOCOL]))
        {
            return self.slot.resolve(hello);
        }
        let answer = lock(&self.answer);
        let (host, certified) = answer.as_ref()?;
        let is_asked = hello.server_name()?.eq_ignore_ascii_case(host);
        is_asked.then(|| Arc::clone(certified))
    }
}

impl fmt::Debug for Challenges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Challenges")
    }
}

/// A challenge is being answered.
pub(super) struct Answering(Arc<Challenges>);

impl Drop for Answering {
    fn drop(&mut self) {
        *lock(&self.0.answer) = None;
    }
}

#[cfg(test)]
mod tests {
    use common::tls::Fingerprint;
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ServerConfig};
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;
    use crate::tls::any_server::AnyServer;
    use crate::tls::slot::Anchor;

    const HOST: &str = "hub.example.com";

    /// The certificate that a client of these protocols sees, and the protocol: the same, however
    /// many records its ClientHello is in.
    async fn seen(
        challenges: &Arc<Challenges>,
        name: &str,
        protocols: &[&[u8]],
    ) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
        let whole = seen_by(challenges, name, protocols, None).await;
        let in_pieces = seen_by(challenges, name, protocols, Some(32)).await;
        assert_eq!(whole, in_pieces);
        whole
    }

    async fn seen_by(
        challenges: &Arc<Challenges>,
        name: &str,
        protocols: &[&[u8]],
        record: Option<usize>,
    ) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
        let mut server = ServerConfig::builder_with_provider(common::tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(challenges) as Arc<dyn ResolvesServerCert>);
        server.alpn_protocols = vec![b"http/1.1".to_vec(), PROTOCOL.to_vec()];
        let mut client = ClientConfig::builder_with_provider(common::tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer(common::tls::provider())))
            .with_no_client_auth();
        client.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        client.max_fragment_size = record;
        let (near, far) = tokio::io::duplex(16 << 10);
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let client = TlsConnector::from(Arc::new(client));
        let acceptor = TlsAcceptor::from(Arc::new(server));
        let (client, _) = tokio::join!(client.connect(name, near), acceptor.accept(far));
        let client = client.ok()?;
        let (_, connection) = client.get_ref();
        let certificate = connection.peer_certificates()?.first()?.to_vec();
        Some((certificate, connection.alpn_protocol().map(<[u8]>::to_vec)))
    }

    #[tokio::test]
    async fn a_challenge_is_answered_while_there_is_one_and_for_its_host_only() {
        let own = rcgen::generate_simple_self_signed(vec![HOST.to_owned()]).unwrap();
        let own_der = own.cert.der().clone();
        let slot = CertificateSlot::empty(Anchor {
            fingerprint: Fingerprint::of(&own_der),
            authorities: Vec::new(),
        });
        let challenges = Challenges::new(&slot);
        let ordinary: [&[&[u8]]; 3] = [&[], &[b"http/1.1"], &[PROTOCOL, b"http/1.1"]];
        let digest = [0x5a; 32];
        // The first certificate is still to come.
        let answering = challenges.answer(HOST, &digest).unwrap();
        for protocols in ordinary {
            assert_eq!(seen(&challenges, HOST, protocols).await, None);
        }
        let (answer, protocol) = seen(&challenges, "HUB.example.com", &[PROTOCOL])
            .await
            .unwrap();
        assert_eq!(protocol.as_deref(), Some(PROTOCOL));
        let (_, parsed) = x509_parser::parse_x509_certificate(&answer).unwrap();
        // id-pe-acmeIdentifier (RFC 8737): an octet string in an octet string.
        let identifier = parsed
            .extensions()
            .iter()
            .find(|found| found.oid.to_id_string() == "1.3.6.1.5.5.7.1.31" && found.critical);
        assert_eq!(identifier.unwrap().value, [&[4, 32], &digest[..]].concat());
        let names = parsed.subject_alternative_name().unwrap().unwrap();
        assert_eq!(names.value.general_names.len(), 1);

        slot.replace(vec![own_der.clone()], own.signing_key.into())
            .unwrap();
        for protocols in ordinary {
            let (certificate, protocol) = seen(&challenges, HOST, protocols).await.unwrap();
            assert_eq!(certificate, own_der.as_ref());
            assert_ne!(protocol.as_deref(), Some(PROTOCOL));
        }
        assert_eq!(
            seen(&challenges, "other.example.com", &[PROTOCOL]).await,
            None
        );
        assert!(seen(&challenges, HOST, &[PROTOCOL]).await.is_some());
        drop(answering);
        assert_eq!(seen(&challenges, HOST, &[PROTOCOL]).await, None);
    }
}
