//! The identity registry over REST, as far as SDKs need it to create, read, list and
//! delete devices and modules (`docs/protocol.md`, "Identities"). No HTTP server inside: method,
//! path, headers and body in, answer out. Who may call is judged before.

use common::identity::{DeviceId, DeviceIdentity};
use http::header::ETAG;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::{Value, json};

use super::bulk;
use super::condition::if_match;
use super::connections::Connections;
use super::draft::Draft;
use crate::answer::{Answer, empty, json as answer};
use crate::auth::Permission;
use crate::documents::{self, Keys, invalid};
use crate::limits;
use crate::refusal::Refusal;
use crate::registry::{Identity, IfMatch, Registry, RegistryError};

/// The resources of this API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resource<'a> {
    Devices,
    Device(&'a str),
    Modules(&'a str),
    Module(&'a str, &'a str),
    DeviceStatistics,
    ServiceStatistics,
}

impl<'a> Resource<'a> {
    fn find(method: &Method, segments: &[&'a str]) -> Option<Self> {
        match *segments {
            ["devices"] => Some(Self::Devices),
            // That is the query API, not a device of this name.
            ["devices", "query"] if method == Method::POST => None,
            ["devices", device] => Some(Self::Device(device)),
            ["devices", device, "modules"] => Some(Self::Modules(device)),
            ["devices", device, "modules", module] => Some(Self::Module(device, module)),
            ["statistics", "devices"] => Some(Self::DeviceStatistics),
            ["statistics", "service"] => Some(Self::ServiceStatistics),
            _ => None,
        }
    }
}

/// What a call needs; `None` when the path is not of this API.
pub fn permission(method: &Method, segments: &[&str]) -> Option<Permission> {
    Resource::find(method, segments)?;
    Some(if method == Method::GET {
        Permission::RegistryRead
    } else {
        Permission::RegistryWrite
    })
}

/// The device that may make this call with its own credential: of its modules, and of
/// nothing else.
pub fn owner(segments: &[&str]) -> Option<DeviceId> {
    match *segments {
        ["devices", device, "modules"] | ["devices", device, "modules", _] => {
            DeviceId::parse(device).ok()
        }
        _ => None,
    }
}

/// Serves one call. `segments` are the percent-decoded, non-empty parts of the path;
/// `None` when the path is not of this API. Refusals are of the registry's family.
/// May be dropped; a change that has begun is then carried out all the same.
pub async fn route(
    registry: &dyn Registry,
    presence: &dyn Connections,
    method: &Method,
    segments: &[&str],
    query: &str,
    headers: &HeaderMap,
    body: &[u8],
) -> Option<Result<Answer, Refusal>> {
    let resource = Resource::find(method, segments)?;
    let api = Api { registry, presence };
    Some(match (resource, method) {
        (Resource::Devices, &Method::GET) => api.list(query).await,
        (Resource::Devices, &Method::POST) => bulk::run(registry, body).await,
        (Resource::Device(device), method) => {
            api.identity(method, documents::id(device, None), headers, body)
                .await
        }
        (Resource::Module(device, module), method) => {
            let id = documents::id(device, Some(module));
            api.identity(method, id, headers, body).await
        }
        (Resource::Modules(device), &Method::GET) => api.modules(device).await,
        (Resource::DeviceStatistics, &Method::GET) => api.device_statistics().await,
        (Resource::ServiceStatistics, &Method::GET) => Ok(answer(&json!({
            "connectedDeviceCount": presence.connected_devices(),
        }))),
        (Resource::Devices, _) => Err(Refusal::wrong_method("GET, POST")),
        _ => Err(Refusal::wrong_method("GET")),
    })
}

struct Api<'a> {
    registry: &'a dyn Registry,
    presence: &'a dyn Connections,
}

impl Api<'_> {
    async fn identity(
        &self,
        method: &Method,
        id: Result<DeviceIdentity, Refusal>,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Answer, Refusal> {
        if ![Method::GET, Method::PUT, Method::DELETE].contains(method) {
            return Err(Refusal::wrong_method("GET, PUT, DELETE"));
        }
        let id = id?;
        if method == Method::GET {
            let found = self.registry.identity(&id).await?;
            let found = found.ok_or_else(|| Refusal::from(RegistryError::NotFound(id)))?;
            return Ok(self.document(&found));
        }
        let condition = if_match(headers)?;
        if method == Method::DELETE {
            // Some clients do not say: then they mean whatever is there.
            let condition = condition.unwrap_or(IfMatch::Any);
            self.registry.delete(&id, condition).await?;
            return Ok(empty(StatusCode::NO_CONTENT));
        }
        let settings = Draft::read(body)?.settings(&id)?;
        let written = match condition {
            None => self.registry.create(&id, settings).await,
            Some(condition) => self.registry.update(&id, settings, condition).await,
        };
        Ok(self.document(&written?))
    }

    async fn list(&self, query: &str) -> Result<Answer, Refusal> {
        let devices = self.registry.devices(top(query)?).await?;
        Ok(self.documents(&devices))
    }

    async fn modules(&self, device: &str) -> Result<Answer, Refusal> {
        let id = documents::id(device, None)?;
        let modules = self.registry.modules(&id.device).await?;
        if modules.is_empty() && self.registry.identity(&id).await?.is_none() {
            return Err(Refusal::from(RegistryError::NotFound(id)));
        }
        Ok(self.documents(&modules))
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

    fn documents(&self, identities: &[Identity]) -> Answer {
        answer(&identities.iter().map(|i| self.value(i)).collect())
    }
}

/// How many devices to list: `top=n`.
fn top(query: &str) -> Result<usize, Refusal> {
    let Some(text) = query.split('&').find_map(|pair| pair.strip_prefix("top=")) else {
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
