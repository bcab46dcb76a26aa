//! The API as SDKs call it, over a real registry.

mod members;

use http_body_util::BodyExt as _;

use http::Method;
use http::header::IF_MATCH;

use super::*;
use crate::api::router::{self, Route};
use crate::data_dir::DataDir;
use crate::registry::{Activity, OnDesired, SqliteRegistry, Twins as _};

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// `online` is connected, nobody else.
struct Presence;

impl Connections for Presence {
    fn activity(&self, identity: &Identity) -> Activity {
        Activity {
            connected: identity.id.to_string() == "online",
            ..identity.activity
        }
    }
    fn connected_devices(&self) -> u64 {
        7
    }
}

impl DesiredListener for Presence {
    fn on_desired(&self, _: &DeviceIdentity) -> OnDesired {
        Box::new(drop)
    }
}

struct Server {
    _temporary: tempfile::TempDir,
    registry: SqliteRegistry,
}

/// Status, error code or etag, body.
type Reply = (u16, String, Value);

impl Server {
    fn new() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let dir = DataDir::open(&temporary.path().join("hub-data")).unwrap();
        Self {
            registry: SqliteRegistry::open(&dir).unwrap(),
            _temporary: temporary,
        }
    }

    async fn call(&self, method: &str, path: &str, if_match: Option<&str>, body: &str) -> Reply {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let Ok(Route::Rest(target)) = router::route(&method, path) else {
            panic!("{path} is of another API");
        };
        let mut headers = HeaderMap::new();
        if let Some(value) = if_match {
            headers.insert(IF_MATCH, value.parse().unwrap());
        }
        let input = Input {
            events: &Events::default(),
            query,
            headers: &headers,
            body: body.as_bytes(),
        };
        let reply = match target.call {
            Ok(router::Call::Identities(call)) => {
                handle(&self.registry, &Presence, call, input).await
            }
            Ok(call) => panic!("{path} is {call:?}"),
            Err(refusal) => Err(refusal),
        };
        match reply {
            Err(refusal) => (
                refusal.code.status().as_u16(),
                refusal.code.number.to_string(),
                refusal.message.into(),
            ),
            Ok(answer) => {
                let (parts, body) = answer.into_parts();
                let header = |name: &str| {
                    let value = parts.headers.get(name)?;
                    Some(value.to_str().unwrap().to_owned())
                };
                let note = header("etag").or_else(|| header("iothub-errorcode"));
                let body = body.collect().await.unwrap().to_bytes();
                let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
                (parts.status.as_u16(), note.unwrap_or_default(), body)
            }
        }
    }

    async fn put(&self, path: &str) -> Reply {
        self.call("PUT", path, None, "{}").await
    }

    async fn get(&self, path: &str) -> Reply {
        self.call("GET", path, None, "").await
    }
}

fn ids(list: &Value, field: &str) -> Vec<String> {
    let list = list.as_array().unwrap();
    let id = |item: &Value| item[field].as_str().unwrap().to_owned();
    list.iter().map(id).collect()
}

#[tokio::test]
async fn the_life_of_a_device() {
    let server = Server::new();
    let node = r#"{"deviceId":"online","status":"enabled","authentication":{"type":"sas","symmetricKey":{"primaryKey":"","secondaryKey":""}}}"#;
    let (status, etag, created) = server.call("PUT", "/devices/online", None, node).await;
    assert_eq!(status, 200);
    assert_eq!(etag, format!("\"{}\"", created["etag"].as_str().unwrap()));
    assert_eq!(created["connectionState"], "Connected");
    let keys = &created["authentication"]["symmetricKey"];
    assert_eq!(keys["primaryKey"].as_str().unwrap().len(), 44);
    assert_ne!(keys["primaryKey"], keys["secondaryKey"]);

    let (status, same, read) = server.get("/devices/online").await;
    assert_eq!((status, &same, &read), (200, &etag, &created));

    let mut wanted = read;
    wanted["status"] = "disabled".into();
    let (status, _, updated) = server
        .call("PUT", "/devices/online", Some(&etag), &wanted.to_string())
        .await;
    assert_eq!((status, &updated["status"]), (200, &"disabled".into()));
    assert_eq!(&updated["authentication"]["symmetricKey"], keys);

    let deleted = server
        .call("DELETE", "/devices/online", Some("*"), "")
        .await;
    assert_eq!(deleted, (204, String::new(), Value::Null));
    assert_eq!(server.get("/devices/online").await.1, "404001");
}

#[tokio::test]
async fn the_etag_table() {
    let server = Server::new();
    let (_, etag, _) = server.put("/devices/d").await;
    server.put("/devices/d/modules/m").await;
    let bare = etag.trim_matches('"').to_owned();
    for (path, missing, existing) in [
        ("/devices/", "404001", "409001"),
        ("/devices/d/modules/", "404010", "409301"),
    ] {
        let name = if path == "/devices/" { "d" } else { "m" };
        let there = format!("{path}{name}");
        let nowhere = format!("{path}nowhere");
        for (method, path, if_match, code) in [
            ("PUT", &there, None, existing),
            ("PUT", &there, Some("\"b3RoZXI=\""), "412001"),
            ("PUT", &there, Some("b3RoZXI="), "412001"),
            ("DELETE", &there, Some("\"b3RoZXI=\""), "412001"),
            ("PUT", &nowhere, Some("\"*\""), missing),
            ("PUT", &nowhere, Some("*"), missing),
            ("PUT", &nowhere, Some("\"b3RoZXI=\""), missing),
            ("DELETE", &nowhere, Some("*"), missing),
            ("DELETE", &nowhere, None, missing),
            ("GET", &nowhere, None, missing),
        ] {
            let reply = server.call(method, path, if_match, "{}").await;
            assert_eq!(reply.1, code, "{method} {path} {if_match:?}");
        }
    }
    for if_match in [&bare, "*", "\"*\""] {
        let reply = server.call("PUT", "/devices/d", Some(if_match), "{}").await;
        assert_eq!(reply.0, 200, "{if_match}");
        assert_ne!(reply.1, etag);
    }
    let reply = server.call("DELETE", "/devices/d", Some(&etag), "").await;
    assert_eq!(reply.1, "412001", "it is an old one by now");
    assert_eq!(server.call("DELETE", "/devices/d", None, "").await.0, 204);
}

#[tokio::test]
async fn modules_and_lists() {
    let server = Server::new();
    assert_eq!(server.put("/devices/b/modules/m").await.1, "404001");
    for path in ["/devices/b", "/devices/a+b@c%d", "/devices/c"] {
        assert_eq!(server.put(path).await.0, 200, "{path}");
    }
    for name in ["n", "m"] {
        let (status, etag, module) = server.put(&format!("/devices/b/modules/{name}")).await;
        assert_eq!((status, &module["moduleId"]), (200, &name.into()));
        assert!(etag.starts_with('"'));
    }
    let (_, _, list) = server.get("/devices/b/modules").await;
    assert_eq!(ids(&list, "moduleId"), ["m", "n"]);
    assert_eq!(server.get("/devices/c/modules").await.2, json!([]));
    assert_eq!(server.get("/devices/x/modules").await.1, "404001");
    for path in ["/devices", "/devices/", "/devices?api-version=1&top=1000"] {
        let (_, _, list) = server.get(path).await;
        assert_eq!(ids(&list, "deviceId"), ["a+b@c%d", "b", "c"], "{path}");
    }
    let (_, _, list) = server.get("/devices?top=2&api-version=x").await;
    assert_eq!(ids(&list, "deviceId").len(), 2);
    for top in ["0", "1001", "x", "", "-1"] {
        assert_eq!(server.get(&format!("/devices?top={top}")).await.1, "400004");
    }
    assert_eq!(
        server.get("/statistics/devices").await.2,
        json!({"totalDeviceCount": 3, "enabledDeviceCount": 3, "disabledDeviceCount": 0})
    );
    assert_eq!(
        server.get("/statistics/service").await.2,
        json!({"connectedDeviceCount": 7})
    );
}

#[tokio::test]
async fn malformed_calls() {
    let server = Server::new();
    for (method, path, body, code) in [
        ("PUT", "/devices/a b", "{}", "400004"),
        ("GET", "/devices/..", "", "400004"),
        ("PUT", "/devices/d", "", "400006"),
        ("PUT", "/devices/d", "{\"status\":", "400006"),
        ("PUT", "/devices/d", "[]", "400006"),
        ("PUT", "/devices/d", r#"{"deviceId":"e"}"#, "400004"),
        ("PUT", "/devices/d", r#"{"status":"on"}"#, "400004"),
        ("PATCH", "/devices/d", "{}", "405000"),
        ("PUT", "/devices", "{}", "405000"),
        ("POST", "/devices/d/modules", "{}", "405000"),
        ("DELETE", "/statistics/devices", "", "405000"),
        ("POST", "/devices", "{}", "400006"),
        ("POST", "/devices", "[{}]", "400004"),
        ("POST", "/devices", r#"[{"id":"a b"}]"#, "400004"),
        (
            "POST",
            "/devices",
            r#"[{"id":"a","importMode":"x"}]"#,
            "400004",
        ),
        ("POST", "/devices", r#"[{"id":"a","status":1}]"#, "400006"),
        (
            "POST",
            "/devices",
            r#"[{"id":"a","importMode":"DeleteIfMatchETag"}]"#,
            "400004",
        ),
        ("POST", "/devices", r#"[{"id":"a"},{"id":"a"}]"#, "400011"),
    ] {
        let reply = server.call(method, path, None, body).await;
        assert_eq!(reply.1, code, "{method} {path} {body}: {}", reply.2);
    }
    let many: Vec<_> = (0..=limits::BULK_ITEMS)
        .map(|n| json!({"id": format!("d{n}"), "importMode": "create"}))
        .collect();
    let many = Value::from(many).to_string();
    assert_eq!(
        server.call("POST", "/devices", None, &many).await.1,
        "400004"
    );
    assert_eq!(
        server.get("/devices").await.2,
        json!([]),
        "nothing was done"
    );
}

#[tokio::test]
async fn bulk_requests() {
    let server = Server::new();
    let full: Vec<_> = (0..limits::BULK_ITEMS)
        .map(|n| json!({"id": format!("d{n}"), "importMode": "create", "status": "enabled"}))
        .collect();
    let full = Value::from(full).to_string();
    let good = json!({"isSuccessful": true, "errors": [], "warnings": []});
    let reply = server.call("POST", "/devices/", None, &full).await;
    assert_eq!((reply.0, reply.2), (200, good.clone()));

    let (_, etag, _) = server.get("/devices/d0").await;
    let items = json!([
        {"id": "d0", "importMode": "UpdateIfMatchETag", "eTag": etag, "status": "disabled",
         "authentication": {"type": "sas", "symmetricKey": {"primaryKey": KEY, "secondaryKey": KEY}}},
        {"id": "d1", "importMode": "Update", "status": "disabled"},
        {"id": "d2", "importMode": "Delete"},
        {"id": "d3", "moduleId": "m", "importMode": "create"},
        {"id": "new"},
        {"id": "d4"},
    ]);
    let reply = server
        .call("POST", "/devices", None, &items.to_string())
        .await;
    assert_eq!((reply.0, reply.2), (200, good));
    let (_, _, d0) = server.get("/devices/d0").await;
    assert_eq!(d0["status"], "disabled");
    assert_eq!(d0["authentication"]["symmetricKey"]["primaryKey"], KEY);
    assert_eq!(server.get("/devices/d2").await.0, 404);
    assert_eq!(server.get("/devices/d3/modules/m").await.0, 200);
    assert_eq!(server.get("/devices/new").await.0, 200);

    let items = json!([
        {"id": "d5", "importMode": "CREATE"},
        {"id": "d2", "importMode": "update"},
        {"id": "d6", "importMode": "deleteIfMatchEtag", "eTag": "b3RoZXI="},
        {"id": "d7", "importMode": "delete"},
    ]);
    let (status, name, result) = server
        .call("POST", "/devices", None, &items.to_string())
        .await;
    assert_eq!(
        (status, name.as_str()),
        (400, "BulkRegistryOperationFailure")
    );
    assert_eq!(result["isSuccessful"], false);
    assert_eq!(ids(&result["errors"], "deviceId"), ["d5", "d2", "d6"]);
    assert_eq!(
        ids(&result["errors"], "errorCode"),
        [
            "DeviceAlreadyExists",
            "DeviceNotFound",
            "PreconditionFailed"
        ]
    );
    assert_eq!(server.get("/devices/d7").await.0, 404, "the rest was done");
}

#[tokio::test]
async fn bulk_requests_change_twins_too() {
    let server = Server::new();
    let body = r#"[{"id":"a","importMode":"create"},{"id":"b","importMode":"create"}]"#;
    assert_eq!(server.call("POST", "/devices", None, body).await.0, 200);
    let id = documents::id("a", None).unwrap();
    let twin = async || server.registry.twin(&id).await.unwrap().unwrap();
    let first = twin().await;
    let body = r#"[{"id":"a","importMode":"UpdateTwin","tags":{"x":1},
                    "properties":{"desired":{"y":2}}}]"#;
    assert_eq!(server.call("POST", "/devices", None, body).await.0, 200);
    let second = twin().await;
    assert_eq!(Value::from(second.tags.clone()), json!({ "x": 1 }));
    assert_eq!(second.desired.properties["y"], 2);
    for (etag, status) in [(&first.etag, 400), (&second.etag, 200)] {
        let item = json!([{ "id": "a", "importMode": "updateTwinIfMatchETag",
                            "twinETag": format!("\"{etag}\""), "tags": { "x": null } }]);
        let reply = server
            .call("POST", "/devices", None, &item.to_string())
            .await;
        assert_eq!(reply.0, status, "{reply:?}");
    }
    assert!(twin().await.tags.is_empty());
    for (body, code) in [
        (
            r#"[{"id":"a","importMode":"updateTwinIfMatchETag"}]"#,
            "400004",
        ),
        (
            r#"[{"id":"a","importMode":"updateTwin","tags":1}]"#,
            "400004",
        ),
    ] {
        assert_eq!(server.call("POST", "/devices", None, body).await.1, code);
    }
}
