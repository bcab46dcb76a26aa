//! Direct methods: services call, devices answer, and what goes wrong between.

use common::mqtt::Packet;
use common::wire::method;
use reqwest::Method;
use serde_json::{Value, json};
use tests::raw_service::refusal;
use tests::{RawDevice, RawService, TestHub, soon};

/// Status and body of a call.
async fn call(service: &RawService, path: &str, body: &Value) -> Result<Value, u32> {
    let call = service.call(Method::POST, path).body(body.to_string());
    let answer = call.send().await.unwrap();
    if answer.status() != 200 {
        return Err(refusal(answer).await.1);
    }
    Ok(serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap())
}

/// Name, id and payload of the next call.
async fn next(device: &mut RawDevice) -> (String, String, Value) {
    let (topic, payload) = device.message().await;
    let rest = topic.strip_prefix("$iothub/methods/POST/").unwrap();
    let (name, rid) = rest.split_once("/?$rid=").unwrap();
    let payload = serde_json::from_slice(&payload).unwrap();
    (name.to_owned(), rid.to_owned(), payload)
}

async fn answer(device: &mut RawDevice, status: i32, rid: &str, payload: &str) {
    let topic = format!("$iothub/methods/res/{status}/?$rid={rid}");
    device.publish(&topic, payload.as_bytes()).await;
}

/// Waits until the hub has taken what the device has sent, and checks that it has nothing for it.
async fn settle(device: &mut RawDevice) {
    device.send(&[0xc0, 0]).await;
    assert!(matches!(device.packet().await, Packet::Pingresp));
}

#[tokio::test]
async fn devices_and_modules_answer_calls() {
    let hub = TestHub::start().await;
    let service = RawService::new(&hub).await;
    for (id, path) in [
        ("d", "/twins/d/methods"),
        ("d/m", "/twins/d/modules/m/methods"),
    ] {
        let connection = hub.create(id).await;
        let mut device = RawDevice::connect(&hub, &connection).await;
        device.subscribe_to(method::FILTER).await;
        // Both ways: whatever is JSON, byte for byte; no payload is null.
        let payloads = [
            json!(null),
            json!(""),
            json!("foo"),
            json!({}),
            json!({ "k1": ["v1", 1e300] }),
        ];
        for (status, payload) in (200..).zip(&payloads) {
            let body = json!({
                "methodName": "lockDoor", "payload": payload,
                "responseTimeoutInSeconds": 30, "connectTimeoutInSeconds": 0,
            });
            let answering = async {
                let (name, rid, seen) = next(&mut device).await;
                assert_eq!((name.as_str(), &seen), ("lockDoor", payload));
                answer(&mut device, status, &rid, &payload.to_string()).await;
            };
            let (answered, ()) = tokio::join!(call(&service, path, &body), answering);
            assert_eq!(
                answered.unwrap(),
                json!({ "status": status, "payload": payload })
            );
        }
        // Nothing given, nothing answered; a status that is none of HTTP's.
        let answering = async {
            let (_, rid, seen) = next(&mut device).await;
            assert_eq!(seen, Value::Null);
            answer(&mut device, -7, &format!("{rid}&x=y"), "").await;
        };
        let body = json!({ "methodName": "reboot" });
        let (answered, ()) = tokio::join!(call(&service, path, &body), answering);
        assert_eq!(answered.unwrap(), json!({ "status": -7, "payload": null }));
    }
}

#[tokio::test]
async fn what_cannot_be_answered_is_refused_in_iot_hubs_words() {
    let hub = TestHub::start().await;
    let service = RawService::new(&hub).await;
    let connection = hub.create("d").await;
    let reboot = json!({ "methodName": "reboot" });
    for (path, body, code) in [
        ("/twins/d/methods", &reboot, 404_103),
        ("/twins/x/methods", &reboot, 404_001),
        ("/twins/d/modules/m/methods", &reboot, 404_010),
        ("/twins/d/methods", &json!({}), 400_006),
        ("/twins/d/methods", &json!({ "methodName": "" }), 400_004),
        ("/twins/d/methods", &json!({ "methodName": "a/b" }), 400_004),
        (
            "/twins/d/methods",
            &json!({ "methodName": "m", "responseTimeoutInSeconds": 4 }),
            400_004,
        ),
        (
            "/twins/d/methods",
            &json!({ "methodName": "m", "connectTimeoutInSeconds": 301 }),
            400_004,
        ),
        (
            "/twins/d/methods",
            &json!({ "methodName": "m", "payload": "x".repeat(128 << 10) }),
            413_001,
        ),
    ] {
        assert_eq!(call(&service, path, body).await, Err(code), "{path}");
    }
    // A device without direct methods is not online for them.
    let mut device = RawDevice::connect(&hub, &connection).await;
    assert_eq!(
        call(&service, "/twins/d/methods", &reboot).await,
        Err(404_103)
    );

    // One that does not answer in time, answers too late, or in no JSON.
    device.subscribe_to(method::FILTER).await;
    let slow = json!({ "methodName": "slow", "responseTimeoutInSeconds": 5 });
    let taking = async {
        let (_, rid, _) = next(&mut device).await;
        rid
    };
    let (answered, late) = tokio::join!(call(&service, "/twins/d/methods", &slow), taking);
    assert_eq!(answered, Err(504_101));
    answer(&mut device, 200, &late, "1").await;
    let answering = async {
        let (_, rid, _) = next(&mut device).await;
        // Not to this call, and then twice.
        answer(&mut device, 201, &late, "2").await;
        answer(&mut device, 201, "999999999", "2").await;
        answer(&mut device, 200, &rid, "not json").await;
        answer(&mut device, 202, &rid, "3").await;
    };
    let (answered, ()) = tokio::join!(call(&service, "/twins/d/methods", &reboot), answering);
    assert_eq!(answered, Err(502_000));

    // Another device's answer is none.
    let other = hub.create("other").await;
    let mut other = RawDevice::connect(&hub, &other).await;
    let answering = async {
        let (_, rid, _) = next(&mut device).await;
        answer(&mut other, 201, &rid, "1").await;
        settle(&mut other).await;
        answer(&mut device, 200, &rid, "2").await;
    };
    let (answered, ()) = tokio::join!(call(&service, "/twins/d/methods", &reboot), answering);
    assert_eq!(answered.unwrap(), json!({ "status": 200, "payload": 2 }));
}

#[tokio::test]
async fn a_call_waits_for_the_device_and_is_answered_on_any_connection() {
    let hub = TestHub::start().await;
    let service = RawService::new(&hub).await;
    let connection = hub.create("d").await;
    let patient = json!({ "methodName": "m", "connectTimeoutInSeconds": 60 });
    let calling = call(&service, "/twins/d/methods", &patient);
    let serving = async {
        // A call that is with a session is not repeated to the next one, whose answer counts.
        let mut first = RawDevice::connect(&hub, &connection).await;
        first.subscribe_to(method::FILTER).await;
        let (_, rid, _) = next(&mut first).await;
        let mut second = RawDevice::connect(&hub, &connection).await;
        second.subscribe_to(method::FILTER).await;
        settle(&mut second).await;
        answer(&mut second, 200, &rid, "true").await;
    };
    let (answered, ()) = tokio::join!(calling, serving);
    assert_eq!(answered.unwrap(), json!({ "status": 200, "payload": true }));

    // Calls at once find their own answers.
    let mut device = RawDevice::connect(&hub, &connection).await;
    device.subscribe_to(method::FILTER).await;
    let calls = (0..20).map(|n| {
        let body = json!({ "methodName": "m", "payload": n });
        let service = &service;
        async move { call(service, "/twins/d/methods", &body).await.unwrap() }
    });
    let answering = async {
        let mut taken = Vec::new();
        for _ in 0..20 {
            taken.push(next(&mut device).await);
        }
        for (_, rid, payload) in taken.iter().rev() {
            answer(&mut device, 200, rid, &payload.to_string()).await;
        }
    };
    let (answers, ()) = tokio::join!(futures_util::future::join_all(calls), answering);
    for (n, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer["payload"], n);
    }
}

#[tokio::test]
async fn a_hub_that_stops_refuses_the_calls_that_wait() {
    let hub = TestHub::start().await;
    let service = RawService::new(&hub).await;
    let connection = hub.create("d").await;
    let mut device = RawDevice::connect(&hub, &connection).await;
    device.subscribe_to(method::FILTER).await;
    let body = json!({ "methodName": "m", "responseTimeoutInSeconds": 300 });
    let calling = call(&service, "/twins/d/methods", &body);
    let stopping = async {
        next(&mut device).await;
        hub.shut_down().await;
    };
    let both = async { tokio::join!(calling, stopping) };
    let (answered, ()) = soon("the refusal", both).await;
    assert_eq!(answered, Err(503_001));
}
