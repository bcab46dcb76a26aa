//! Operators by name: how service-proxy learns who their organisation's identity provider is, gets a
//! SAS token for a person that the provider knows, and asks for access ahead of time
//! (`docs/protocol.md`, "Operators by name"). It is ours: IoT Hub has Azure's own for it.

/// `GET`: the provider, for anybody. `POST`: an identity token becomes a SAS token.
pub const LOGIN_PATH: &str = "/access/login";
/// The largest answer to either: a connection string and a CA's certificates.
pub const ANSWER: usize = 64 << 10;
/// The longest identity token that is looked at.
pub const IDENTITY_TOKEN: usize = 16 << 10;
/// What the names of tokens begin with that the hub has issued by name; no shared access policy's
/// does.
pub const ISSUED: char = '~';
/// Names the request that waits for an approver, in the answer to a stream initiation.
pub const APPROVAL_HEADER: &str = "iothub-approval";

/// The members of requests and answers.
pub mod members {
    /// The provider's URL, as its identity tokens name it.
    pub const ISSUER: &str = "issuer";
    /// As whom the provider knows service-proxy.
    pub const CLIENT_ID: &str = "clientId";
    /// What is asked of the provider: a list of words.
    pub const SCOPES: &str = "scopes";
    /// The CA that has signed for the provider, PEM; absent when the system's are enough.
    pub const AUTHORITIES: &str = "certificateAuthorities";
    /// What the provider says of a person, signed by it.
    pub const IDENTITY_TOKEN: &str = "identityToken";
    /// The connection string, with a SAS token.
    pub const CONNECTION_STRING: &str = "connectionString";
    /// Who it is for.
    pub const PERSON: &str = "person";
    /// Until when it works, Unix seconds.
    pub const EXPIRES: &str = "expires";
}
