//! Which devices and modules exist, how each proves its identity, and which shared
//! access policies there are. A trait, so that another store can take SQLite's place.

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;
use common::identity::{DeviceId, DeviceIdentity};
use common::secret::SharedKey;

pub mod activity;
pub mod credentials;
mod scope;
mod sqlite;
pub mod twin;

pub use activity::{Activity, ActivityRecord};
pub use scope::ScopeError;
pub use sqlite::SqliteRegistry;
pub use twin::{Twin, TwinPatch, TwinRuleError};

/// Whether an identity may connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It may.
    Enabled,
    /// It may not; a disabled device's modules may not either.
    Disabled,
}

impl Status {
    /// IoT Hub's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Disabled => "disabled",
        }
    }

    /// Reads the word, in any case.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Enabled, Self::Disabled]
            .into_iter()
            .find(|status| text.eq_ignore_ascii_case(status.as_str()))
    }
}

/// A certificate's SHA-1 or SHA-256 digest: 40 or 64 upper-case hex digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thumbprint(String);

impl Thumbprint {
    /// Reads hex digits; blanks and colons between them do not count, nor does case.
    pub fn parse(text: &str) -> Option<Self> {
        let digits: String = text
            .chars()
            .filter(|c| !c.is_whitespace() && *c != ':')
            .map(|c| c.to_ascii_uppercase())
            .collect();
        let fits = matches!(digits.len(), 40 | 64) && digits.bytes().all(|b| b.is_ascii_hexdigit());
        fits.then_some(Self(digits))
    }

    /// Upper-case hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How an identity proves itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authentication {
    /// SAS tokens signed with one of two keys.
    Sas {
        /// The usual key.
        primary: SharedKey,
        /// The key to change over to.
        secondary: SharedKey,
    },
    /// A TLS client certificate with one of two thumbprints.
    SelfSigned {
        /// The usual certificate.
        primary: Option<Thumbprint>,
        /// The certificate to change over to.
        secondary: Option<Thumbprint>,
    },
    /// A certificate from a registered authority: kept, but no device can connect with
    /// it yet.
    CertificateAuthority,
    /// No way at all.
    None,
}

impl Authentication {
    /// Two fresh random keys.
    pub fn random_keys() -> Self {
        Self::Sas {
            primary: SharedKey::random(),
            secondary: SharedKey::random(),
        }
    }

    /// IoT Hub's word for the kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Sas { .. } => "sas",
            Self::SelfSigned { .. } => "selfSigned",
            Self::CertificateAuthority => "certificateAuthority",
            Self::None => "none",
        }
    }
}

/// A device or a module, as the registry knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its name.
    pub id: DeviceIdentity,
    /// Tells an identity from an earlier one of the same name: decimal digits.
    pub generation_id: String,
    /// Changes with every update: unquoted base64 text.
    pub etag: String,
    /// Whether it may connect. Modules have their device's.
    pub status: Status,
    /// Why, in the operator's words.
    pub status_reason: Option<String>,
    /// When the status last changed, Unix seconds.
    pub status_updated: Option<u64>,
    /// Its proof of identity.
    pub authentication: Authentication,
    /// Whether it is an edge device; a module never is.
    pub iot_edge: bool,
    /// An edge device's own scope, or the scope of a leaf device's parent.
    pub device_scope: Option<String>,
    /// The scope of its parent, if it has one.
    pub parent_scopes: Vec<String>,
    /// Who manages it; only modules have one.
    pub managed_by: Option<String>,
    /// When it was last here, as far as it has been stored.
    pub activity: Activity,
}

impl Identity {
    /// What an update would have to set to change nothing.
    pub fn settings(&self) -> IdentitySettings {
        IdentitySettings {
            status: self.status,
            status_reason: self.status_reason.clone(),
            authentication: self.authentication.clone(),
            iot_edge: self.iot_edge,
            device_scope: self.device_scope.clone(),
            parent_scopes: self.parent_scopes.clone(),
            managed_by: self.managed_by.clone(),
        }
    }
}

/// What an update sets; the whole of what can be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentitySettings {
    /// Whether it may connect.
    pub status: Status,
    /// Why, in the operator's words.
    pub status_reason: Option<String>,
    /// Its proof of identity.
    pub authentication: Authentication,
    /// Whether it is an edge device. Modules have no capabilities: theirs is not kept.
    pub iot_edge: bool,
    /// A leaf device's parent, by its scope; empty for none, `None` to take it from
    /// `parent_scopes`. An edge device's own scope is the registry's business.
    pub device_scope: Option<String>,
    /// A device's parent, by its scope.
    pub parent_scopes: Vec<String>,
    /// Who manages a module. It is not kept for a device.
    pub managed_by: Option<String>,
}

impl IdentitySettings {
    /// An enabled identity that proves itself in this way, and nothing else.
    pub fn new(authentication: Authentication) -> Self {
        Self {
            status: Status::Enabled,
            status_reason: None,
            authentication,
            iot_edge: false,
            device_scope: None,
            parent_scopes: Vec::new(),
            managed_by: None,
        }
    }
}

/// The condition on which an identity is changed or deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IfMatch {
    /// Whatever its etag.
    Any,
    /// Only with this etag.
    Etag(String),
}

/// What a shared access policy allows (`docs/protocol.md`, "SAS tokens and policies").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Permissions {
    /// Read identities.
    pub registry_read: bool,
    /// Read and change identities.
    pub registry_write: bool,
    /// Service endpoints: streams, twins.
    pub service_connect: bool,
    /// Device endpoints, for any device.
    pub device_connect: bool,
}

impl Permissions {
    /// IoT Hub's words, in its order.
    pub fn names(self) -> Vec<&'static str> {
        [
            (self.registry_read, "RegistryRead"),
            (self.registry_write, "RegistryReadWrite"),
            (self.service_connect, "ServiceConnect"),
            (self.device_connect, "DeviceConnect"),
        ]
        .into_iter()
        .filter_map(|(has, name)| has.then_some(name))
        .collect()
    }
}

/// A shared access policy: a named pair of keys with permissions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Its name, as `skn` and `SharedAccessKeyName` carry it.
    pub name: String,
    /// What its keys allow.
    pub permissions: Permissions,
    /// The usual key.
    pub primary: SharedKey,
    /// The key to change over to.
    pub secondary: SharedKey,
}

/// Topic filters with the QoS that was granted, 0 or 1. Only filters that a device of this
/// hub can be granted stand here, so that there are few and none is long.
pub type Subscriptions = BTreeMap<String, u8>;

/// How many devices there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statistics {
    /// All devices.
    pub total: u64,
    /// Those that may connect.
    pub enabled: u64,
}

/// Which identities were changed or deleted since a point in the registry's history.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// The point up to which this list goes; ask from here next time.
    pub upto: u64,
    /// Each changed or deleted identity, in no order, possibly twice. A device that is
    /// deleted, or whose status changes, stands for its modules too.
    pub identities: Vec<DeviceIdentity>,
    /// History does not reach back to the point: anything may have changed, also what
    /// `identities` does not name. Whoever holds identities looks at all of them again.
    pub gap: bool,
}

/// Whom a row of the database is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Owner {
    /// A device or module.
    Identity(DeviceIdentity),
    /// A row whose id is damaged itself.
    Unknown,
    /// A shared access policy.
    Policy(String),
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity(id) => write!(f, "{id}"),
            Self::Unknown => f.write_str("an identity"),
            Self::Policy(name) => write!(f, "the shared access policy {name:?}"),
        }
    }
}

fn repair(owner: &Owner) -> &'static str {
    match owner {
        Owner::Identity(_) => "delete the identity and create it again",
        Owner::Unknown | Owner::Policy(_) => "restore the database from a backup",
    }
}

/// Why the registry did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RegistryError {
    /// There is no such identity.
    #[error("{0} does not exist")]
    NotFound(DeviceIdentity),
    /// There is one already.
    #[error("{0} already exists")]
    AlreadyExists(DeviceIdentity),
    /// It was changed in between.
    #[error("{0} has another etag: it was changed in between")]
    PreconditionFailed(DeviceIdentity),
    /// A twin would no longer keep its rules.
    #[error(transparent)]
    TwinRule(#[from] TwinRuleError),
    /// What the database holds of one identity or policy cannot be read.
    #[error("{what} of {owner} in the database is damaged; {}", repair(owner))]
    Damaged {
        /// Whose.
        owner: Owner,
        /// Which part.
        what: &'static str,
    },
    /// A device cannot have this parent.
    #[error(transparent)]
    Scope(#[from] ScopeError),
    /// The store failed.
    #[error("the registry's store failed: {0}")]
    Store(String),
}

/// The registry. Every change is durable when its call returns.
#[async_trait]
pub trait Registry: Send + Sync + 'static {
    /// One identity. A module has its device's status.
    async fn identity(&self, id: &DeviceIdentity) -> Result<Option<Identity>, RegistryError>;

    /// At most `max` devices, in the order of their ids. One that is damaged is left out, and
    /// the log names it once.
    async fn devices(&self, max: usize) -> Result<Vec<Identity>, RegistryError>;

    /// All modules of a device, in the order of their ids; none when there is no device. One
    /// that is damaged is left out, and the log names it once.
    async fn modules(&self, device: &DeviceId) -> Result<Vec<Identity>, RegistryError>;

    /// Adds an identity; a module needs its device ([`RegistryError::NotFound`] names it).
    async fn create(
        &self,
        id: &DeviceIdentity,
        settings: IdentitySettings,
    ) -> Result<Identity, RegistryError>;

    /// Replaces an identity's settings. A module's status is not changed.
    async fn update(
        &self,
        id: &DeviceIdentity,
        settings: IdentitySettings,
        condition: IfMatch,
    ) -> Result<Identity, RegistryError>;

    /// Removes an identity, and with a device its modules.
    async fn delete(&self, id: &DeviceIdentity, condition: IfMatch) -> Result<(), RegistryError>;

    /// The twin of an identity; `None` when there is no such identity.
    async fn twin(&self, id: &DeviceIdentity) -> Result<Option<Twin>, RegistryError>;

    /// Merges a patch into the reported properties of an identity's twin, whole or not
    /// at all, and returns their new version. No change in the sense of
    /// [`Registry::changes_since`].
    async fn patch_reported(
        &self,
        id: &DeviceIdentity,
        patch: TwinPatch,
    ) -> Result<u64, RegistryError>;

    /// What an identity of this generation has subscribed in a session that outlives its
    /// connections; empty when it has no such session.
    async fn subscriptions(
        &self,
        id: &DeviceIdentity,
        generation: &str,
    ) -> Result<Subscriptions, RegistryError>;

    /// Puts these in the place of what the identity had subscribed; empty ends its session.
    /// For an identity that is gone, or was made anew, nothing is kept. Calls are carried
    /// out in their order, also when the future is dropped. No change in the sense of
    /// [`Registry::changes_since`].
    async fn keep_subscriptions(
        &self,
        id: &DeviceIdentity,
        generation: &str,
        filters: Subscriptions,
    ) -> Result<(), RegistryError>;

    /// Stores when identities were last here; of those that are gone, or were made anew,
    /// nothing is stored. No change in the sense of [`Registry::changes_since`].
    async fn record_activity(&self, records: Vec<ActivityRecord>) -> Result<(), RegistryError>;

    /// Counts devices.
    async fn statistics(&self) -> Result<Statistics, RegistryError>;

    /// One shared access policy.
    async fn policy(&self, name: &str) -> Result<Option<Policy>, RegistryError>;

    /// All shared access policies, but for those that are damaged; the log names them once.
    async fn policies(&self) -> Result<Vec<Policy>, RegistryError>;

    /// What has changed since a point, by this or another process; from zero, only the
    /// present point is told, which itself is never zero. Cheap when nothing has.
    async fn changes_since(&self, point: u64) -> Result<Changes, RegistryError>;
}
