//! Twins: what devices report, and what services read.

use std::time::Duration;

use common::clock::unix_now;
use common::mqtt::{self, Packet};
use common::wire::initiation::InitiationResult;
use common::wire::twin::TwinResponse;
use hub::device_session::TWIN_REQUESTS;
use hub::registry::Status;
use reqwest::Method;
use serde_json::{Value, json};
use tests::hub::identity;
use tests::raw_service::{refusal, token};
use tests::service::hub_api;
use tests::{RawDevice, RawService, TestHub, soon, wait};

/// A device that receives responses about its twin.
struct Device(RawDevice);

impl Device {
    async fn connect(hub: &TestHub, id: &str) -> Self {
        let connection = hub.create(id).await;
        let mut device = RawDevice::connect(hub, &connection).await;
        device.subscribe_twin().await;
        Self(device)
    }

    async fn get(&mut self, rid: &str) -> Value {
        self.0.twin(rid).await
    }

    /// Status and new version, or status and error code.
    async fn patch(&mut self, body: &str) -> (u16, u64) {
        let topic = "$iothub/twin/PATCH/properties/reported/?$rid=7";
        self.0.publish(topic, body.as_bytes()).await;
        let (response, body) = self.0.twin_response().await;
        assert_eq!(response.request_id.as_str(), "7");
        let Some(version) = response.version else {
            let body: Value = serde_json::from_slice(&body).unwrap();
            assert!(body["message"].is_string(), "{body}");
            return (response.status, body["errorCode"].as_u64().unwrap());
        };
        assert!(body.is_empty(), "one SDK trips over a body");
        (response.status, version)
    }
}

async fn read(service: &RawService, path: &str) -> Value {
    let path = format!("{path}?api-version=2021-04-12");
    let response = service.call(Method::GET, &path).send().await.unwrap();
    assert_eq!(response.status(), 200);
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}

#[tokio::test]
async fn devices_and_modules_read_and_report() {
    let hub = TestHub::start().await;
    let mut device = Device::connect(&hub, "d").await;
    let mut module = Device::connect(&hub, "d/m").await;
    let service = RawService::new(&hub).await;
    for (device, path, id) in [
        (&mut device, "/twins/d", "1"),
        (&mut module, "/twins/d/modules/m", "0f3c-A.x=:"),
    ] {
        assert_eq!(
            device.get(id).await,
            json!({ "desired": { "$version": 1 }, "reported": { "$version": 1 } })
        );
        assert_eq!(
            device.patch(r#"{"a":{"b":1,"c":"x"},"d":true}"#).await,
            (204, 2)
        );
        assert_eq!(device.patch(r#"{"a":{"b":null},"d":null}"#).await, (204, 3));
        assert_eq!(
            device.get(id).await["reported"],
            json!({ "a": { "c": "x" }, "$version": 3 })
        );
        let twin = read(&service, path).await;
        assert_eq!(twin["version"], 3);
        assert_eq!(twin["connectionState"], "Connected");
        let reported = &twin["properties"]["reported"];
        assert_eq!(reported["a"], json!({ "c": "x" }));
        assert!(reported["$metadata"]["a"]["c"]["$lastUpdated"].is_string());
    }
}

#[tokio::test]
async fn bad_patches_are_refused_and_change_nothing() {
    let hub = TestHub::start().await;
    let mut device = Device::connect(&hub, "d").await;
    assert_eq!(device.patch(r#"{"a":1}"#).await, (204, 2));
    let large = json!({ "a": vec!["x".repeat(4000); 9] }).to_string();
    for bad in [
        "",
        "{",
        "[]",
        "null",
        r#"{"$a":1}"#,
        r#"{"a":9007199254740993}"#,
    ] {
        assert_eq!(device.patch(bad).await, (400, 400_004), "{bad}");
    }
    assert_eq!(device.patch(&large).await, (413, 413_001));
    assert_eq!(device.patch(&"x".repeat(200_000)).await, (413, 413_001));
    assert_eq!(
        device.get("1").await["reported"],
        json!({ "a": 1, "$version": 2 })
    );
}

#[tokio::test]
async fn answers_go_to_subscribers_only_and_to_ids_that_fit() {
    let hub = TestHub::start().await;
    let connection = hub.create("d").await;
    let mut device = RawDevice::connect(&hub, &connection).await;
    // Not answered, but carried out.
    device.publish("$iothub/twin/GET/?$rid=1", b"").await;
    let topic = "$iothub/twin/PATCH/properties/reported/?$rid=2";
    device.publish(topic, br#"{"a":1}"#).await;
    device.subscribe_twin().await;
    for rid in ["a/b", "", "a?b"] {
        let topic = format!("$iothub/twin/GET/?$rid={rid}");
        device.publish(&topic, b"").await;
    }
    device.publish("$iothub/twin/GET/?$rid=3", b"").await;
    let (response, body) = device.twin_response().await;
    // The first request that could be answered: no response was sent for the others.
    assert_eq!(response.request_id.as_str(), "3");
    let twin: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(twin["reported"], json!({ "a": 1, "$version": 2 }));
}

#[tokio::test]
async fn an_id_that_cannot_stand_in_a_topic_does_no_harm() {
    let hub = TestHub::start().await;
    let connection = hub.create("d").await;
    for bad in ["a#", "+", "a\u{1}"] {
        let mut device = RawDevice::connect(&hub, &connection).await;
        device.subscribe_twin().await;
        // Our own codec would not encode it.
        let topic = format!("$iothub/twin/GET/?$rid={bad}");
        let mut packet = vec![0x30, 2 + topic.len() as u8, 0, topic.len() as u8];
        packet.extend_from_slice(topic.as_bytes());
        packet.extend_from_slice(&[0xc0, 0]);
        device.io.write(&packet).await.unwrap();
        // The next ping is answered, or the session ends; nothing else arrives.
        let next = soon("the hub's reaction", device.io.read()).await;
        assert!(
            matches!(next, Ok(Some(Packet::Pingresp) | None) | Err(_)),
            "{bad:?}: {next:?}"
        );
    }
}

/// Another process that locks the registry until it is dropped.
struct Busy {
    _database: rusqlite::Connection,
}

impl Busy {
    fn new(hub: &TestHub) -> Self {
        let database = rusqlite::Connection::open(hub.data_dir().join("hub.db")).unwrap();
        database.busy_timeout(Duration::from_secs(5)).unwrap();
        database.execute_batch("BEGIN IMMEDIATE").unwrap();
        Self {
            _database: database,
        }
    }
}

#[tokio::test]
async fn a_write_that_waits_holds_up_nothing_else_of_its_session() {
    let hub = TestHub::start().await;
    let mut device = Device::connect(&hub, "d").await.0;
    let service = RawService::new(&hub).await;
    let busy = Busy::new(&hub);
    let topic = |rid: usize| format!("$iothub/twin/PATCH/properties/reported/?$rid={rid}");
    device.publish(&topic(1), br#"{"a":1}"#).await;
    device.publish("$iothub/twin/GET/?$rid=2", b"").await;
    for _ in 0..3 {
        device.io.write(&[0xc0, 0]).await.unwrap();
        assert!(matches!(device.packet().await, Packet::Pingresp));
        let (answer, ()) = tokio::join!(service.initiate("d", "s", 10.0, 10.0), async {
            let request = device.request().await;
            device.answer(&request, false).await;
        });
        let answer = InitiationResult::from_headers(answer.headers());
        assert!(matches!(answer, Ok(InitiationResult::Rejected)));
    }
    drop(busy);
    let (response, _) = device.twin_response().await;
    assert_eq!((response.request_id.as_str(), response.status), ("1", 204));
    let (response, body) = device.twin_response().await;
    assert_eq!((response.request_id.as_str(), response.status), ("2", 200));
    let twin: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(twin["reported"]["a"], 1, "in the order of the requests");
}

#[tokio::test]
async fn requests_wait_in_their_order_and_more_than_a_few_are_not_read() {
    let hub = TestHub::start().await;
    let mut device = Device::connect(&hub, "d").await.0;
    let busy = Busy::new(&hub);
    let count = 3 * TWIN_REQUESTS;
    let mut packets = Vec::new();
    for rid in 0..count {
        let topic = format!("$iothub/twin/PATCH/properties/reported/?$rid={rid}");
        let patch = json!({ "n": rid }).to_string();
        packets.extend(mqtt::publish_with(&topic, patch.as_bytes()).unwrap());
    }
    // Read in the end all the same, like the Close after it.
    packets.extend([0xc0, 0]);
    device.io.write(&packets).await.unwrap();
    drop(busy);
    let mut pinged = false;
    let mut seen = 0;
    while seen < count {
        match device.packet().await {
            Packet::Pingresp => pinged = true,
            Packet::Publish(publish) => {
                let response = TwinResponse::from_topic(publish.topic_name()).unwrap();
                assert_eq!(response.request_id.as_str(), seen.to_string());
                assert_eq!(response.version, Some(seen as u64 + 2));
                seen += 1;
            }
            other => panic!("{other:?} instead of an answer"),
        }
        let is_early = seen + TWIN_REQUESTS < count;
        assert!(!(pinged && is_early), "read before there was room");
    }
    if !pinged {
        assert!(matches!(device.packet().await, Packet::Pingresp));
    }
}

#[tokio::test]
async fn packets_before_a_disconnect_are_carried_out() {
    let hub = TestHub::start().await;
    let mut device = Device::connect(&hub, "d").await.0;
    let busy = Busy::new(&hub);
    for name in ["a", "b", "c"] {
        let topic = format!("$iothub/twin/PATCH/properties/reported/?$rid={name}");
        let patch = json!({ name: 1 }).to_string();
        device.publish(&topic, patch.as_bytes()).await;
    }
    device.io.write(&[0xe0, 0]).await.unwrap();
    let id = identity("d");
    wait("the Close", || !hub.state.presence.is_subscribed(&id)).await;
    drop(busy);
    wait("the session's end", || {
        !hub.state.presence.is_connected(&id)
    })
    .await;
    let twin = read(&RawService::new(&hub).await, "/twins/d").await;
    let reported = &twin["properties"]["reported"];
    assert_eq!(
        (&reported["a"], &reported["b"], &reported["c"]),
        (&json!(1), &json!(1), &json!(1))
    );
}

#[tokio::test]
async fn only_service_policies_may_read_and_write_twins() {
    let hub = TestHub::start().await;
    hub.create("d").await;
    let service = RawService::new(&hub).await;
    let call = async |service: &RawService, method, path: &str| {
        refusal(service.call(method, path).send().await.unwrap()).await
    };
    for policy in ["registryRead", "registryReadWrite", "device"] {
        let other = RawService::with_policy(&hub, policy).await;
        for method in [Method::GET, Method::PATCH, Method::PUT] {
            let seen = call(&other, method, "/twins/d").await;
            assert_eq!(seen, (401, 401_002), "{policy}");
        }
    }
    let expired = token(&hub.policy("service").await, unix_now() - 3600);
    let expired = RawService::with_token(&hub, expired);
    assert_eq!(call(&expired, Method::GET, "/twins/d").await.0, 401);
    for (method, path, seen) in [
        (Method::GET, "/twins/x", (404, 404_001)),
        (Method::GET, "/twins/d/modules/x", (404, 404_010)),
        (Method::PATCH, "/twins/d", (400, 400_006)),
        (Method::DELETE, "/twins/d", (405, 405_000)),
        (Method::GET, "/twins/d/streams", (404, 404_000)),
    ] {
        assert_eq!(call(&service, method, path).await, seen, "{path}");
    }
}

#[tokio::test]
async fn twins_outlive_the_hub_and_go_with_their_identity() {
    let hub = TestHub::start().await;
    let mut device = Device::connect(&hub, "d").await;
    assert_eq!(device.patch(r#"{"a":1}"#).await, (204, 2));
    let before = read(&RawService::new(&hub).await, "/twins/d").await;
    let hub = hub.restart().await;
    let service = RawService::new(&hub).await;
    let mut after = read(&service, "/twins/d").await;
    for changed in ["connectionState", "connectionStateUpdatedTime"] {
        assert_ne!(after[changed], before[changed]);
        after[changed] = before[changed].clone();
    }
    assert_eq!(after, before);
    hub.delete("d").await;
    let response = service.call(Method::GET, "/twins/d").send().await.unwrap();
    assert_eq!(refusal(response).await, (404, 404_001));
    hub.create("d").await;
    let fresh = read(&service, "/twins/d").await;
    assert_eq!(fresh["properties"]["reported"]["$version"], 1);
    assert_ne!(fresh["etag"], before["etag"]);
}

#[tokio::test]
async fn twins_report_disabled_identities() {
    let hub = TestHub::start().await;
    let api = hub_api(&hub, "service").await;
    for id in ["d", "d/m"] {
        hub.create(id).await;
        assert!(!api.is_disabled(&identity(id)).await.unwrap());
    }
    hub.set_status("d", Status::Disabled).await;
    for id in ["d", "d/m"] {
        assert!(api.is_disabled(&identity(id)).await.unwrap(), "{id}");
    }
    assert!(api.is_disabled(&identity("x")).await.is_err());
    hub.set_status("d", Status::Enabled).await;
    assert!(!api.is_disabled(&identity("d")).await.unwrap());
}
