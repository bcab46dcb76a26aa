//! Every member of the documented identities: what becomes of it when a client sends it on
//! create and on update, one by one and in bulk.

use super::*;
use crate::iso8601::NEVER;

const PRINT: &str = "ABABABABABABABABABABABABABABABABABABABAB";

/// What stands in the document afterwards.
#[derive(Clone)]
enum Then {
    /// This.
    Is(Value),
    /// Something that the hub has made itself, and not what was sent.
    Made,
    /// Nothing: there is no such member.
    Missing,
}

use Then::{Is, Made, Missing};

/// A member, what is sent in it, and what comes of it.
struct Member {
    pointer: &'static str,
    create: Value,
    created: Then,
    update: Value,
    updated: Then,
}

fn member(
    pointer: &'static str,
    (create, created): (Value, Then),
    (update, updated): (Value, Then),
) -> Member {
    Member {
        pointer,
        create,
        created,
        update,
        updated,
    }
}

/// Kept as it is sent.
fn kept(value: Value) -> (Value, Then) {
    (value.clone(), Is(value))
}

/// A member that is the hub's own: whatever is sent, this is there.
fn own(pointer: &'static str, sent: &str, then: Then) -> Member {
    let step = || (Value::from(sent), then.clone());
    member(pointer, step(), step())
}

/// Of both kinds; `wrong` is their other id.
fn of_both() -> Vec<Member> {
    let key = |part: &'static str| {
        let other = KEY.replace("AAEC", "AAED");
        member(part, kept(KEY.into()), kept(other.into()))
    };
    let print = |part: &'static str| {
        let other = PRINT.replace("AB", "CD");
        member(part, kept(PRINT.into()), kept(other.into()))
    };
    vec![
        own("/generationId", "1", Made),
        own("/etag", "AAAA", Made),
        own("/connectionState", "Connected", Is("Disconnected".into())),
        own(
            "/connectionStateUpdatedTime",
            "2020-01-01T00:00:00Z",
            Is(NEVER.into()),
        ),
        own(
            "/lastActivityTime",
            "2020-01-01T00:00:00Z",
            Is(NEVER.into()),
        ),
        own("/cloudToDeviceMessageCount", "7", Is(0.into())),
        member(
            "/authentication/type",
            kept("sas".into()),
            kept("certificateAuthority".into()),
        ),
        member(
            "/authentication/type",
            kept("none".into()),
            kept("sas".into()),
        ),
        key("/authentication/symmetricKey/primaryKey"),
        key("/authentication/symmetricKey/secondaryKey"),
        member(
            "/authentication/symmetricKey/primaryKey",
            ("".into(), Made),
            ("".into(), Made),
        ),
        print("/authentication/x509Thumbprint/primaryThumbprint"),
        print("/authentication/x509Thumbprint/secondaryThumbprint"),
    ]
}

fn of_a_device() -> Vec<Member> {
    let none = (Value::Null, Is(Value::Null));
    let mut members = of_both();
    members.extend([
        member("/status", kept("disabled".into()), kept("enabled".into())),
        member("/statusReason", kept("lost".into()), kept("found".into())),
        member("/statusReason", kept("lost".into()), none),
        own(
            "/statusUpdatedTime",
            "2020-01-01T00:00:00Z",
            Is(NEVER.into()),
        ),
        member(
            "/capabilities/iotEdge",
            kept(true.into()),
            kept(false.into()),
        ),
        own("/managedBy", "x", Missing),
        own("/moduleId", "", Missing),
    ]);
    members
}

fn of_a_module() -> Vec<Member> {
    let mut members = of_both();
    members.extend([
        member("/managedBy", kept("a".into()), kept("b".into())),
        member(
            "/managedBy",
            kept("a".into()),
            (Value::Null, Is(Value::Null)),
        ),
        own("/status", "disabled", Missing),
        own("/statusReason", "x", Missing),
        own("/statusUpdatedTime", "2020-01-01T00:00:00Z", Missing),
        own("/deviceScope", "ms-azure-iot-edge://x-1", Missing),
    ]);
    members
}

/// `{"a":{"b":value}}` for `/a/b`.
fn nested(pointer: &str, value: &Value) -> Value {
    pointer
        .rsplit('/')
        .filter(|name| !name.is_empty())
        .fold(value.clone(), |inner, name| json!({ name: inner }))
}

fn check(document: &Value, member: &Member, sent: &Value, then: &Then) {
    let pointer = member.pointer;
    let found = document.pointer(pointer);
    match then {
        Is(value) => assert_eq!(found, Some(value), "{pointer} {document}"),
        Missing => assert_eq!(found, None, "{pointer} {document}"),
        Made => {
            let text = found.and_then(Value::as_str).unwrap_or_default();
            assert!(!text.is_empty() && *sent != *text, "{pointer} {document}");
        }
    }
}

#[tokio::test]
async fn what_becomes_of_each() {
    let server = Server::new();
    server.put("/devices/parent").await;
    let tables = [("devices", of_a_device()), ("modules", of_a_module())];
    for (kind, members) in tables {
        for (number, member) in members.iter().enumerate() {
            for bulk in [false, true] {
                let name = format!("n{number}{bulk}");
                let (path, id) = match kind {
                    "devices" => (format!("/devices/{name}"), json!({ "id": name })),
                    _ => (
                        format!("/devices/parent/modules/{name}"),
                        json!({ "id": "parent", "moduleId": name }),
                    ),
                };
                for (mode, sent, then) in [
                    ("create", &member.create, &member.created),
                    ("update", &member.update, &member.updated),
                ] {
                    let mut body = nested(member.pointer, sent);
                    if bulk {
                        let fields = body.as_object_mut().unwrap();
                        // An item of a bulk request has a member of this name: its own.
                        fields.remove("moduleId");
                        fields.extend(id.as_object().unwrap().clone());
                        fields.insert("importMode".to_owned(), mode.into());
                        let body = json!([body]).to_string();
                        let reply = server.call("POST", "/devices", None, &body).await;
                        assert_eq!(reply.0, 200, "{mode} {body}: {}", reply.2);
                    } else {
                        let condition = (mode == "update").then_some("*");
                        if member.pointer == "/moduleId" {
                            body = json!({});
                        }
                        let body = body.to_string();
                        let reply = server.call("PUT", &path, condition, &body).await;
                        assert_eq!(reply.0, 200, "{mode} {body}: {}", reply.2);
                        check(&reply.2, member, sent, then);
                    }
                    check(&server.get(&path).await.2, member, sent, then);
                }
            }
        }
    }
}

#[tokio::test]
async fn what_is_sent_whole_comes_back_whole() {
    let server = Server::new();
    for path in ["/devices/d", "/devices/d/modules/m"] {
        let (_, _, made) = server.put(path).await;
        let body = made.to_string();
        let (status, _, mut again) = server.call("PUT", path, Some("*"), &body).await;
        assert_eq!(status, 200);
        again["etag"] = made["etag"].clone();
        assert_eq!(again, made);
    }
}

#[tokio::test]
async fn texts_have_a_longest_length() {
    let server = Server::new();
    server.put("/devices/d").await;
    for (path, name) in [
        ("/devices/x", "statusReason"),
        ("/devices/d/modules/x", "managedBy"),
    ] {
        // Characters, not bytes.
        for (length, code) in [(129, "400004"), (128, "")] {
            let body = json!({ name: "ü".repeat(length) }).to_string();
            let reply = server.call("PUT", path, None, &body).await;
            assert!(
                reply.1 == code || code.is_empty() && reply.0 == 200,
                "{reply:?}"
            );
        }
    }
}

#[tokio::test]
async fn parents_and_children() {
    let server = Server::new();
    let make =
        async |path: &str, body: Value| server.call("PUT", path, None, &body.to_string()).await;
    let edge = json!({ "capabilities": { "iotEdge": true }, "deviceScope": "mine" });
    let (_, _, root) = make("/devices/ro-ot", edge).await;
    let generation = root["generationId"].as_str().unwrap();
    let scope = format!("ms-azure-iot-edge://ro-ot-{generation}");
    assert_eq!(root["deviceScope"], scope, "the hub's, whatever is sent");
    assert_eq!(root.get("parentScopes"), None);

    // An edge device below another has its own scope, and its parent's.
    let below = json!({ "capabilities": { "iotEdge": true }, "parentScopes": [scope] });
    let (_, _, middle) = make("/devices/middle", below).await;
    assert_eq!(middle["parentScopes"], json!([scope]));
    let inner = middle["deviceScope"].clone();
    assert!(
        inner
            .as_str()
            .unwrap()
            .starts_with("ms-azure-iot-edge://middle-")
    );

    // A leaf device has its parent's in both; one of them is enough.
    for body in [
        json!({ "deviceScope": inner }),
        json!({ "parentScopes": [inner] }),
        json!({ "deviceScope": inner, "parentScopes": [inner] }),
        // A client that moves it leaves the old parent in the document that it has read.
        json!({ "deviceScope": inner, "parentScopes": [scope] }),
    ] {
        let (_, _, leaf) = make("/devices/leaf", body).await;
        assert_eq!(leaf["deviceScope"], inner);
        assert_eq!(leaf["parentScopes"], json!([inner]));
        assert_eq!(
            server.call("DELETE", "/devices/leaf", None, "").await.0,
            204
        );
    }

    let old = format!("ms-azure-iot-edge://ro-ot-{}", "1".repeat(18));
    let (_, _, plain) = make("/devices/plain", json!({})).await;
    let not_edge = format!(
        "ms-azure-iot-edge://plain-{}",
        plain["generationId"].as_str().unwrap()
    );
    for bad in [
        json!({ "deviceScope": "x" }),
        json!({ "deviceScope": "ms-azure-iot-edge://nobody-1" }),
        json!({ "deviceScope": "ms-azure-iot-edge://-" }),
        json!({ "deviceScope": old }),
        json!({ "parentScopes": [not_edge] }),
        json!({ "parentScopes": [scope, inner] }),
        json!({ "deviceScope": "ms-azure-iot-edge://bad-1" }),
    ] {
        let reply = make("/devices/bad", bad.clone()).await;
        assert_eq!(reply.1, "400004", "{bad}");
    }
    let shape = make("/devices/bad", json!({ "parentScopes": scope })).await;
    assert_eq!(shape.1, "400006");

    // A parent that is gone does not make its children unchangeable; a new one of its name
    // is another.
    let (_, _, leaf) = make("/devices/leaf", json!({ "deviceScope": inner })).await;
    server.call("DELETE", "/devices/middle", None, "").await;
    let update = async |body: &Value| {
        let body = body.to_string();
        server.call("PUT", "/devices/leaf", Some("*"), &body).await
    };
    assert_eq!(update(&leaf).await.2["deviceScope"], inner);
    // Without a parent, in the two ways in which clients say so.
    let mut free = leaf.clone();
    free["deviceScope"] = "".into();
    let (_, _, freed) = update(&free).await;
    assert_eq!(
        (freed.get("deviceScope"), freed.get("parentScopes")),
        (None, None)
    );
    assert_eq!(
        update(&leaf).await.1,
        "400004",
        "that scope is of nobody now"
    );
    // A device that becomes an edge device keeps its parent.
    let (_, _, child) = update(&json!({ "deviceScope": scope })).await;
    let mut turned = child.clone();
    turned["capabilities"]["iotEdge"] = true.into();
    let (_, _, turned) = update(&turned).await;
    assert_ne!(turned["deviceScope"], child["deviceScope"]);
    assert_eq!(turned["parentScopes"], json!([scope]));
}
