//! People by OpenID Connect: the organisation's identity provider says who somebody is, and the hub
//! believes what it has signed. service-proxy talks to the provider itself; the hub only reads the
//! provider's keys, and checks the identity tokens that it is shown.

mod provider;
mod verify;

use std::path::PathBuf;

pub use self::provider::{AnyKeys, Provider, ProviderError};
pub use self::verify::{IdentityError, verify};
pub use jsonwebtoken::Algorithm;

/// Algorithms that are believed unless others are named: of keys whose public half the provider
/// shows. Those with a shared secret (HS256) are none of them, and neither is `none`.
pub const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// How the provider knows us, and what its tokens have to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OidcSettings {
    /// The provider's URL, exactly as its tokens name it.
    pub issuer: String,
    /// As whom it knows service-proxy, for the device flow. A secret of that client is service-proxy's.
    pub client_id: String,
    /// For whom its tokens have to be; mostly the client itself.
    pub audience: String,
    /// What service-proxy asks for.
    pub scopes: Vec<String>,
    /// The claim with the person's name.
    pub name_claim: String,
    /// The claim with the groups; with dots, a claim in a claim.
    pub groups_claim: String,
    /// By which algorithms tokens may be signed.
    pub algorithms: Vec<Algorithm>,
    /// A CA for the provider in addition to the system's.
    pub ca_file: Option<PathBuf>,
}
