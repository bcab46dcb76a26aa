//! Twins over REST, to read (`docs/protocol.md`, "Twins"). Who may call is judged before.

use common::identity::{DeviceIdentity, ModuleId};
use serde_json::{Value, json};

use super::connections::Connections;
use crate::answer::{Answer, json as answer};
use crate::documents::{self, connection_state, status_updated, thumbprints, time};
use crate::refusal::Refusal;
use crate::registry::{Activity, Identity, Metadata, Registry, RegistryError, Twin};

/// What a caller wants of twins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// `GET` of the twin of a device or module.
    Read(DeviceIdentity),
}

/// Serves one call. May be dropped.
///
/// # Errors
/// [`Refusal`] of the registry's family.
pub async fn handle(
    registry: &dyn Registry,
    presence: &dyn Connections,
    call: Call,
) -> Result<Answer, Refusal> {
    match call {
        Call::Read(id) => Ok(answer(&read(registry, presence, id).await?)),
    }
}

async fn read(
    registry: &dyn Registry,
    presence: &dyn Connections,
    id: DeviceIdentity,
) -> Result<Value, RegistryError> {
    // Two reads: deleted between them, it is not there.
    let identity = registry.identity(&id).await?;
    let twin = registry.twin(&id).await?;
    match (identity, twin) {
        (Some(identity), Some(twin)) => {
            let activity = presence.activity(&identity);
            Ok(write(&identity, &twin, activity))
        }
        _ => Err(RegistryError::NotFound(id)),
    }
}

/// The whole document.
fn write(identity: &Identity, twin: &Twin, activity: Activity) -> Value {
    let mut document = json!({
        "deviceId": identity.id.device.as_str(),
        "etag": twin.etag,
        "deviceEtag": identity.etag,
        "status": identity.status.as_str(),
        "statusUpdateTime": status_updated(identity),
        "connectionState": connection_state(activity),
        "connectionStateUpdatedTime": time(activity.connection_state_updated),
        "lastActivityTime": time(activity.last_activity),
        "cloudToDeviceMessageCount": 0,
        "authenticationType": identity.authentication.kind(),
        "x509Thumbprint": thumbprints(&identity.authentication),
        "version": twin.version,
        "tags": {},
        "properties": {
            "desired": twin.desired.document(Metadata::Shown),
            "reported": twin.reported.document(Metadata::Shown),
        },
    });
    let Some(fields) = document.as_object_mut() else {
        return document;
    };
    let mut set = |name: &str, value: Value| drop(fields.insert(name.to_owned(), value));
    if let Some(reason) = &identity.status_reason {
        set("statusReason", reason.as_str().into());
    }
    if let Some(module) = identity.id.module.as_ref().map(ModuleId::as_str) {
        set("moduleId", module.into());
    }
    documents::family(identity, set);
    document
}

#[cfg(test)]
mod tests {
    use http::Method;
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::api::router::{self, Route};
    use crate::auth::Permission;
    use crate::data_dir::DataDir;
    use crate::iso8601::NEVER;
    use crate::registry::{
        Authentication, Identities as _, IdentitySettings, IfMatch, SqliteRegistry, TwinPatch,
        Twins as _,
    };

    /// Everybody is connected.
    struct Presence;

    impl Connections for Presence {
        fn activity(&self, identity: &Identity) -> Activity {
            Activity {
                connected: true,
                ..identity.activity
            }
        }
        fn connected_devices(&self) -> u64 {
            0
        }
    }

    async fn get(registry: &SqliteRegistry, path: &str) -> Result<Value, u32> {
        call(registry, &Method::GET, path).await
    }

    async fn call(registry: &SqliteRegistry, method: &Method, path: &str) -> Result<Value, u32> {
        let Ok(Route::Rest(target)) = router::route(method, path) else {
            panic!("{path} is of another API");
        };
        assert_eq!(target.access.permission, Permission::ServiceConnect);
        let call = match target.call {
            Ok(router::Call::Twins(call)) => call,
            Ok(call) => panic!("{path} is {call:?}"),
            Err(refusal) => return Err(refusal.code.number),
        };
        let answer = handle(registry, &Presence, call)
            .await
            .map_err(|refusal| refusal.code.number)?;
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        Ok(serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn documents_are_iot_hubs() {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::open(&folder.path().join("hub-data")).unwrap();
        let registry = SqliteRegistry::open(&dir).unwrap();
        let device = documents::id("d", None).unwrap();
        let module = documents::id("d", Some("m")).unwrap();
        for id in [&device, &module] {
            let settings = IdentitySettings::new(Authentication::random_keys());
            registry.create(id, settings).await.unwrap();
        }
        let identity = registry.identity(&device).await.unwrap().unwrap();
        let mut document = get(&registry, "/twins/d/").await.unwrap();
        let etag = document["etag"].take();
        let untouched = json!({ "$metadata": { "$lastUpdated": NEVER }, "$version": 1 });
        assert_eq!(
            document,
            json!({
                "deviceId": "d", "etag": null, "deviceEtag": identity.etag,
                "status": "enabled", "statusUpdateTime": NEVER,
                "connectionState": "Connected", "connectionStateUpdatedTime": NEVER,
                "lastActivityTime": NEVER,
                "cloudToDeviceMessageCount": 0, "authenticationType": "sas",
                "x509Thumbprint": { "primaryThumbprint": null, "secondaryThumbprint": null },
                "version": 1,
                "tags": {},
                "properties": { "desired": untouched, "reported": untouched },
                "capabilities": { "iotEdge": false },
            })
        );
        assert_eq!(get(&registry, "/twins/d").await.unwrap()["etag"], etag);

        let patch = TwinPatch::parse(br#"{"a":{"b":1}}"#).unwrap();
        registry.patch_reported(&module, patch).await.unwrap();
        let document = get(&registry, "/twins/d/modules/m").await.unwrap();
        assert_eq!(document["moduleId"], "m");
        assert_eq!(document["version"], 2);
        assert_eq!(document["capabilities"], Value::Null);
        let reported = &document["properties"]["reported"];
        assert_eq!(
            (&reported["a"]["b"], &reported["$version"]),
            (&1.into(), &2.into())
        );
        let at = reported["$metadata"]["a"]["b"]["$lastUpdated"].as_str();
        assert_eq!(at.unwrap().len(), "2023-11-14T22:13:20.0000000Z".len());

        for (path, code) in [
            ("/twins/D", 404_001),
            ("/twins/d/modules/x", 404_010),
            ("/twins/x/modules/m", 404_010),
            ("/twins/a b", 400_004),
        ] {
            assert_eq!(get(&registry, path).await, Err(code), "{path}");
        }
        for (method, code) in [
            (Method::PATCH, 501_000),
            (Method::PUT, 501_000),
            (Method::DELETE, 405_000),
            (Method::POST, 405_000),
        ] {
            assert_eq!(call(&registry, &method, "/twins/d").await, Err(code));
        }
        registry.delete(&device, IfMatch::Any).await.unwrap();
        assert_eq!(get(&registry, "/twins/d").await, Err(404_001));
    }
}
