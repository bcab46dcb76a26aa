//! What is kept of identities' hub sessions: subscriptions that outlive a connection, and when an
//! identity was last here. Nothing of it is a change in the sense of
//! [`ChangeLog::changes_since`](super::ChangeLog::changes_since).

use std::collections::BTreeMap;

use async_trait::async_trait;
use common::identity::DeviceIdentity;

use super::{ActivityRecord, RegistryError};

/// What hub sessions leave behind. Every change is durable when its call returns.
#[async_trait]
pub trait Sessions: Send + Sync + 'static {
    /// What an identity of this generation has subscribed in a session that outlives its
    /// connections; empty when it has no such session. May be dropped.
    async fn subscriptions(
        &self,
        id: &DeviceIdentity,
        generation: &str,
    ) -> Result<Subscriptions, RegistryError>;

    /// Puts these in the place of what the identity had subscribed; empty ends its session.
    /// For an identity that is gone, or was made anew, nothing is kept. Calls are carried
    /// out in their order, also when the future is dropped.
    async fn keep_subscriptions(
        &self,
        id: &DeviceIdentity,
        generation: &str,
        filters: Subscriptions,
    ) -> Result<(), RegistryError>;

    /// Stores when identities were last here; of those that are gone, or were made anew,
    /// nothing is stored. Dropped, it is carried out all the same.
    async fn record_activity(&self, records: Vec<ActivityRecord>) -> Result<(), RegistryError>;
}

/// Topic filters with the QoS that was granted, 0 or 1. Only filters that a device of this
/// hub can be granted stand here, so that there are few and none is long.
pub type Subscriptions = BTreeMap<String, u8>;
