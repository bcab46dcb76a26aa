//! The one certificate that all listeners show, exchanged while the hub runs.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use common::tls::Fingerprint;
use rustls::Error;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// The certificate in use.
pub struct CertificateSlot(RwLock<Arc<CertifiedKey>>);

impl CertificateSlot {
    /// Starts with this certificate chain and key.
    ///
    /// # Errors
    /// When they do not fit together.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Arc<Self>, Error> {
        let certified = certified(chain, key)?;
        Ok(Arc::new(Self(RwLock::new(Arc::new(certified)))))
    }

    /// What clients have to trust: the CA that the chain ends with if it is one that signs itself,
    /// which public CAs do not send along, else the server's own certificate.
    pub fn anchor(&self) -> Anchor {
        let certified = Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner));
        let own = certified.cert.first().cloned();
        let authority = certified.cert.last().filter(|last| is_self_signed(last));
        match (authority, own) {
            (Some(authority), _) => Anchor::Own(authority.clone()),
            (None, Some(own)) => Anchor::Public(own),
            // rustls makes no pair of an empty chain.
            (None, None) => Anchor::Public(CertificateDer::from(Vec::new())),
        }
    }

    /// New connections get this certificate from now on.
    ///
    /// # Errors
    /// When chain and key do not fit together; the old certificate stays.
    pub fn replace(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<(), Error> {
        let certified = Arc::new(certified(chain, key)?);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = certified;
        Ok(())
    }
}

/// What the clients of a hub have to trust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Anchor {
    /// This CA, which no system knows; or a certificate that has signed itself.
    Own(CertificateDer<'static>),
    /// A CA that the hub does not send along; this is the server's certificate.
    Public(CertificateDer<'static>),
}

impl Anchor {
    /// The certificate by which an enrolment code names the hub.
    pub fn fingerprint(&self) -> Fingerprint {
        let (Self::Own(certificate) | Self::Public(certificate)) = self;
        Fingerprint::of(certificate)
    }
}

fn is_self_signed(certificate: &CertificateDer<'_>) -> bool {
    x509_parser::parse_x509_certificate(certificate)
        .is_ok_and(|(_, found)| found.issuer() == found.subject())
}

fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<CertifiedKey, Error> {
    CertifiedKey::from_der(chain, key, &common::tls::provider())
}

impl fmt::Debug for CertificateSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CertificateSlot")
    }
}

impl ResolvesServerCert for CertificateSlot {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let slot = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(&slot))
    }
}
