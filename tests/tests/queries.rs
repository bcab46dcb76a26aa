//! Queries over twins, over HTTPS: who may ask, what is live, and pages across a restart.

use reqwest::{Method, Response};
use serde_json::{Value, json};
use tests::raw_service::refusal;
use tests::{RawDevice, RawService, TestHub};

async fn ask(service: &RawService, query: &str, size: &str, after: Option<&str>) -> Response {
    let path = "/devices/query?api-version=2021-04-12";
    let mut request = service
        .call(Method::POST, path)
        .header("Content-Type", "application/json; charset=utf-8")
        .header("x-ms-max-item-count", size)
        .body(json!({ "query": query }).to_string());
    if let Some(after) = after {
        request = request.header("x-ms-continuation", after);
    }
    request.send().await.unwrap()
}

fn header(response: &Response, name: &str) -> Option<String> {
    let value = response.headers().get(name)?;
    Some(value.to_str().unwrap().to_owned())
}

async fn rows(response: Response) -> Value {
    assert_eq!(response.status(), 200);
    let content_type = header(&response, "content-type");
    assert_eq!(
        content_type.as_deref(),
        Some("application/json; charset=utf-8")
    );
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}

#[tokio::test]
async fn who_may_query() {
    let hub = TestHub::start().await;
    let query = "SELECT deviceId FROM devices";
    for policy in [
        "service",
        "registryRead",
        "registryReadWrite",
        "iothubowner",
    ] {
        let service = RawService::with_policy(&hub, policy).await;
        let response = ask(&service, query, "1", None).await;
        assert_eq!(header(&response, "x-ms-item-type").as_deref(), Some("Raw"));
        assert_eq!(rows(response).await, json!([]), "{policy}");
    }
    let device = RawService::with_policy(&hub, "device").await;
    assert_eq!(
        refusal(ask(&device, query, "1", None).await).await,
        (401, 401_002)
    );
    let service = RawService::new(&hub).await;
    let wrong = ask(&service, "SELECT FROM devices", "1", None).await;
    assert_eq!(refusal(wrong).await, (400, 400_004));
    let large = format!("SELECT * FROM devices WHERE {}", "(".repeat(400_000));
    assert_eq!(
        refusal(ask(&service, &large, "1", None).await).await,
        (400, 400_004)
    );
    // A device of this name is a device.
    hub.create("query").await;
    let response = service
        .call(Method::GET, "/twins/query")
        .send()
        .await
        .unwrap();
    assert_eq!(rows(response).await["deviceId"], "query");
}

#[tokio::test]
async fn a_fleet_is_queried() {
    let hub = TestHub::start().await;
    let service = RawService::new(&hub).await;
    let mut online = None;
    for n in 0..7 {
        let id = format!("d{n}");
        let connection = hub.create(&id).await;
        let body = json!({ "tags": { "building": "43", "floor": n % 2 } }).to_string();
        let request = service.call(
            Method::PATCH,
            &format!("/twins/{id}?api-version=2021-04-12"),
        );
        let response = request
            .header("If-Match", "\"*\"")
            .body(body)
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 200);
        if n == 4 {
            let mut device = RawDevice::connect(&hub, &connection).await;
            device.subscribe_twin().await;
            let topic = "$iothub/twin/PATCH/properties/reported/?$rid=1";
            device
                .publish(topic, br#"{"deviceStreams":{"activeStreams":2}}"#)
                .await;
            assert_eq!(device.twin_response().await.0.status, 204);
            online = Some(device);
        }
    }
    for (query, expected) in [
        (
            "SELECT deviceId AS id FROM devices WHERE connectionState = 'Connected'",
            json!([{ "id": "d4" }]),
        ),
        (
            "SELECT deviceId AS id FROM devices WHERE properties.reported.deviceStreams.activeStreams >= 1",
            json!([{ "id": "d4" }]),
        ),
        (
            "SELECT tags.floor AS floor, COUNT() AS n FROM devices WHERE tags.building = '43' \
             GROUP BY tags.floor",
            json!([{ "floor": 0, "n": 4 }, { "floor": 1, "n": 3 }]),
        ),
    ] {
        let response = ask(&service, query, "100", None).await;
        assert_eq!(header(&response, "x-ms-continuation"), None);
        assert_eq!(rows(response).await, expected, "{query}");
    }
    drop(online);

    // The pages go on at the hub after this one.
    let query = "SELECT * FROM devices WHERE tags.building = '43' AND tags.floor = 0";
    let response = ask(&service, query, "3", None).await;
    assert_eq!(header(&response, "x-ms-item-type").as_deref(), Some("Twin"));
    let next = header(&response, "x-ms-continuation").unwrap();
    let first = rows(response).await;
    assert_eq!(first.as_array().unwrap().len(), 3);
    let twin = service.call(Method::GET, "/twins/d0").send().await.unwrap();
    assert_eq!(first[0], rows(twin).await);
    let hub = hub.restart().await;
    let service = RawService::new(&hub).await;
    let response = ask(&service, query, "3", Some(&next)).await;
    assert_eq!(header(&response, "x-ms-continuation"), None);
    let rest = rows(response).await;
    assert_eq!(
        (rest.as_array().unwrap().len(), &rest[0]["deviceId"]),
        (1, &json!("d6"))
    );
    let tampered = ask(&service, query, "3", Some(&next.to_lowercase())).await;
    assert_eq!(refusal(tampered).await, (400, 400_004));
}
