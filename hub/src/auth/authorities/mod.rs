//! Certificates that a registered CA has signed. Path, names, usage, times and revocation are
//! webpki's to judge; added is only what it leaves to its callers: that a certificate is this
//! identity's, and what the CA's own certificate says of its time and of the length of paths.
//!
//! What is registered is read when the registry has changed, and revocation lists when their files
//! have, so that a connection waits for no file. A list that cannot be read leaves the last one in
//! force; where there has been none, nothing that the CA signed is believed.

mod common_name;
mod crl;
mod known;

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use common::identity::DeviceIdentity;
use rustls::pki_types::UnixTime;
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};

pub use self::common_name::CommonNameError;
pub use self::crl::{CrlError, Crls};
pub use self::known::{AuthorityError, KnownAuthority};
use super::ClientChain;
use crate::events::{self, Event, Events};
use crate::registry::{Authority, Registry, RegistryError, StoreError};

/// The CAs whose certificates devices may show. Clones share them.
#[derive(Clone, Default)]
pub struct DeviceAuthorities(Arc<RwLock<Arc<Vec<KnownAuthority>>>>);

/// Why a certificate does not prove an identity. Only the log has it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateRefused {
    /// There is no CA that could have signed it.
    #[error("no CA is registered; `stream-hub ca add` does that")]
    NoAuthority,
    /// It is another's, or nobody's.
    #[error(transparent)]
    CommonName(#[from] CommonNameError),
    /// No registered CA has signed it.
    #[error("the certificate is of no registered CA, or its intermediate CAs were not sent along")]
    OtherAuthority,
    /// The CA's own certificate is too old or too new.
    #[error("the certificate of the CA {0:?} is not valid now")]
    AuthorityNotValid(String),
    /// The CA's revocation list could not be read since the hub has started.
    #[error("the revocation list of the CA {0:?} cannot be read")]
    NoCrl(String),
    /// Its time is over.
    #[error("the certificate, or one that it depends on, has expired")]
    Expired,
    /// Its time has not come.
    #[error("the certificate, or one that it depends on, is not valid yet")]
    NotYetValid,
    /// The CA does not stand for it any more.
    #[error("the certificate, or one that it depends on, is revoked")]
    Revoked,
    /// The file has no list of an intermediate CA.
    #[error(
        "the file of the CA's revocation lists has none of the CA that issued the certificate; every CA of the chain needs one"
    )]
    NoCrlOfIssuer,
    /// It breaks another rule.
    #[error("the certificate is not valid")]
    Invalid(#[source] webpki::Error),
}

impl From<webpki::Error> for CertificateRefused {
    fn from(error: webpki::Error) -> Self {
        match error {
            webpki::Error::UnknownIssuer => Self::OtherAuthority,
            webpki::Error::CertExpired { .. } => Self::Expired,
            webpki::Error::CertNotValidYet { .. } => Self::NotYetValid,
            webpki::Error::CertRevoked => Self::Revoked,
            webpki::Error::UnknownRevocationStatus => Self::NoCrlOfIssuer,
            other => Self::Invalid(other),
        }
    }
}

impl DeviceAuthorities {
    /// These, and no others until they are read from the registry.
    pub fn of(known: Vec<KnownAuthority>) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(known))))
    }

    /// Reads what is registered, and revocation lists that have changed; whether anything is not as
    /// it was. Dropped, it leaves all as it was.
    ///
    /// # Errors
    /// The registry's. What cannot be read of a file is an event.
    pub async fn read(
        &self,
        registry: &dyn Registry,
        events: &Events,
    ) -> Result<bool, RegistryError> {
        let stored = registry.authorities().await?;
        self.load(Some(stored), events.clone()).await
    }

    /// Reads revocation lists that have changed; whether any has. Cheap while there are none.
    /// Dropped, it leaves all as it was.
    ///
    /// # Errors
    /// When the process ends.
    pub async fn read_crls(&self, events: &Events) -> Result<bool, RegistryError> {
        if self.known().iter().any(KnownAuthority::has_crl_file) {
            self.load(None, events.clone()).await
        } else {
            Ok(false)
        }
    }

    async fn load(
        &self,
        stored: Option<Vec<Authority>>,
        events: Events,
    ) -> Result<bool, RegistryError> {
        let before = self.known();
        let work = move || {
            let stored = stored.unwrap_or_else(|| {
                let of = |known: &KnownAuthority| known.authority().clone();
                before.iter().map(of).collect()
            });
            let now: Vec<_> = stored
                .into_iter()
                .filter_map(|authority| {
                    let earlier = before
                        .iter()
                        .find(|known| known.authority().digest == authority.digest);
                    KnownAuthority::load(authority, earlier, &events)
                })
                .collect();
            let is_changed = now != *before;
            for gone in before.iter().filter(|known| !known.is_in(&now)) {
                let name = &gone.authority().name;
                events.emit(Event::Authority(events::Authority::Removed { name }));
            }
            for new in now.iter().filter(|known| !known.is_in(&before)) {
                let name = &new.authority().name;
                events.emit(Event::Authority(events::Authority::Added { name }));
            }
            (now, is_changed)
        };
        let (now, is_changed) = tokio::task::spawn_blocking(work)
            .await
            .map_err(|_| StoreError::QueryUnfinished)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(now);
        Ok(is_changed)
    }

    /// Judges whether a certificate that a client has proven to hold the key of is this identity's,
    /// at this time, Unix seconds. When it stops to be, Unix seconds.
    ///
    /// # Errors
    /// [`CertificateRefused`].
    pub fn verify(
        &self,
        chain: &ClientChain,
        identity: &DeviceIdentity,
        now: u64,
    ) -> Result<u64, CertificateRefused> {
        common_name::check(chain.own(), identity)?;
        let own = EndEntityCert::try_from(chain.own()).map_err(CertificateRefused::Invalid)?;
        let mut refused = CertificateRefused::NoAuthority;
        for known in self.known().iter() {
            match verify_by(known, &own, chain, now) {
                Ok(()) => return Ok(known::end(known, chain, now)),
                // What one CA finds wrong with its own certificate says more than that others do
                // not know it.
                Err(error) => {
                    if matches!(
                        refused,
                        CertificateRefused::NoAuthority | CertificateRefused::OtherAuthority
                    ) {
                        refused = error;
                    }
                }
            }
        }
        Err(refused)
    }

    fn known(&self) -> Arc<Vec<KnownAuthority>> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn verify_by(
    known: &KnownAuthority,
    own: &EndEntityCert<'_>,
    chain: &ClientChain,
    now: u64,
) -> Result<(), CertificateRefused> {
    let provider = common::tls::provider();
    let lists = known.crls().map(Crls::lists).unwrap_or_default();
    own.verify_for_usage(
        provider.signature_verification_algorithms.all,
        std::slice::from_ref(known.anchor()),
        chain.others(),
        UnixTime::since_unix_epoch(Duration::from_secs(now)),
        KeyUsage::client_auth(),
        crl::options(&lists),
        Some(&|path: &VerifiedPath<'_>| known.check_length(path)),
    )?;
    let name = || known.authority().name.clone();
    if !known.is_valid_at(now) {
        Err(CertificateRefused::AuthorityNotValid(name()))
    } else if known.has_crl_file() && lists.is_empty() {
        Err(CertificateRefused::NoCrl(name()))
    } else {
        Ok(())
    }
}

impl fmt::Debug for DeviceAuthorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.known().iter().map(|known| &known.authority().name))
            .finish()
    }
}

#[cfg(test)]
mod tests;
