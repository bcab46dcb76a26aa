//! Devices and modules: what the registry keeps of each, and how each proves itself.

use std::fmt;

use async_trait::async_trait;
use common::identity::{DeviceId, DeviceIdentity};
use common::secret::SharedKey;

use super::{Activity, RegistryError};

/// Which devices and modules exist. Every change is durable when its call returns. Each future may
/// be dropped; a change that has begun is then carried out all the same.
#[async_trait]
pub trait Identities: Send + Sync + 'static {
    /// One identity. A module has its device's status.
    async fn identity(&self, id: &DeviceIdentity) -> Result<Option<Identity>, RegistryError>;

    /// The devices behind a cursor, or from the first one, in the order of their ids: at most
    /// `limit`. One that is damaged is left out, and the log names it once.
    async fn devices(&self, after: Option<&Cursor>, limit: usize) -> Result<Page, RegistryError>;

    /// The modules of a device in the same way; none when there is no device.
    async fn modules(
        &self,
        device: &DeviceId,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page, RegistryError>;

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

    /// Counts devices.
    async fn statistics(&self) -> Result<Statistics, RegistryError>;
}

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
    /// A TLS client certificate of a registered CA, with the identity's id as common name.
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
    /// How many messages wait for it; none wait for a module.
    pub messages: u64,
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

/// A part of a list. Pages are read one by one: what is made or removed meanwhile is in them or
/// not, and nothing is in them twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// In the order of their ids; there may be none although more follow.
    pub identities: Vec<Identity>,
    /// Where the list goes on; `None`: this is its end.
    pub next: Option<Cursor>,
}

/// A place in a list: behind this id. It is text as the store has it, since also an id that is
/// damaged has its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(pub(super) String);

/// The condition on which an identity is changed or deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IfMatch {
    /// Whatever its etag.
    Any,
    /// Only with this etag.
    Etag(String),
}

impl IfMatch {
    /// Reads `*` or an etag, with or without quotes; nothing is no condition.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let bare = text
            .strip_prefix('"')
            .and_then(|text| text.strip_suffix('"'))
            .unwrap_or(text);
        match bare {
            "" => None,
            "*" => Some(Self::Any),
            etag => Some(Self::Etag(etag.to_owned())),
        }
    }
}

/// How many devices there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statistics {
    /// All devices.
    pub total: u64,
    /// Those that may connect.
    pub enabled: u64,
}
