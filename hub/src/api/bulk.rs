//! Many identities in one request: `POST /devices`. What the request says is checked as
//! a whole before anything is done; then each item succeeds or fails by itself.

use std::collections::HashSet;

use common::identity::DeviceIdentity;
use common::wire::problem::ErrorCode;
use http::{HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::connections::DesiredListener;
use super::draft::{self, Draft};
use crate::answer::{Answer, json as answer};
use crate::documents::{self, invalid};
use crate::events::Events;
use crate::limits;
use crate::refusal::{ERROR_CODE, Refusal};
use crate::registry::{IdentitySettings, IfMatch, Registry, RegistryError, TwinChange};

/// One item as it is sent.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ItemDraft {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    module_id: Option<String>,
    #[serde(default, alias = "etag")]
    e_tag: Option<String>,
    /// The same of the twin.
    #[serde(default, rename = "twinETag", alias = "twinEtag")]
    twin_etag: Option<String>,
    #[serde(default)]
    tags: Option<Value>,
    #[serde(default)]
    properties: Option<Value>,
    #[serde(default)]
    import_mode: Option<String>,
    #[serde(flatten)]
    identity: Draft,
}

/// What to do with one identity.
enum Task {
    Create(IdentitySettings),
    Update(IdentitySettings, IfMatch),
    CreateOrUpdate(IdentitySettings),
    Delete(IfMatch),
    Twin(TwinChange, IfMatch),
}

/// Carries out a bulk request.
///
/// # Errors
/// A refusal means that nothing was done. Failures of single items stand in the
/// answer, whose status is then 400.
pub(super) async fn run(
    registry: &dyn Registry,
    hub: &dyn DesiredListener,
    events: &Events,
    body: &[u8],
) -> Result<Answer, Refusal> {
    let drafts: Vec<ItemDraft> = draft::read(body)?;
    if drafts.len() > limits::BULK_ITEMS {
        return Err(invalid(format!(
            "There are more than {} items.",
            limits::BULK_ITEMS
        )));
    }
    let mut tasks = Vec::with_capacity(drafts.len());
    let mut ids = HashSet::new();
    for (index, draft) in drafts.into_iter().enumerate() {
        let (id, task) = draft.read().map_err(|refusal| Refusal {
            message: format!("Item {}: {}", index + 1, refusal.message),
            ..refusal
        })?;
        if !ids.insert(id.clone()) {
            return Err(Refusal::new(
                ErrorCode::DEVICE_DEFINED_MULTIPLE_TIMES,
                format!("{id} stands in the request twice."),
            ));
        }
        tasks.push((id, task));
    }
    let mut errors = Vec::new();
    for (id, task) in tasks {
        if let Err(error) = perform(registry, hub, &id, task).await {
            let refusal = Refusal::from(error);
            refusal.report(events);
            errors.push(json!({
                "deviceId": id.device.as_str(),
                "moduleId": id.module.as_ref().map(|module| module.as_str()),
                "errorCode": refusal.code.name,
                "errorStatus": refusal.message,
            }));
        }
    }
    Ok(result(errors))
}

fn result(errors: Vec<Value>) -> Answer {
    let is_successful = errors.is_empty();
    let mut answer = answer(&json!({
        "isSuccessful": is_successful,
        "errors": errors,
        "warnings": [],
    }));
    if !is_successful {
        *answer.status_mut() = StatusCode::BAD_REQUEST;
        answer.headers_mut().insert(
            ERROR_CODE,
            HeaderValue::from_static(ErrorCode::BULK_FAILURE.name),
        );
    }
    answer
}

async fn perform(
    registry: &dyn Registry,
    hub: &dyn DesiredListener,
    id: &DeviceIdentity,
    task: Task,
) -> Result<(), RegistryError> {
    match task {
        Task::Create(settings) => registry.create(id, settings).await.map(drop),
        Task::Update(settings, condition) => {
            registry.update(id, settings, condition).await.map(drop)
        }
        Task::CreateOrUpdate(settings) => match registry.create(id, settings.clone()).await {
            Err(RegistryError::AlreadyExists(_)) => {
                registry.update(id, settings, IfMatch::Any).await.map(drop)
            }
            result => result.map(drop),
        },
        Task::Delete(condition) => registry.delete(id, condition).await,
        Task::Twin(change, condition) => {
            let changing = registry.change_twin(id, change, condition, hub.on_desired(id));
            changing.await.map(drop)
        }
    }
}

impl ItemDraft {
    fn read(self) -> Result<(DeviceIdentity, Task), Refusal> {
        let device = self
            .id
            .as_deref()
            .ok_or_else(|| invalid("id is missing.".to_owned()))?;
        let module = self.module_id.as_deref().filter(|id| !id.is_empty());
        let id = documents::id(device, module)?;
        let etag = || {
            self.e_tag
                .as_deref()
                .and_then(IfMatch::parse)
                .ok_or_else(|| invalid("eTag is missing.".to_owned()))
        };
        let twin = || {
            let mut change = json!({ "tags": self.tags, "properties": self.properties });
            if let Some(members) = change.as_object_mut() {
                members.retain(|_, member| !member.is_null());
            }
            TwinChange::from_document(&change, false)
                .map_err(|rule| Refusal::from(RegistryError::from(rule)))
        };
        let settings = || self.identity.settings_only();
        // SDKs differ in the case of these words.
        let mode = self.import_mode.as_deref().unwrap_or("createOrUpdate");
        let task = match mode.to_ascii_lowercase().as_str() {
            "create" => Task::Create(settings()?),
            "createorupdate" => Task::CreateOrUpdate(settings()?),
            "update" => Task::Update(settings()?, IfMatch::Any),
            "updateifmatchetag" => Task::Update(settings()?, etag()?),
            "delete" => Task::Delete(IfMatch::Any),
            "deleteifmatchetag" => Task::Delete(etag()?),
            "updatetwin" => Task::Twin(twin()?, IfMatch::Any),
            "updatetwinifmatchetag" => {
                let given = self.twin_etag.as_deref().and_then(IfMatch::parse);
                let given = given.ok_or_else(|| invalid("twinETag is missing.".to_owned()))?;
                Task::Twin(twin()?, given)
            }
            _ => {
                return Err(invalid(
                    "importMode must be create, update, updateIfMatchETag, delete, \
                     deleteIfMatchETag, updateTwin or updateTwinIfMatchETag."
                        .to_owned(),
                ));
            }
        };
        Ok((id, task))
    }
}
