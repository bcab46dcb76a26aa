//! Cloud-to-device messages: kept for a device until it has taken them.

use async_trait::async_trait;
use bytes::Bytes;
use common::identity::DeviceId;

use super::RegistryError;

/// The queues of messages to devices, one for each. Every change is durable when its call returns.
/// Each future may be dropped; a change that has begun is then carried out all the same. Times are
/// Unix microseconds.
#[async_trait]
pub trait Messages: Send + Sync + 'static {
    /// Adds a message to a device's queue.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`], or [`RegistryError::QueueFull`] when
    /// [`limits::MESSAGES_WAITING`](crate::limits::MESSAGES_WAITING) wait.
    async fn send_message(
        &self,
        device: &DeviceId,
        message: NewMessage,
        now: u64,
    ) -> Result<(), RegistryError>;

    /// The messages behind one that are to be delivered to the device now, in their order: at most
    /// `limit`. Each counts as delivered once more; what was delivered too often or has expired is
    /// gone.
    async fn deliver_messages(
        &self,
        device: &DeviceId,
        after: u64,
        limit: usize,
        now: u64,
    ) -> Result<Vec<Message>, RegistryError>;

    /// The device has taken these: they are gone.
    async fn complete_messages(
        &self,
        device: &DeviceId,
        sequences: Vec<u64>,
    ) -> Result<(), RegistryError>;

    /// Empties a device's queue; how many there were.
    async fn purge_messages(&self, device: &DeviceId) -> Result<u64, RegistryError>;
}

/// A message that is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMessage {
    /// Its properties, as they stand in the topic of MQTT: `name=value&name=value`, encoded.
    pub properties: String,
    /// Whatever the service sends.
    pub payload: Bytes,
    /// When it is of no more use.
    pub expires: u64,
}

/// A message on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Counts up from message to message of a hub.
    pub sequence: u64,
    /// How often it was delivered before.
    pub deliveries: u64,
    /// Its properties, as they stand in the topic of MQTT.
    pub properties: String,
    /// Whatever the service has sent.
    pub payload: Bytes,
}
