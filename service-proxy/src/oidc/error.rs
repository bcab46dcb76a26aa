//! Why somebody is not logged in.

use std::path::PathBuf;

use common::net::HttpsError;
use common::tls::TlsConfigError;

/// The hub gives no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{hub} refuses the login ({status}): {reason}")]
pub struct HubRefusal {
    /// Who.
    pub hub: String,
    /// The HTTP status.
    pub status: u16,
    /// The hub's words, without control characters.
    pub reason: String,
}

/// Why somebody is not logged in.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The hub cannot be asked.
    #[error("the hub {hub} cannot be asked who its identity provider is")]
    Hub {
        /// Which.
        hub: String,
        /// Why not.
        #[source]
        source: Box<HttpsError>,
    },
    /// The hub has no identity provider.
    #[error(
        "{0} has no identity provider: give a code from `stream-hub enrol --operator` instead, or have [oidc] configured there"
    )]
    NoProvider(String),
    /// The hub's answer is none.
    #[error("{0} answered what no hub with an identity provider does")]
    Answer(String),
    /// The hub gives no token.
    #[error(transparent)]
    Refused(#[from] HubRefusal),
    /// The provider cannot be asked.
    #[error("the identity provider {issuer} cannot be asked")]
    Provider {
        /// Which.
        issuer: String,
        /// Why not.
        #[source]
        source: Box<HttpsError>,
    },
    /// The provider does not have what is needed.
    #[error("the identity provider {issuer} {missing}")]
    Unfit {
        /// Which.
        issuer: String,
        /// What is missing.
        missing: &'static str,
    },
    /// The provider says no, by RFC 6749 or RFC 8628.
    #[error("the identity provider {issuer} refuses: {reason}")]
    Denied {
        /// Which.
        issuer: String,
        /// What it says.
        reason: String,
        /// Whether it is final: the same would be refused again.
        is_final: bool,
    },
    /// TLS is of no use.
    #[error(transparent)]
    Tls(#[from] TlsConfigError),
    /// What is kept for renewal cannot be read.
    #[error("{} cannot be read", .0.display())]
    Unreadable(PathBuf),
    /// It cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// What the provider would give could not be stored.
    #[error(
        "{} cannot be written, so the identity provider is not asked: what it would give would be lost",
        path.display()
    )]
    NotKept {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// It is too late to ask the provider.
    #[error("service-proxy is ending")]
    Ending,
    /// Another process holds the lock.
    #[error("another service-proxy has been renewing the login for too long")]
    Locked,
}

impl LoginError {
    /// Whether only a new login helps.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Denied { is_final, .. } => *is_final,
            Self::Refused(refusal) => refusal.status == 401 || refusal.status == 403,
            Self::NoProvider(_) | Self::Unreadable(_) => true,
            _ => false,
        }
    }
}

/// A login was not renewed. With its cause one sentence for a person.
#[derive(Debug, thiserror::Error)]
#[error("the login at {hub} is not renewed{}", if .source.is_final() { format!("; log in again with `service-proxy login --hub {hub} --force`") } else { String::new() })]
pub struct NotRenewed {
    /// The hub.
    pub hub: String,
    /// Why not.
    #[source]
    pub source: LoginError,
}
