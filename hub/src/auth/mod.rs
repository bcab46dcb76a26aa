//! From a credential to a principal. Authentication yields a value that only this
//! module makes; what needs it takes it as an argument.

mod authorities;
mod certificate;
mod client_chain;
mod sas;
mod stream_token;

pub use authorities::{
    AuthorityError, CertificateRefused, CrlError, Crls, DeviceAuthorities, KnownAuthority,
};
pub use certificate::{AnyClientCertificate, fingerprints};
pub use client_chain::ClientChain;
pub use sas::{Authenticator, DeviceProof};
pub use stream_token::{StreamTokens, TokenRefused};

use std::sync::Arc;

use common::identity::{DeviceId, DeviceIdentity};
use common::wire::problem::ErrorCode;
use http::Method;

use crate::refusal::Refusal;
use crate::registry::{Login, Permissions, RegistryError};

/// A device or module that has proven its identity.
#[derive(Debug, Clone)]
#[must_use]
pub struct DevicePrincipal {
    /// Who it is.
    pub identity: DeviceIdentity,
    /// When its proof ends, Unix seconds; a certificate that is known by its thumbprint does not
    /// end.
    pub expires: Option<u64>,
    /// Tells the key or certificate of the proof from others without being one.
    pub credential: Credential,
    /// Tells the identity from an earlier or later one of the same name.
    pub generation_id: String,
}

/// With which key or certificate a session was opened: of a key the digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// SHA-256 over a symmetric key of the identity.
    Key([u8; 32]),
    /// SHA-256 over a symmetric key of the device that a module belongs to.
    DeviceKey([u8; 32]),
    /// A key of this shared access policy: SHA-256 over it.
    PolicyKey(String, [u8; 32]),
    /// SHA-1 and SHA-256 thumbprints of a client certificate, upper-case hex.
    Certificate([String; 2]),
    /// A certificate of a registered CA, and what was sent along: whether it still counts is judged
    /// anew when CAs or their revocation lists change.
    Issued(ClientChain),
}

/// What a service's SAS token has to be for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// This path, without its leading slash and decoded, or one above it.
    pub below: String,
    /// Or exactly one of these.
    pub exactly: Vec<String>,
}

impl Scope {
    /// This path or one above it.
    pub fn of(path: impl Into<String>) -> Self {
        Self {
            below: path.into(),
            exactly: Vec::new(),
        }
    }
}

/// A back-end program that has proven to hold a policy's key.
#[derive(Debug, Clone)]
#[must_use]
pub struct ServicePrincipal {
    /// The shared access policy; of a person that has logged in, `oidc:` and the name, which no
    /// policy has.
    pub policy: String,
    /// What it allows.
    pub permissions: Permissions,
    /// Who it is by name, if its token was issued to somebody.
    pub person: Option<Arc<str>>,
    /// That token.
    pub token: Option<Arc<str>>,
    /// What the identity provider says of them, if they have logged in there: then the access file
    /// decides.
    pub login: Option<Arc<Login>>,
}

/// Who calls the REST API, and has proven it.
#[derive(Debug, Clone)]
#[must_use]
pub enum Caller {
    /// A back-end program.
    Service(ServicePrincipal),
    /// The device that the call is about.
    Device(DeviceId),
}

/// What a part of the REST API demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// Read identities.
    RegistryRead,
    /// Change identities.
    RegistryWrite,
    /// Initiate streams, write twins, call methods.
    ServiceConnect,
    /// Read a twin.
    TwinRead,
    /// Query twins: reading identities and reading twins each permit it.
    Query,
    /// Read jobs: reading identities and calling services each permit it.
    JobsRead,
    /// Make and cancel jobs: changing identities and calling services each permit it.
    Jobs,
    /// Nothing in particular: any policy will do.
    Any,
}

impl Permission {
    /// What a call about identities needs, by its method.
    pub fn of_registry(method: &Method) -> Self {
        if method == Method::GET {
            Self::RegistryRead
        } else {
            Self::RegistryWrite
        }
    }

    /// Whether these permissions are enough.
    pub fn is_met_by(self, granted: Permissions) -> bool {
        match self {
            Self::RegistryRead => granted.registry_read || granted.registry_write,
            Self::RegistryWrite => granted.registry_write,
            Self::ServiceConnect => granted.service_connect,
            Self::TwinRead => granted.twin_read || granted.service_connect,
            Self::Query => {
                Self::RegistryRead.is_met_by(granted) || Self::TwinRead.is_met_by(granted)
            }
            Self::JobsRead => {
                Self::RegistryRead.is_met_by(granted) || Self::ServiceConnect.is_met_by(granted)
            }
            Self::Jobs => granted.registry_write || granted.service_connect,
            Self::Any => true,
        }
    }
}

/// Why a credential is not believed. The texts are safe to log; none repeats a secret.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// There is no credential at all.
    #[error("no credential was given")]
    Missing,
    /// It is not of the right form.
    #[error("the credential is not a SAS token")]
    Malformed(#[from] common::sas_token::SasTokenError),
    /// It names another resource.
    #[error("the token is for another resource")]
    Scope,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// There is no such identity.
    #[error("the identity does not exist")]
    UnknownIdentity,
    /// The identity may not connect.
    #[error("the identity is disabled")]
    Disabled,
    /// There is no such policy.
    #[error("the shared access policy does not exist")]
    UnknownPolicy,
    /// The token was issued by name, and is gone.
    #[error("the token {0} was revoked, or expired long ago")]
    Revoked(String),
    /// The signature is not by the right key, or the certificate is another one.
    #[error("the key or certificate is not the identity's")]
    WrongKey,
    /// The certificate is not what a registered CA has given the identity.
    #[error(transparent)]
    Certificate(#[from] CertificateRefused),
    /// The policy does not allow it.
    #[error("the shared access policy does not allow this")]
    Permission,
    /// The registry could not be asked.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl AuthError {
    /// Names it among a fixed set of words.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed(_) => "malformed",
            Self::Scope => "scope",
            Self::Expired => "expired",
            Self::UnknownIdentity | Self::UnknownPolicy => "unknown",
            Self::Disabled => "disabled",
            Self::WrongKey => "wrong_key",
            Self::Certificate(_) => "certificate",
            Self::Revoked(_) => "revoked",
            Self::Permission => "permission",
            Self::Registry(_) => "registry",
        }
    }

    /// What a REST client sees: never which part was wrong.
    pub fn into_refusal(self) -> Refusal {
        match self {
            Self::Registry(error) => Refusal::from(error),
            Self::Expired => Refusal::new(ErrorCode::UNAUTHORIZED, "Unauthorized: token expired"),
            _ => Refusal::new(ErrorCode::UNAUTHORIZED_ACCESS, "Unauthorized"),
        }
    }
}
