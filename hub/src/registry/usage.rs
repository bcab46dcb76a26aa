//! How many bytes were moved on a day, for limits that a restart of the hub does not reset.

use async_trait::async_trait;

use super::RegistryError;
use crate::quotas::UsageRecord;

/// What was moved on a day. Nothing of it is a change in the sense of
/// [`ChangeLog::changes_since`](super::ChangeLog::changes_since).
#[async_trait]
pub trait Usage: Send + Sync + 'static {
    /// What is stored of this day, days since 1970. May be dropped.
    async fn usage(&self, day: u64) -> Result<Vec<UsageRecord>, RegistryError>;

    /// Stores these in the place of what was stored of them, and forgets all other days. Dropped, it
    /// is carried out all the same.
    async fn record_usage(&self, day: u64, records: Vec<UsageRecord>) -> Result<(), RegistryError>;
}
