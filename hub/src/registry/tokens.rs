//! Tokens that the hub has issued by name, each with a key of its own: so each can be revoked before
//! it expires, and says who uses it. On the wire they are SAS tokens as all others; in the place of a
//! shared access policy they name their row here.

use async_trait::async_trait;
use common::secret::SharedKey;

use super::RegistryError;

/// Tokens at once of one person: each machine has one or two.
pub const TOKENS_PER_PERSON: u32 = 64;

/// Which issued tokens there are. Each future may be dropped: a change is then carried out all the
/// same.
#[async_trait]
pub trait IssuedTokens: Send + Sync + 'static {
    /// Adds one, and removes those that have expired. A person keeps the newest
    /// [`TOKENS_PER_PERSON`]. False: the person is shut out, and gets none.
    async fn issue_token(&self, token: IssuedToken) -> Result<bool, RegistryError>;

    /// One, revoked or not, expired or not.
    async fn issued_token(&self, id: &str) -> Result<Option<IssuedToken>, RegistryError>;

    /// Whether one is neither gone nor revoked, and its holder not shut out. It may have expired.
    async fn token_stands(&self, id: &str) -> Result<bool, RegistryError>;

    /// All that work at `now`, Unix seconds, the newest first.
    async fn issued_tokens(&self, now: u64) -> Result<Vec<IssuedToken>, RegistryError>;

    /// Revokes one. False: there is none.
    async fn revoke_token(&self, id: &str, streams: OpenStreams) -> Result<bool, RegistryError>;

    /// Revokes all tokens of a person, also those under an earlier name, who gets no others from now on. Says how many worked at `now`.
    async fn shut_out(
        &self,
        person: &str,
        streams: OpenStreams,
        now: u64,
    ) -> Result<u64, RegistryError>;

    /// The reverse. False: the person was not shut out.
    async fn let_in(&self, person: &str) -> Result<bool, RegistryError>;

    /// Whether a person is shut out, whatever their name is by now; and what becomes of their streams.
    async fn shut_out_streams(&self, login: &Login) -> Result<Option<OpenStreams>, RegistryError>;

    /// Who is shut out.
    async fn shut_out_people(&self) -> Result<Vec<ShutOut>, RegistryError>;
}

/// What becomes of the streams that were opened with a token that is revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenStreams {
    /// They end within a second.
    End,
    /// They go on.
    Keep,
}

/// Somebody who gets no tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShutOut {
    /// The name in tokens.
    pub person: String,
    /// Since when, Unix seconds.
    pub since: u64,
    /// What became of the open streams.
    pub streams: OpenStreams,
}

/// A token that the hub has issued by name.
#[derive(Debug, Clone)]
pub struct IssuedToken {
    /// What it has in the place of a policy's name: [`common::wire::access::ISSUED`] and more.
    pub id: String,
    /// Who has it.
    pub holder: Holder,
    /// By what it is signed.
    pub key: SharedKey,
    /// Unix seconds.
    pub created: u64,
    /// Unix seconds.
    pub expires: u64,
    /// It was revoked, and what became of its streams.
    pub revoked: Option<OpenStreams>,
}

/// Who has an issued token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// Whoever was given it, under a name that the hub's operator chose; it has what a policy
    /// allows.
    Named {
        /// The name, for the log.
        name: String,
        /// The shared access policy.
        policy: String,
    },
    /// A person that the identity provider knows; what they may do is in the access file.
    Person(Login),
}

impl Holder {
    /// The name.
    pub fn name(&self) -> &str {
        match self {
            Self::Named { name, .. } => name,
            Self::Person(login) => &login.name,
        }
    }
}

/// What the identity provider has said of a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// Which provider.
    pub issuer: String,
    /// Who it is there: never given to anybody else.
    pub subject: String,
    /// The name for rules, lists and logs: an address mostly.
    pub name: String,
    /// The groups, as the provider names them.
    pub groups: Vec<String>,
}

impl Login {
    /// Whether both are the same person, whatever their names.
    pub fn is_same(&self, other: &Self) -> bool {
        self.issuer == other.issuer && self.subject == other.subject
    }
}

/// A new name for a token's row.
pub fn random_id() -> String {
    let random = u128::from_be_bytes(common::random::bytes());
    format!("{}{random:032x}", common::wire::access::ISSUED)
}
