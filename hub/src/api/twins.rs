//! Twins over REST (`docs/protocol.md`, "Twins"). Who may call is judged before.

use std::net::SocketAddr;

use common::identity::DeviceIdentity;
use http::header::ETAG;
use http::{HeaderMap, HeaderValue};

use super::condition::if_match;
use super::connections::{Connections, DesiredListener};
use super::draft;
use crate::answer::{Answer, json as answer};
use crate::auth::Caller;
use crate::documents;
use crate::events::{Event, Events};
use crate::refusal::Refusal;
use crate::registry::{DeviceTwin, IfMatch, RegistryError, TwinChange, Twins};

/// What a caller wants of twins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// `GET` of the twin of a device or module.
    Read(DeviceIdentity),
    /// `PATCH`: tags and desired properties are merged.
    Merge(DeviceIdentity),
    /// `PUT`: tags and desired properties are replaced.
    Replace(DeviceIdentity),
}

/// What comes with a call.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// Where a change is reported.
    pub events: &'a Events,
    /// Who calls.
    pub caller: &'a Caller,
    /// Where the connection comes from.
    pub peer: SocketAddr,
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
    registry: &dyn Twins,
    hub: &(impl Connections + DesiredListener),
    call: Call,
    input: Input<'_>,
) -> Result<Answer, Refusal> {
    let whole = match call {
        Call::Read(id) => {
            let found = registry.device_twin(&id).await?;
            found.ok_or(RegistryError::NotFound(id))?
        }
        Call::Merge(id) => change(registry, hub, &id, input, false).await?,
        Call::Replace(id) => change(registry, hub, &id, input, true).await?,
    };
    let activity = hub.activity(&whole.identity);
    let mut answer = answer(&documents::twin::write(&whole, activity));
    // An etag is base64 text: always fit for a header.
    if let Ok(etag) = HeaderValue::try_from(format!("\"{}\"", whole.twin.etag)) {
        answer.headers_mut().insert(ETAG, etag);
    }
    Ok(answer)
}

async fn change(
    registry: &dyn Twins,
    hub: &impl DesiredListener,
    id: &DeviceIdentity,
    input: Input<'_>,
    replaces: bool,
) -> Result<DeviceTwin, Refusal> {
    // Some clients do not say: then they mean whatever is there.
    let condition = if_match(input.headers)?.unwrap_or(IfMatch::Any);
    let document = draft::read(input.body)?;
    let change = TwinChange::from_document(&document, replaces).map_err(RegistryError::from)?;
    let changing = registry.change_twin(id, change, condition, hub.on_desired(id));
    let changed = changing.await?;
    if let Caller::Service(principal) = input.caller {
        input.events.emit(Event::TwinChanged {
            device: id,
            policy: &principal.policy,
            peer: input.peer,
            version: changed.twin.version,
        });
    }
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use http::Method;
    use http_body_util::BodyExt as _;
    use serde_json::{Value, json};

    use super::*;
    use crate::api::router::{self, Route};
    use crate::auth::{Permission, ServicePrincipal};
    use crate::data_dir::DataDir;
    use crate::iso8601::NEVER;
    use crate::registry::{
        Activity, Authentication, DesiredChange, Identities as _, Identity, IdentitySettings,
        OnDesired, Permissions, SqliteRegistry, TwinPatch,
    };

    /// Everybody is connected; what devices are to know is kept.
    #[derive(Default)]
    struct Presence(Arc<Mutex<Vec<DesiredChange>>>);

    impl DesiredListener for Presence {
        fn on_desired(&self, _: &DeviceIdentity) -> OnDesired {
            let kept = Arc::clone(&self.0);
            Box::new(move |change| kept.lock().unwrap().push(change))
        }
    }

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
        call(registry, &Method::GET, path, &json!(null), None).await
    }

    async fn call(
        registry: &SqliteRegistry,
        method: &Method,
        path: &str,
        body: &Value,
        condition: Option<&str>,
    ) -> Result<Value, u32> {
        told(registry, method, path, body, condition)
            .await
            .map(|(document, _)| document)
    }

    /// The answer, and what the device is to know.
    async fn told(
        registry: &SqliteRegistry,
        method: &Method,
        path: &str,
        body: &Value,
        condition: Option<&str>,
    ) -> Result<(Value, Vec<Value>), u32> {
        let Ok(Route::Rest(target)) = router::route(method, path) else {
            panic!("{path} is of another API");
        };
        let needed = match *method {
            Method::GET => Permission::TwinRead,
            _ => Permission::ServiceConnect,
        };
        assert_eq!(target.access.permission, needed);
        let call = match target.call {
            Ok(router::Call::Twins(call)) => call,
            Ok(call) => panic!("{path} is {call:?}"),
            Err(refusal) => return Err(refusal.code.number),
        };
        let mut headers = HeaderMap::new();
        if let Some(condition) = condition {
            headers.insert("if-match", condition.parse().unwrap());
        }
        let policy = "service".to_owned();
        let permissions = Permissions::default();
        let body = body.to_string();
        let input = Input {
            events: &Events::default(),
            caller: &Caller::Service(ServicePrincipal {
                person: None,
                policy,
                permissions,
                token: None,
                login: None,
            }),
            peer: ([127, 0, 0, 1], 1).into(),
            headers: &headers,
            body: body.as_bytes(),
        };
        let presence = Presence::default();
        let answer = handle(registry, &presence, call, input)
            .await
            .map_err(|refusal| refusal.code.number)?;
        let etag = answer.headers()[ETAG].to_str().unwrap().to_owned();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let document: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(etag, document["etag"].to_string());
        let told = std::mem::take(&mut *presence.0.lock().unwrap());
        let told = told.into_iter();
        let told = told.map(|change| json!([change.version, change.patch]));
        Ok((document, told.collect()))
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
        for (method, code) in [(Method::DELETE, 405_000), (Method::POST, 405_000)] {
            let called = call(&registry, &method, "/twins/d", &json!({}), None).await;
            assert_eq!(called, Err(code));
        }
        registry.delete(&device, IfMatch::Any).await.unwrap();
        assert_eq!(get(&registry, "/twins/d").await, Err(404_001));
    }

    #[tokio::test]
    async fn services_change_tags_and_desired_properties() {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::open(&folder.path().join("hub-data")).unwrap();
        let registry = SqliteRegistry::open(&dir).unwrap();
        let (device, module) = (documents::id("d", None), documents::id("d", Some("m")));
        for id in [device.unwrap(), module.unwrap()] {
            let settings = IdentitySettings::new(Authentication::random_keys());
            registry.create(&id, settings).await.unwrap();
        }
        let (patch, put) = (Method::PATCH, Method::PUT);
        let plain = |document: &Value| {
            let mut desired = document["properties"]["desired"].clone();
            desired.as_object_mut().unwrap().remove("$metadata");
            (
                document["tags"].clone(),
                desired,
                document["version"].clone(),
            )
        };
        for path in ["/twins/d", "/twins/d/modules/m"] {
            let first = json!({
                "deviceId": "ignored", "tags": { "site": { "floor": 3 } },
                "properties": { "desired": { "a": { "b": 1, "c": [1] }, "gone": null } },
            });
            let (document, told) = told(&registry, &patch, path, &first, Some("\"*\""))
                .await
                .unwrap();
            let desired = json!({ "a": { "b": 1, "c": [1] }, "$version": 2 });
            let tags = json!({ "site": { "floor": 3 } });
            assert_eq!(plain(&document), (tags.clone(), desired, json!(2)));
            assert_eq!(told, [json!([2, first["properties"]["desired"]])]);
            assert_eq!(get(&registry, path).await.unwrap(), document);

            // Tags alone are no matter of the device; the etag is the caller's.
            let etag = document["etag"].to_string();
            let more = json!({ "tags": { "site": { "room": 7 } }, "properties": {} });
            let (document, told) = self::told(&registry, &patch, path, &more, Some(&etag))
                .await
                .unwrap();
            assert_eq!(
                document["tags"],
                json!({ "site": { "floor": 3, "room": 7 } })
            );
            assert_eq!((&document["version"], told.len()), (&json!(3), 0));
            let stale = call(&registry, &patch, path, &more, Some(&etag)).await;
            assert_eq!(stale, Err(412_001));
            // Nothing changes nothing.
            let same = call(&registry, &patch, path, &json!({}), None)
                .await
                .unwrap();
            assert_eq!(same, document);

            // What was read can be sent back; it replaces both parts.
            let mut back = document.clone();
            back["tags"] = json!({ "x": 1, "null": null });
            back["properties"]["desired"]["a"] = json!({ "c": 2, "d": { "e": null } });
            let (document, told) = self::told(&registry, &put, path, &back, None)
                .await
                .unwrap();
            let desired = json!({ "a": { "c": 2, "d": {} }, "$version": 3 });
            assert_eq!(plain(&document), (json!({ "x": 1 }), desired, json!(4)));
            assert_eq!(told, [json!([3, { "a": { "b": null, "c": 2, "d": {} } }])]);

            // Null empties a part, and what is missing from a whole is empty.
            let cleared = json!({ "properties": { "desired": null } });
            let (document, told) = self::told(&registry, &patch, path, &cleared, None)
                .await
                .unwrap();
            assert_eq!(
                plain(&document),
                (json!({ "x": 1 }), json!({ "$version": 4 }), json!(5))
            );
            assert_eq!(told, [json!([4, { "a": null }])]);
            let document = call(&registry, &put, path, &json!({}), None).await.unwrap();
            assert_eq!(
                plain(&document),
                (json!({}), json!({ "$version": 5 }), json!(6))
            );
        }
        let large = |size| json!({ "tags": { "a": vec!["x".repeat(4000); size] } });
        for (body, code) in [
            (json!([]), 400_004),
            (json!({ "tags": 1 }), 400_004),
            (json!({ "properties": [] }), 400_004),
            (json!({ "properties": { "desired": "x" } }), 400_004),
            (json!({ "tags": { "a.b": 1 } }), 400_004),
            (
                json!({ "properties": { "desired": { "a": { "$x": 1 } } } }),
                400_004,
            ),
            (large(3), 413_001),
            (
                json!({ "properties": { "desired": large(9)["tags"] } }),
                413_001,
            ),
            (
                json!({ "properties": { "desired": large(20)["tags"] } }),
                413_001,
            ),
        ] {
            let before = get(&registry, "/twins/d").await.unwrap();
            for method in [&patch, &put] {
                let refused = call(&registry, method, "/twins/d", &body, None).await;
                assert_eq!(refused, Err(code), "{method} {body}");
            }
            assert_eq!(get(&registry, "/twins/d").await.unwrap(), before);
        }
        for path in ["/twins/x", "/twins/x/modules/m"] {
            let refused = call(&registry, &patch, path, &large(1), None).await;
            assert_eq!(refused.unwrap_err() / 1000, 404);
        }
    }
}
