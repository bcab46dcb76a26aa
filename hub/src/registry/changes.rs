//! What has happened to identities, for who follows it.

use async_trait::async_trait;
use common::identity::DeviceIdentity;

use super::RegistryError;

/// The registry's history of changes of identities, also by other processes.
#[async_trait]
pub trait ChangeLog: Send + Sync + 'static {
    /// What has changed since a point, by this or another process; from zero, only the
    /// present point is given, which itself is never zero. Cheap when nothing has. May be dropped.
    async fn changes_since(&self, point: u64) -> Result<Changes, RegistryError>;
}

/// Which identities were changed or deleted since a point in the registry's history.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// The point up to which this list goes; ask from here next time.
    pub upto: u64,
    /// Each changed or deleted identity, in no order, possibly twice. A device that is
    /// deleted, or whose status changes, stands for its modules too.
    pub identities: Vec<DeviceIdentity>,
    /// Tokens of operators were revoked, or people shut out.
    pub tokens: bool,
    /// A policy or a CA has changed, or history does not reach back to the point: anything may have changed,
    /// also what `identities` does not name. Who holds identities has to look at all of them again.
    pub gap: bool,
}
