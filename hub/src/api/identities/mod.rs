//! The identity registry over REST, as far as SDKs need it to create, read, list and
//! delete devices and modules (`docs/protocol.md`, "Identities"). Who may call is judged before.

use common::identity::{DeviceId, DeviceIdentity};
use http::header::ETAG;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::bulk;
use super::condition::if_match;
use super::connections::{Connections, DesiredListener};
use super::draft::Draft;
use super::paging::parameter;
use crate::answer::{Answer, List, empty, json as answer};
use crate::documents::{self, Keys, invalid};
use crate::events::Events;
use crate::limits;
use crate::refusal::Refusal;
use crate::registry::{Identities, Identity, IfMatch, Registry, RegistryError};

/// What a caller wants of identities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// `GET /devices`.
    List,
    /// `POST /devices`.
    Bulk,
    /// `GET` of a device or module.
    Read(DeviceIdentity),
    /// `PUT` of a device or module: create, or update where there is a condition.
    Write(DeviceIdentity),
    /// `DELETE` of a device or module.
    Delete(DeviceIdentity),
    /// `GET` of a device's modules.
    Modules(DeviceId),
    /// `GET /statistics/devices`.
    DeviceStatistics,
    /// `GET /statistics/service`.
    ServiceStatistics,
}

/// What comes with a call.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// Where faults are reported.
    pub events: &'a Events,
    /// What stands behind the path's `?`; empty when there is nothing.
    pub query: &'a str,
    /// All headers.
    pub headers: &'a HeaderMap,
    /// The whole body.
    pub body: &'a [u8],
}

/// Serves one call. May be dropped; a change that has begun is then carried out all the same.
///
/// # Errors
/// [`Refusal`] of the registry's family.
pub async fn handle(
    registry: &dyn Registry,
    presence: &(impl Connections + DesiredListener),
    call: Call,
    input: Input<'_>,
) -> Result<Answer, Refusal> {
    let api = Api { registry, presence };
    match call {
        Call::List => api.list(input.query).await,
        Call::Bulk => bulk::run(registry, presence, input.events, input.body).await,
        Call::Read(id) => api.read(id).await,
        Call::Write(id) => api.write(&id, input).await,
        Call::Delete(id) => api.delete(&id, input.headers).await,
        Call::Modules(device) => api.modules(device).await,
        Call::DeviceStatistics => api.device_statistics().await,
        Call::ServiceStatistics => Ok(answer(&json!({
            "connectedDeviceCount": presence.connected_devices(),
        }))),
    }
}

struct Api<'a> {
    registry: &'a dyn Identities,
    presence: &'a dyn Connections,
}

impl Api<'_> {
    async fn read(&self, id: DeviceIdentity) -> Result<Answer, Refusal> {
        let found = self.registry.identity(&id).await?;
        let found = found.ok_or_else(|| Refusal::from(RegistryError::NotFound(id)))?;
        Ok(self.document(&found))
    }

    async fn write(&self, id: &DeviceIdentity, input: Input<'_>) -> Result<Answer, Refusal> {
        let condition = if_match(input.headers)?;
        let settings = Draft::read(input.body)?.settings(id)?;
        let written = match condition {
            None => self.registry.create(id, settings).await,
            Some(condition) => self.registry.update(id, settings, condition).await,
        };
        Ok(self.document(&written?))
    }

    async fn delete(&self, id: &DeviceIdentity, headers: &HeaderMap) -> Result<Answer, Refusal> {
        // Some clients do not say: then they mean whatever is there.
        let condition = if_match(headers)?.unwrap_or(IfMatch::Any);
        self.registry.delete(id, condition).await?;
        Ok(empty(StatusCode::NO_CONTENT))
    }

    async fn list(&self, query: &str) -> Result<Answer, Refusal> {
        let page = self.registry.devices(None, top(query)?).await?;
        let mut list = List::default();
        self.add(&mut list, &page.identities);
        Ok(list.into_answer())
    }

    async fn modules(&self, device: DeviceId) -> Result<Answer, Refusal> {
        let mut list = List::default();
        let mut after = None;
        loop {
            let page = self
                .registry
                .modules(&device, after.as_ref(), limits::DEVICES_PER_LIST)
                .await?;
            self.add(&mut list, &page.identities);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let id = DeviceIdentity::of_device(device);
        if list.is_empty() && self.registry.identity(&id).await?.is_none() {
            return Err(Refusal::from(RegistryError::NotFound(id)));
        }
        Ok(list.into_answer())
    }

    async fn device_statistics(&self) -> Result<Answer, Refusal> {
        let counted = self.registry.statistics().await?;
        Ok(answer(&json!({
            "totalDeviceCount": counted.total,
            "enabledDeviceCount": counted.enabled,
            "disabledDeviceCount": counted.total.saturating_sub(counted.enabled),
        })))
    }

    fn value(&self, identity: &Identity) -> Value {
        let activity = self.presence.activity(identity);
        documents::write(identity, Some(activity), Keys::Shown)
    }

    fn document(&self, identity: &Identity) -> Answer {
        let mut answer = answer(&self.value(identity));
        // An etag is base64 text: always fit for a header.
        if let Ok(etag) = HeaderValue::try_from(format!("\"{}\"", identity.etag)) {
            answer.headers_mut().insert(ETAG, etag);
        }
        answer
    }

    fn add(&self, list: &mut List, identities: &[Identity]) {
        for identity in identities {
            list.push(&self.value(identity));
        }
    }
}

/// How many devices to list: `top=n`.
fn top(query: &str) -> Result<usize, Refusal> {
    let Some(text) = parameter(query, "top") else {
        return Ok(limits::DEVICES_PER_LIST);
    };
    text.parse()
        .ok()
        .filter(|n| (1..=limits::DEVICES_PER_LIST).contains(n))
        .ok_or_else(|| {
            invalid(format!(
                "top must be a number from 1 to {}.",
                limits::DEVICES_PER_LIST
            ))
        })
}

#[cfg(test)]
mod tests;
