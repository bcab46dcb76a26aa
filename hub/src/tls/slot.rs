//! The one certificate that all listeners show, exchanged while the hub runs.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use common::tls::Fingerprint;
use rustls::Error;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;

/// The certificate in use, and what clients are told of it.
pub struct CertificateSlot(RwLock<Shown>);

struct Shown {
    /// `None`: there is no certificate yet, and handshakes are refused.
    certified: Option<Arc<CertifiedKey>>,
    anchor: Arc<Anchor>,
}

impl CertificateSlot {
    /// Starts with this certificate chain and key; what clients have to trust is read from the
    /// chain.
    ///
    /// # Errors
    /// When they do not fit together.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Arc<Self>, Error> {
        let certified = certified(chain, key)?;
        let anchor = Arc::new(Anchor::of(&certified));
        Ok(Arc::new(Self(RwLock::new(Shown {
            certified: Some(Arc::new(certified)),
            anchor,
        }))))
    }

    /// Starts without a certificate: TLS handshakes are refused until [`show`](Self::show).
    pub fn empty(anchor: Anchor) -> Arc<Self> {
        Arc::new(Self(RwLock::new(Shown {
            certified: None,
            anchor: Arc::new(anchor),
        })))
    }

    /// When the certificate in use expires; `None`: there is none, or it cannot be read.
    pub fn expires(&self) -> Option<OffsetDateTime> {
        let certified = self.read().certified.clone()?;
        let (_, found) = x509_parser::parse_x509_certificate(certified.cert.first()?).ok()?;
        Some(found.validity().not_after.to_datetime())
    }

    /// What clients have to trust.
    pub fn anchor(&self) -> Arc<Anchor> {
        Arc::clone(&self.read().anchor)
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
        let certified = certified(chain, key)?;
        let anchor = Anchor::of(&certified);
        self.show(Arc::new(certified), anchor);
        Ok(())
    }

    /// The same, where what clients have to trust is known.
    pub fn show(&self, certified: Arc<CertifiedKey>, anchor: Anchor) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Shown {
            certified: Some(certified),
            anchor: Arc::new(anchor),
        };
    }

    fn read(&self) -> RwLockReadGuard<'_, Shown> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the clients of a hub have to trust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    /// By what an enrolment code names the hub: a CA of its own, or else the server's public key,
    /// which a renewed certificate may keep.
    pub fingerprint: Fingerprint,
    /// The CAs that no system knows; none: the system's roots are enough.
    pub authorities: Vec<CertificateDer<'static>>,
}

impl Anchor {
    /// The CA that the chain ends with if it is one that signs itself, which public CAs do not send
    /// along, else the server's public key.
    fn of(certified: &CertifiedKey) -> Self {
        match certified.cert.last().filter(|last| is_self_signed(last)) {
            Some(authority) => Self {
                fingerprint: Fingerprint::of(authority),
                authorities: vec![authority.clone()],
            },
            None => Self {
                fingerprint: match (certified.key.public_key(), certified.cert.first()) {
                    (Some(key), _) => Fingerprint::of_public_key(&key),
                    (None, Some(own)) => Fingerprint::of(own),
                    // rustls makes no pair of an empty chain.
                    (None, None) => Fingerprint::of(&CertificateDer::from(Vec::new())),
                },
                authorities: Vec::new(),
            },
        }
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
        self.read().certified.clone()
    }
}
