//! `twin get`, `twin set` and `twin replace`.

use common::identity::{DeviceIdentity, ModuleId};
use serde_json::{Map, Value, json};

use super::print::Printer;
use super::{Fleet, FleetError};
use crate::cli::TwinCommand;

impl Fleet {
    pub(super) async fn twin(
        &self,
        command: TwinCommand,
        module: Option<ModuleId>,
        out: &mut Printer,
    ) -> Result<(), FleetError> {
        let identity = |device| DeviceIdentity { device, module };
        let twin = match command {
            TwinCommand::Get { device } => {
                let identity = identity(device);
                let failed = self.failed(format!("read the twin of {identity}"));
                self.api.read_twin(&identity).await.map_err(failed)?
            }
            TwinCommand::Set {
                device,
                patch,
                etag,
            } => {
                let identity = identity(device);
                let patch = patch.read_object("the patch").await?;
                let failed = self.failed(format!("change the twin of {identity}"));
                let changed = self.api.patch_twin(&identity, &patch, etag.as_deref());
                changed.await.map_err(failed)?
            }
            TwinCommand::Replace { device, twin, etag } => {
                let identity = identity(device);
                let twin = twin.read_object("the twin").await?;
                let own = twin.get("etag").and_then(Value::as_str).map(str::to_owned);
                let etag = etag.or(own);
                let failed = self.failed(format!("replace the twin of {identity}"));
                let document = replaceable(twin);
                let replaced = self.api.replace_twin(&identity, &document, etag.as_deref());
                replaced.await.map_err(failed)?
            }
        };
        out.json(&twin).await
    }
}

/// What a service may replace, of a twin as it was read or written by hand.
fn replaceable(mut twin: Value) -> Value {
    let mut document = Map::new();
    if let Some(tags) = twin.get_mut("tags") {
        document.insert("tags".to_owned(), tags.take());
    }
    if let Some(desired) = twin.pointer_mut("/properties/desired") {
        let mut desired = desired.take();
        if let Some(desired) = desired.as_object_mut() {
            desired.remove("$metadata");
            desired.remove("$version");
        }
        document.insert("properties".to_owned(), json!({ "desired": desired }));
    }
    Value::Object(document)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_twin_that_was_read_can_be_given_back() {
        let twin = json!({
            "deviceId": "d", "etag": "AAAA", "tags": { "site": "berlin" },
            "properties": {
                "desired": { "a": { "b": 1 }, "$metadata": {}, "$version": 3 },
                "reported": { "c": 1, "$version": 2 },
            },
        });
        assert_eq!(
            replaceable(twin),
            json!({
                "tags": { "site": "berlin" },
                "properties": { "desired": { "a": { "b": 1 } } },
            })
        );
        let tags = json!({ "tags": {} });
        assert_eq!(replaceable(tags.clone()), tags);
    }
}
