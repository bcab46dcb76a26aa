//! Shared access policies, whose keys services and some devices use.

use async_trait::async_trait;
use common::secret::SharedKey;

use super::RegistryError;

/// Which shared access policies there are. Each future may be dropped.
#[async_trait]
pub trait Policies: Send + Sync + 'static {
    /// One shared access policy.
    async fn policy(&self, name: &str) -> Result<Option<Policy>, RegistryError>;

    /// All shared access policies, but for those that are damaged; the log names them once.
    async fn policies(&self) -> Result<Vec<Policy>, RegistryError>;

    /// Adds one. False: there is one of this name.
    async fn create_policy(&self, policy: Policy) -> Result<bool, RegistryError>;

    /// Deletes one, and with it what its keys opened: tokens at once, device sessions at the next
    /// look at the changes. False: there is none of this name.
    async fn delete_policy(&self, name: &str) -> Result<bool, RegistryError>;

    /// Replaces one key; what the other has opened goes on. False: there is no policy of this name.
    async fn set_policy_key(
        &self,
        name: &str,
        which: PolicyKey,
        key: SharedKey,
    ) -> Result<bool, RegistryError>;
}

/// One of the two keys of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyKey {
    /// The usual one.
    Primary,
    /// The one to change over to.
    Secondary,
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
    /// Read twins, and nothing else of the service endpoints. IoT Hub has no such permission.
    pub twin_read: bool,
}

impl Permissions {
    /// IoT Hub's words, in its order, and ours.
    pub fn names(self) -> Vec<&'static str> {
        [
            (self.registry_read, "RegistryRead"),
            (self.registry_write, "RegistryReadWrite"),
            (self.service_connect, "ServiceConnect"),
            (self.device_connect, "DeviceConnect"),
            (self.twin_read, "TwinRead"),
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
