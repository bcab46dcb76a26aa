//! What a client showed in TLS.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;

use super::fingerprints;

/// The certificates that a client showed in TLS: its own, whose key it has proven to hold, and
/// whatever it sent along. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientChain(Arc<Shown>);

#[derive(Debug, PartialEq, Eq)]
struct Shown {
    own: CertificateDer<'static>,
    others: Vec<CertificateDer<'static>>,
}

impl ClientChain {
    /// Of the certificates as they came; `None` when there are none.
    pub fn new(certificates: &[CertificateDer<'_>]) -> Option<Self> {
        let (own, others) = certificates.split_first()?;
        Some(Self(Arc::new(Shown {
            own: own.clone().into_owned(),
            others: others.iter().map(|der| der.clone().into_owned()).collect(),
        })))
    }

    /// The client's own certificate.
    pub fn own(&self) -> &CertificateDer<'static> {
        &self.0.own
    }

    /// The others: intermediate CAs, if the client does as it should.
    pub fn others(&self) -> &[CertificateDer<'static>] {
        &self.0.others
    }

    /// The two kinds of thumbprint of the client's own certificate.
    pub fn fingerprints(&self) -> [String; 2] {
        fingerprints(self.own())
    }
}
