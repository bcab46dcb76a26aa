//! A certificate that the CA has signed.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;

use super::AcmeError;
use super::attempts::Validity;

/// A certificate with its chain and key, for the hub's host name.
#[derive(Debug, Clone)]
pub struct Issued {
    /// What listeners show.
    pub certified: Arc<CertifiedKey>,
    /// From when to when.
    pub validity: Validity,
    /// Its serial number, in hexadecimal digits.
    pub serial: String,
    /// A number of this certificate, for [`Validity::renewal`].
    pub spread: u8,
}

impl Issued {
    /// From a chain in PEM.
    ///
    /// # Errors
    /// [`AcmeError`] when it is not for this host, or not for this key.
    pub fn read(pem: &str, host: &str, key: PrivateKeyDer<'static>) -> Result<Self, AcmeError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|_| AcmeError::Other("it is not PEM"))?;
        let own = chain.first().ok_or(AcmeError::Other("there is none"))?;
        let name = ServerName::try_from(host).map_err(|_| AcmeError::Other("it has no name"))?;
        verify_server_name(&ParsedCertificate::try_from(own)?, &name)?;
        let (_, parsed) = x509_parser::parse_x509_certificate(own)
            .map_err(|_| AcmeError::Other("it is not X.509"))?;
        let serial: String = parsed
            .raw_serial()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let validity = Validity {
            not_before: parsed.validity().not_before.to_datetime(),
            not_after: parsed.validity().not_after.to_datetime(),
        };
        let spread = parsed.raw_serial().last().copied().unwrap_or_default();
        let certified = CertifiedKey::from_der(chain, key, &common::tls::provider())?;
        Ok(Self {
            certified: Arc::new(certified),
            validity,
            serial,
            spread,
        })
    }

    /// Those of these CAs that have signed it: no system knows them.
    pub fn authorities(
        &self,
        host: &str,
        roots: &[CertificateDer<'static>],
    ) -> Vec<CertificateDer<'static>> {
        let has_signed = |root: &&CertificateDer<'static>| self.is_signed_by(root, host).is_some();
        roots.iter().filter(has_signed).cloned().collect()
    }

    fn is_signed_by(&self, root: &CertificateDer<'static>, host: &str) -> Option<()> {
        let mut roots = RootCertStore::empty();
        roots.add(root.clone()).ok()?;
        let provider = common::tls::provider();
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        let (own, others) = self.certified.cert.split_first()?;
        let name = ServerName::try_from(host).ok()?;
        // When it is valid is another question.
        let begin = u64::try_from(self.validity.not_before.unix_timestamp()).ok()?;
        let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(begin));
        let verifier = verifier.build().ok()?;
        verifier
            .verify_server_cert(own, others, &name, &[], at)
            .ok()?;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

    use super::*;

    const HOST: &str = "hub.example.com";

    #[test]
    fn a_certificate_is_for_this_host_and_this_key_and_knows_its_ca() {
        let ca = |name: &str| {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params
                .distinguished_name
                .push(rcgen::DnType::CommonName, name);
            CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
        };
        let (by, other) = (ca("one"), ca("other"));
        let key = KeyPair::generate().unwrap();
        let der = || PrivateKeyDer::from(KeyPair::from_pem(&key.serialize_pem()).unwrap());
        let pem = |host: &str| {
            let params = CertificateParams::new(vec![host.to_owned()]).unwrap();
            params.signed_by(&key, &by).unwrap().pem()
        };
        let issued = Issued::read(&pem(HOST), HOST, der()).unwrap();
        assert!(!issued.validity.is_over(time::OffsetDateTime::now_utc()));
        let roots = [other.der().clone(), by.der().clone()];
        assert_eq!(issued.authorities(HOST, &roots), [by.der().clone()]);
        let foreign = PrivateKeyDer::from(KeyPair::generate().unwrap());
        assert!(Issued::read(&pem(HOST), HOST, foreign).is_err());
        assert!(Issued::read(&pem("other.example.com"), HOST, der()).is_err());
        assert!(Issued::read("", HOST, der()).is_err());
        assert!(Issued::read(&key.serialize_pem(), HOST, der()).is_err());
    }
}
