//! From a credential to a principal. Authentication yields a value that only this
//! module makes; what needs it takes it as an argument.

mod certificate;
mod sas;
mod stream_token;

pub use certificate::{AnyClientCertificate, fingerprints};
pub use sas::{Authenticator, DeviceProof};
pub use stream_token::{StreamTokens, TokenRefused};

use common::identity::{DeviceId, DeviceIdentity};
use common::wire::problem::ErrorCode;
use http::Method;

use crate::refusal::Refusal;
use crate::registry::{Permissions, RegistryError};

/// A device or module that has proven its identity.
#[derive(Debug, Clone)]
#[must_use]
pub struct DevicePrincipal {
    /// Who it is.
    pub identity: DeviceIdentity,
    /// When its proof ends, Unix seconds; a certificate does not end.
    pub expires: Option<u64>,
    /// Tells the key or certificate of the proof from others without being one.
    pub credential: Credential,
    /// Tells the identity from an earlier or later one of the same name.
    pub generation_id: String,
}

/// A digest of the key or certificate with which a session was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// SHA-256 over a symmetric key of the identity.
    Key([u8; 32]),
    /// SHA-256 over a symmetric key of the device that a module belongs to.
    DeviceKey([u8; 32]),
    /// SHA-256 over a shared access policy's key.
    PolicyKey([u8; 32]),
    /// SHA-1 and SHA-256 thumbprints of a client certificate, upper-case hex.
    Certificate([String; 2]),
}

/// A back-end program that has proven to hold a policy's key.
#[derive(Debug, Clone)]
#[must_use]
pub struct ServicePrincipal {
    /// The shared access policy.
    pub policy: String,
    /// What it allows.
    pub permissions: Permissions,
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
    /// Initiate streams, read twins.
    ServiceConnect,
    /// Query twins: reading identities and reading twins each permit it.
    Query,
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
            Self::Query => {
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
    /// The signature is not by the right key, or the certificate is another one.
    #[error("the key or certificate is not the identity's")]
    WrongKey,
    /// The policy does not allow it.
    #[error("the shared access policy does not allow this")]
    Permission,
    /// The registry could not be asked.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl AuthError {
    /// What a REST client sees: never which part was wrong.
    pub fn into_refusal(self) -> Refusal {
        match self {
            Self::Registry(error) => Refusal::from(error),
            Self::Expired => Refusal::new(ErrorCode::UNAUTHORIZED, "Unauthorized: token expired"),
            _ => Refusal::new(ErrorCode::UNAUTHORIZED_ACCESS, "Unauthorized"),
        }
    }
}
