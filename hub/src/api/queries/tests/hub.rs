//! A registry with devices, and queries to it as a client sends them.

use std::sync::Arc;

use common::identity::DeviceIdentity;
use http_body_util::BodyExt as _;
use serde_json::json;

use super::*;
use crate::data_dir::DataDir;
use crate::documents;
use crate::registry::{
    Activity, Authentication, Identities as _, Identity, IdentitySettings, IfMatch, SqliteRegistry,
    Status, TwinChange, TwinPatch, Twins as _,
};

/// Devices whose id ends with a digit above 4 are connected.
#[derive(Clone)]
pub(super) struct Presence;

impl Connections for Presence {
    fn activity(&self, identity: &Identity) -> Activity {
        let last = identity.id.device.as_str().bytes().last();
        Activity {
            connected: last.is_some_and(|last| (b'5'..=b'9').contains(&last)),
            last_activity: Some(1_700_000_000_000_000),
            ..identity.activity
        }
    }
    fn connected_devices(&self) -> u64 {
        0
    }
}

pub(super) struct Hub {
    pub(super) folder: tempfile::TempDir,
    pub(super) registry: Arc<SqliteRegistry>,
}

/// What a client gets: the rows, the type of the items, and where the result goes on.
pub(super) type Got = (Vec<Value>, String, Option<String>);

impl Hub {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::open(&folder.path().join("hub-data")).unwrap();
        Self {
            registry: Arc::new(SqliteRegistry::open(&dir).unwrap()),
            folder,
        }
    }

    pub(super) async fn create(&self, device: &str, module: Option<&str>) -> DeviceIdentity {
        let id = documents::id(device, module).unwrap();
        let mut settings = IdentitySettings::new(Authentication::random_keys());
        if device.ends_with('3') {
            settings.status = Status::Disabled;
            settings.status_reason = Some("broken".to_owned());
        }
        self.registry.create(&id, settings).await.unwrap();
        id
    }

    pub(super) async fn write(&self, id: &DeviceIdentity, document: Value) {
        let change = TwinChange::from_document(&document, false).unwrap();
        let done = self
            .registry
            .change_twin(id, change, IfMatch::Any, Box::new(|_| {}));
        done.await.unwrap();
    }

    pub(super) async fn report(&self, id: &DeviceIdentity, patch: Value) {
        let patch = TwinPatch::parse(patch.to_string().as_bytes()).unwrap();
        self.registry.patch_reported(id, patch).await.unwrap();
    }

    /// Ten devices, every second one with a module.
    pub(super) async fn with_devices() -> Self {
        let hub = Self::new();
        for n in 0..10 {
            let device = hub.create(&format!("d{n}"), None).await;
            if n != 9 {
                let site = ["berlin", "ulm", "rome"][n % 3];
                let tags =
                    json!({ "site": site, "n": n, "odd": n % 2 == 1, "a": { "b-c": n % 4 } });
                let desired = json!({ "x": { "y": n }, "list": [n] });
                hub.write(
                    &device,
                    json!({ "tags": tags, "properties": { "desired": desired } }),
                )
                .await;
                hub.report(&device, json!({ "ok": true, "n": n })).await;
            }
            if n % 2 == 0 {
                let module = hub.create(&format!("d{n}"), Some("m")).await;
                hub.write(&module, json!({ "tags": { "n": n, "site": "berlin" } }))
                    .await;
            }
        }
        hub
    }

    pub(super) async fn page(
        &self,
        text: &str,
        size: usize,
        after: Option<&str>,
    ) -> Result<Got, Refusal> {
        let mut headers = HeaderMap::new();
        headers.insert(PAGE_SIZE, size.into());
        if let Some(after) = after {
            headers.insert(CONTINUATION, after.parse().unwrap());
        }
        self.ask(&headers, json!({ "query": text }).to_string().as_bytes())
            .await
    }

    pub(super) async fn ask(&self, headers: &HeaderMap, body: &[u8]) -> Result<Got, Refusal> {
        let answer = handle(&Presence, &*self.registry, headers, body).await?;
        let text = |name| {
            let value = answer.headers().get(name);
            value.map(|value| value.to_str().unwrap().to_owned())
        };
        let (item_type, next) = (text(ITEM_TYPE).unwrap(), text(CONTINUATION));
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        Ok((serde_json::from_slice(&body).unwrap(), item_type, next))
    }

    /// The whole result, read in pages of this size.
    pub(super) async fn pages(&self, text: &str, size: usize) -> Vec<Value> {
        let (mut rows, mut after) = (Vec::new(), None);
        loop {
            let (page, _, next) = self.page(text, size, after.as_deref()).await.unwrap();
            assert!(
                page.len() <= size && (next.is_none() || !page.is_empty()),
                "{text}"
            );
            rows.extend(page);
            match next {
                Some(next) => after = Some(next),
                None => return rows,
            }
        }
    }

    pub(super) async fn rows(&self, text: &str) -> Vec<Value> {
        let rows = self.pages(text, 100).await;
        for size in [1, 2, 3, 7] {
            assert_eq!(self.pages(text, size).await, rows, "{text} by {size}");
        }
        rows
    }

    pub(super) async fn refused(&self, body: &[u8]) -> (u32, String) {
        let refusal = self.ask(&HeaderMap::new(), body).await.unwrap_err();
        (refusal.code.number, refusal.message)
    }

    /// Every twin of the source, as `GET /twins` shows it.
    pub(super) async fn documents(&self, has_module: bool) -> Vec<Value> {
        let mut documents = Vec::new();
        for n in 0..10 {
            let id = documents::id(&format!("d{n}"), has_module.then_some("m")).unwrap();
            if let Some(whole) = self.registry.device_twin(&id).await.unwrap() {
                let activity = Presence.activity(&whole.identity);
                documents.push(documents::twin::write(&whole, activity));
            }
        }
        documents
    }
}
