//! Desired properties: what services want reaches the device, in order and without a gap.

use common::mqtt::Packet;
use common::wire::twin;
use reqwest::Method;
use serde_json::{Value, json};
use tests::{RawDevice, RawService, TestHub};

/// Changes a twin; the service is the one that asks.
async fn change(service: &RawService, path: &str, body: &Value) -> Value {
    let call = service
        .call(Method::PATCH, path)
        .header("If-Match", "\"*\"");
    let answer = call.body(body.to_string()).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
}

#[tokio::test]
async fn devices_learn_what_services_want_of_them() {
    let hub = TestHub::start().await;
    let service = RawService::new(&hub).await;
    for (id, path) in [("d", "/twins/d"), ("d/m", "/twins/d/modules/m")] {
        let connection = hub.create(id).await;
        let mut device = RawDevice::connect(&hub, &connection).await;
        device.subscribe_twin().await;
        let desired = |value: Value| json!({ "properties": { "desired": value } });
        // What changes between its read and its subscription is not lost.
        assert_eq!(device.twin("1").await["desired"], json!({ "$version": 1 }));
        change(&service, path, &desired(json!({ "a": 1 }))).await;
        device.subscribe_to(twin::DESIRED_FILTER).await;
        let told = |version: u64, patch: Value| {
            let topic = format!("$iothub/twin/PATCH/properties/desired/?$version={version}");
            (topic, patch)
        };
        let next = async |device: &mut RawDevice| {
            let (topic, body) = device.message().await;
            (topic, serde_json::from_slice::<Value>(&body).unwrap())
        };
        let first = next(&mut device).await;
        assert_eq!(first, told(2, json!({ "a": 1, "$version": 2 })));

        // Many at once come each for itself, in their order; tags are no matter of the device.
        let changes = (0..20).map(|n| {
            let body = json!({ "tags": { "n": n }, "properties": { "desired": { "b": n } } });
            let service = &service;
            async move { change(service, path, &body).await }
        });
        futures_util::future::join_all(changes).await;
        let mut last = Value::Null;
        for version in 3..23 {
            let (topic, patch) = next(&mut device).await;
            last = patch["b"].clone();
            assert_eq!(
                (topic, patch),
                told(version, json!({ "b": last, "$version": version }))
            );
        }
        let twin = device.twin("2").await;
        assert_eq!(
            twin["desired"],
            json!({ "a": 1, "b": last, "$version": 22 })
        );
        assert_eq!(twin["tags"], Value::Null);

        let cleared = change(&service, path, &desired(Value::Null)).await;
        assert_eq!(cleared["properties"]["desired"]["$version"], 23);
        let nulls = json!({ "a": null, "b": null, "$version": 23 });
        assert_eq!(next(&mut device).await, told(23, nulls));

        // A device that was away reads its twin.
        drop(device);
        change(&service, path, &desired(json!({ "c": 1 }))).await;
        let mut device = RawDevice::connect(&hub, &connection).await;
        device.subscribe_twin().await;
        device.subscribe_to(twin::DESIRED_FILTER).await;
        assert_eq!(
            device.twin("3").await["desired"],
            json!({ "c": 1, "$version": 24 })
        );
        // Nothing else was sent.
        device.send(&[0xc0, 0]).await;
        assert!(matches!(device.packet().await, Packet::Pingresp));
    }
}
