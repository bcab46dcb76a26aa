//! CAs whose certificates devices may show: `authentication.type` `certificateAuthority`.

use std::path::PathBuf;

use async_trait::async_trait;
use rustls::pki_types::CertificateDer;

use super::RegistryError;

/// Which CAs are registered. Each future may be dropped.
#[async_trait]
pub trait Authorities: Send + Sync + 'static {
    /// All of them, by name, but for those that are damaged; the log names them once.
    async fn authorities(&self) -> Result<Vec<Authority>, RegistryError>;

    /// Adds one. It counts from the next look at the changes on.
    async fn add_authority(&self, authority: Authority) -> Result<AuthorityAdded, RegistryError>;

    /// Names another revocation list of it, or none. False: there is no CA of this name.
    async fn set_authority_crl(
        &self,
        name: &str,
        crl_file: Option<PathBuf>,
    ) -> Result<bool, RegistryError>;

    /// Removes one, and with it the sessions that its certificates opened, at the next look at the
    /// changes. False: there is no CA of this name.
    async fn remove_authority(&self, name: &str) -> Result<bool, RegistryError>;
}

/// A registered CA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// The operator's name for it.
    pub name: String,
    /// Its certificate.
    pub certificate: CertificateDer<'static>,
    /// Digest of its subject and public key: no two of these are registered, since each would have
    /// a revocation list of its own.
    pub digest: [u8; 32],
    /// The file with its revocation lists, absolute; none: nothing that it signed is revoked.
    pub crl_file: Option<PathBuf>,
    /// When it was added, Unix seconds.
    pub added: u64,
}

/// What came of adding a CA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthorityAdded {
    /// It is registered.
    Added,
    /// There is one of this name.
    NameTaken,
    /// It is registered under this name.
    Known(String),
}
