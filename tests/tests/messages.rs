//! Messages: from services to devices, which take them when they are there, and from devices to
//! whoever looks.

use std::time::{Duration, Instant};

use common::clock::unix_now;
use common::mqtt::{self, Packet, Qos};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tests::raw_device::password;
use tests::raw_service::refusal;
use tests::{RawDevice, RawService, TestHub};

const FILTER: &str = "devices/d/messages/devicebound/#";

async fn send(service: &RawService, body: &str, headers: &[(&str, &str)]) -> Result<(), u32> {
    let mut call = service.call(Method::POST, "/devices/d/messages/devicebound");
    for (name, value) in headers {
        call = call.header(*name, *value);
    }
    let answer = call.body(body.to_owned()).send().await.unwrap();
    if answer.status() != StatusCode::NO_CONTENT {
        return Err(refusal(answer).await.1);
    }
    Ok(())
}

/// Subscribes messages with QoS 1, as SDKs do.
async fn subscribe(device: &mut RawDevice) {
    let mut subscribe = mqtt::subscribe(4, &[FILTER]).unwrap();
    *subscribe.last_mut().unwrap() = 1;
    device.send(&subscribe).await;
    assert!(matches!(device.packet().await, Packet::Suback(_)));
}

/// The next message, with its packet's id, and whether it was sent before.
async fn next(device: &mut RawDevice) -> (String, String, u16, bool) {
    let Packet::Publish(publish) = device.packet().await else {
        panic!("no message");
    };
    assert_eq!(publish.qos(), Qos::AtLeastOnce);
    let topic = publish.topic_name().to_owned();
    let body = String::from_utf8(publish.payload().as_slice().to_vec()).unwrap();
    (topic, body, publish.packet_id().unwrap(), publish.dup())
}

async fn take(device: &mut RawDevice, id: u16) {
    let [high, low] = id.to_be_bytes();
    device.send(&[0x40, 2, high, low]).await;
}

async fn waiting(service: &RawService) -> Value {
    let answer = service.call(Method::GET, "/twins/d").send().await.unwrap();
    let twin: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    twin["cloudToDeviceMessageCount"].clone()
}

#[tokio::test]
async fn messages_wait_for_their_device_and_are_gone_when_it_has_taken_them() {
    let hub = TestHub::start().await;
    let service = RawService::new(&hub).await;
    let connection = hub.create("d").await;
    let headers = [
        ("iothub-messageid", "m/1"),
        ("iothub-app-level", "a&b"),
        ("content-type", "application/json"),
    ];
    send(&service, "first", &headers).await.unwrap();
    for n in 2..12 {
        send(&service, &n.to_string(), &[]).await.unwrap();
    }
    assert_eq!(waiting(&service).await, 11);

    let (mut device, _) = RawDevice::resume(&hub, &connection, false).await;
    subscribe(&mut device).await;
    let (topic, body, id, is_repeated) = next(&mut device).await;
    let properties = topic
        .strip_prefix("devices/d/messages/devicebound/")
        .unwrap();
    let mut properties: Vec<_> = properties.split('&').collect();
    properties.sort_unstable();
    assert_eq!(
        properties,
        [
            "%24.ct=application%2Fjson",
            "%24.mid=m%2F1",
            "%24.to=%2Fdevices%2Fd%2Fmessages%2Fdevicebound",
            "level=a%26b",
        ]
    );
    assert_eq!((body.as_str(), is_repeated), ("first", false));
    take(&mut device, id).await;
    let (_, body, id, _) = next(&mut device).await;
    assert_eq!(body, "2");
    take(&mut device, id).await;
    let (_, body, _, _) = next(&mut device).await;
    assert_eq!(body, "3");
    let started = Instant::now();
    while waiting(&service).await != 9 {
        assert!(started.elapsed() < Duration::from_secs(20), "two are taken");
    }
    // What it has not taken comes again, also to a hub that was started anew.
    drop(device);
    let hub = hub.restart().await;
    let service = RawService::new(&hub).await;
    let (mut device, has_session) = RawDevice::resume(&hub, &connection, false).await;
    assert!(has_session, "with its subscription");
    for n in 3..12 {
        let (_, body, id, is_repeated) = next(&mut device).await;
        assert_eq!(body, n.to_string());
        assert!(is_repeated || n > 8, "{n} was on its way before");
        take(&mut device, id).await;
    }
    send(&service, "now", &[]).await.unwrap();
    let (_, body, id, _) = next(&mut device).await;
    assert_eq!(body, "now");
    take(&mut device, id).await;
    device.send(&[0xe0, 0]).await;
    device.ended().await;
    assert_eq!(waiting(&service).await, 0);
}

#[tokio::test]
async fn queues_are_bounded_and_purged_and_messages_expire() {
    let hub = TestHub::start().await;
    let service = RawService::new(&hub).await;
    hub.create("d").await;
    let expired = [("iothub-expiry", "2001-01-01T00:00:00Z")];
    for _ in 0..60 {
        send(&service, "old", &expired).await.unwrap();
    }
    for _ in 0..50 {
        send(&service, "x", &[]).await.unwrap();
    }
    assert_eq!(send(&service, "x", &[]).await, Err(403_004));
    let purge = service.call(Method::DELETE, "/devices/d/commands");
    let answer = purge.send().await.unwrap().bytes().await.unwrap();
    let purged: Value = serde_json::from_slice(&answer).unwrap();
    let expected = json!({ "totalMessagesPurged": 50, "deviceId": "d", "moduleId": null });
    assert_eq!(purged, expected);
    assert_eq!(waiting(&service).await, 0);
    let large = "x".repeat((64 << 10) + 1);
    assert_eq!(send(&service, &large, &[]).await, Err(413_001));
    let bad = [("iothub-expiry", "soon")];
    assert_eq!(send(&service, "x", &bad).await, Err(400_004));
    hub.delete("d").await;
    assert_eq!(send(&service, "x", &[]).await, Err(404_001));
}

async fn recent(service: &RawService, query: &str) -> Value {
    let path = format!("/messages/events?api-version=2021-04-12{query}");
    let answer = service.call(Method::GET, &path).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
}

#[tokio::test]
async fn what_devices_send_can_be_watched() {
    let hub = TestHub::start().await;
    let service = RawService::new(&hub).await;
    let connection = hub.create("d").await;
    let mut device = RawDevice::connect(&hub, &connection).await;
    let mut module = RawDevice::connect(&hub, &hub.create("d/m").await).await;
    let first = recent(&service, "").await;
    assert_eq!(
        (&first["messages"], &first["lost"]),
        (&json!([]), &json!(0))
    );
    let next = first["next"].as_str().unwrap();
    let query = format!("&deviceId=d&after={next}&wait=60");
    let watching = recent(&service, &query);
    let sending = async {
        let topic = "devices/d/messages/events/level=high&%24.ct=application%2Fjson";
        device.publish(topic, br#"{"t":21.5}"#).await;
    };
    let (page, ()) = tokio::join!(watching, sending);
    let message = &page["messages"][0];
    assert_eq!(message["body"], json!({ "t": 21.5 }));
    assert_eq!(message["properties"], json!({ "level": "high" }));
    assert_eq!(message["contentType"], "application/json");
    assert_eq!(
        (&message["deviceId"], &message["moduleId"]),
        (&json!("d"), &Value::Null)
    );

    module
        .publish("devices/d/modules/m/messages/events/", b"\xff\0")
        .await;
    // Over HTTPS, by the device itself, and by nobody else.
    let token = password(&connection, unix_now() + 3600);
    let own = RawService::with_token(&hub, token);
    let path = "/devices/d/messages/events?api-version=2021-04-12";
    let call = own.call(Method::POST, path).header("iothub-app-a", "b");
    assert_eq!(call.body("plain").send().await.unwrap().status(), 204);
    let owner = RawService::with_policy(&hub, "iothubowner").await;
    let foreign = owner.call(Method::POST, path).body("x").send().await;
    assert_eq!(refusal(foreign.unwrap()).await, (401, 401_002));
    let next = page["next"].as_str().unwrap();
    let mut found = Vec::new();
    let mut after = next.to_owned();
    while found.len() < 2 {
        let page = recent(&service, &format!("&after={after}&wait=60")).await;
        found.extend(page["messages"].as_array().unwrap().clone());
        after = page["next"].as_str().unwrap().to_owned();
    }
    let of = |name: &str| {
        found
            .iter()
            .find(|message| message["bodyBase64"] == name)
            .unwrap()
    };
    assert_eq!(of("/wA=")["moduleId"], "m");
    assert_eq!(of("cGxhaW4=")["properties"], json!({ "a": "b" }));
    for query in ["after=x", "wait=61", "deviceId=a%20b"] {
        let path = format!("/messages/events?{query}");
        let refused = service.call(Method::GET, &path).send().await.unwrap();
        assert_eq!(refusal(refused).await, (400, 400_004), "{query}");
    }
}
