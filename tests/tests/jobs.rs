//! Jobs: twins changed and methods called on every device that a condition selects.

use std::time::{Duration, Instant};

use common::wire::{method, twin};
use reqwest::Method;
use serde_json::{Value, json};
use tests::raw_service::refusal;
use tests::{RawDevice, RawService, TestHub};
use tokio::time::sleep;

async fn call(
    service: &RawService,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Result<Value, u32> {
    let mut call = service.call(method, path);
    if let Some(body) = body {
        call = call.body(body.to_string());
    }
    let answer = call.send().await.unwrap();
    if answer.status() != 200 {
        return Err(refusal(answer).await.1);
    }
    Ok(serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap())
}

async fn make(service: &RawService, id: &str, body: &Value) -> Result<Value, u32> {
    call(service, Method::PUT, &format!("/jobs/v2/{id}"), Some(body)).await
}

async fn read(service: &RawService, id: &str) -> Value {
    let path = format!("/jobs/v2/{id}?api-version=2021-04-12");
    call(service, Method::GET, &path, None).await.unwrap()
}

/// The job once it has ended.
async fn ended(service: &RawService, id: &str) -> Value {
    let started = Instant::now();
    loop {
        let job = read(service, id).await;
        if job["endTime"].is_string() {
            return job;
        }
        assert!(started.elapsed() < Duration::from_secs(120), "{job}");
        sleep(Duration::from_millis(50)).await;
    }
}

fn update(condition: &str) -> Value {
    json!({
        "type": "scheduleUpdateTwin", "queryCondition": condition, "startTime": null,
        "updateTwin": {
            "etag": "*", "tags": { "Building": 43, "Floor": 3 },
            "properties": { "desired": { "wanted": true }, "reported": {} },
        },
    })
}

async fn tag(service: &RawService, device: &str, group: &str) {
    let body = json!({ "tags": { "group": group } });
    let path = format!("/twins/{device}");
    call(service, Method::PATCH, &path, Some(&body))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_job_changes_the_twins_that_its_condition_selects() {
    let hub = TestHub::start().await;
    let service = RawService::new(&hub).await;
    let connection = hub.create("d0").await;
    for n in 1..5 {
        hub.create(&format!("d{n}")).await;
    }
    for n in 0..3 {
        tag(&service, &format!("d{n}"), "a").await;
    }
    let mut device = RawDevice::connect(&hub, &connection).await;
    device.subscribe_to(twin::DESIRED_FILTER).await;

    let condition = "tags.group = 'a' AND NOT connectionState = 'x'";
    let made = make(&service, "j", &update(condition)).await.unwrap();
    assert_eq!(
        (&made["status"], &made["jobId"]),
        (&json!("queued"), &json!("j"))
    );
    let job = ended(&service, "j").await;
    assert_eq!(job["status"], "completed");
    assert_eq!(
        job["deviceJobStatistics"],
        json!({
            "deviceCount": 3, "succeededCount": 3, "failedCount": 0,
            "runningCount": 0, "pendingCount": 0,
        })
    );
    assert_eq!(job["updateTwin"], update("")["updateTwin"]);
    let (topic, body) = device.message().await;
    assert_eq!(topic, "$iothub/twin/PATCH/properties/desired/?$version=2");
    assert_eq!(body, br#"{"$version":2,"wanted":true}"#);
    for n in 0..5 {
        let path = format!("/twins/d{n}");
        let twin = call(&service, Method::GET, &path, None).await.unwrap();
        let floor = &twin["tags"]["Floor"];
        assert_eq!(*floor, if n < 3 { json!(3) } else { Value::Null });
    }

    // The id is taken, and a condition that selects nothing is no fault.
    assert_eq!(make(&service, "j", &update("*")).await, Err(409_000));
    make(&service, "none", &update("tags.group = 'z'"))
        .await
        .unwrap();
    let job = ended(&service, "none").await;
    assert_eq!(job["deviceJobStatistics"]["deviceCount"], 0);
    // Another etag: each device fails for itself.
    let mut other = update("*");
    other["updateTwin"]["etag"] = json!("abc");
    make(&service, "etag", &other).await.unwrap();
    let job = ended(&service, "etag").await;
    assert_eq!(job["status"], "completed");
    assert_eq!(job["deviceJobStatistics"]["failedCount"], 5);
}

#[tokio::test]
async fn a_job_calls_a_method_and_keeps_what_each_device_answers() {
    let hub = TestHub::start().await;
    let service = RawService::new(&hub).await;
    let connection = hub.create("here").await;
    hub.create("away").await;
    let mut device = RawDevice::connect(&hub, &connection).await;
    // As SDKs do: the job is made while the device subscribes.
    let job = json!({
        "type": "scheduleDeviceMethod", "queryCondition": "deviceId IN ['here', 'away']",
        "cloudToDeviceMethod": {
            "methodName": "lockDoor", "payload": { "doorId": 1 }, "responseTimeoutInSeconds": 30,
        },
        "maxExecutionTimeInSeconds": 100,
    });
    make(&service, "j", &job).await.unwrap();
    device.subscribe_to(method::FILTER).await;
    let (topic, payload) = device.message().await;
    let rid = topic
        .strip_prefix("$iothub/methods/POST/lockDoor/?$rid=")
        .unwrap();
    assert_eq!(payload, br#"{"doorId":1}"#);
    let running = read(&service, "j").await;
    assert_eq!(running["status"], "running");
    device
        .publish(
            &format!("$iothub/methods/res/200/?$rid={rid}"),
            b"\"locked\"",
        )
        .await;
    let job = ended(&service, "j").await;
    assert_eq!(job["status"], "completed");
    assert_eq!(
        job["deviceJobStatistics"],
        json!({
            "deviceCount": 2, "succeededCount": 1, "failedCount": 1,
            "runningCount": 0, "pendingCount": 0,
        })
    );
    assert_eq!(job["cloudToDeviceMethod"]["methodName"], "lockDoor");

    let query = json!({ "query": "SELECT * FROM devices.jobs WHERE devices.jobs.jobId = 'j'" });
    let rows = call(&service, Method::POST, "/devices/query", Some(&query))
        .await
        .unwrap();
    let [away, here] = &rows.as_array().unwrap()[..] else {
        panic!("{rows}");
    };
    assert_eq!(
        (&away["deviceId"], &away["status"]),
        (&json!("away"), &json!("failed"))
    );
    assert_eq!(away["error"]["code"], "DeviceNotOnline");
    assert_eq!(
        (&here["deviceId"], &here["status"]),
        (&json!("here"), &json!("completed"))
    );
    let response = json!({ "deviceMethodResponse": { "status": 200, "payload": "locked" } });
    assert_eq!(
        (&here["outcome"], &here["jobType"]),
        (&response, &json!("scheduleDeviceMethod"))
    );
    assert!(here["endTimeUtc"].is_string() && here.get("error").is_none());
}

#[tokio::test]
async fn jobs_wait_for_their_time_are_cancelled_listed_and_refused() {
    let hub = TestHub::start().await;
    let service = RawService::new(&hub).await;
    let connection = hub.create("d").await;
    let mut device = RawDevice::connect(&hub, &connection).await;
    device.subscribe_to(method::FILTER).await;
    let mut later = update("*");
    later["startTime"] = json!("2999-01-01T00:00:00.000Z");
    let made = make(&service, "later", &later).await.unwrap();
    assert_eq!(made["status"], "queued", "IoT Hub's word for every new one");
    assert_eq!(read(&service, "later").await["status"], "scheduled");

    // One that runs: the device never answers.
    let slow = json!({
        "type": "scheduleDeviceMethod", "queryCondition": "*",
        "cloudToDeviceMethod": { "methodName": "m", "responseTimeoutInSeconds": 300 },
    });
    make(&service, "slow", &slow).await.unwrap();
    device.message().await;
    for id in ["later", "slow", "slow"] {
        let path = format!("/jobs/v2/{id}/cancel");
        let job = call(&service, Method::POST, &path, None).await.unwrap();
        assert_eq!(job["status"], "cancelled");
    }
    // One that has too little time.
    let mut short = slow.clone();
    short["maxExecutionTimeInSeconds"] = json!(1);
    make(&service, "short", &short).await.unwrap();
    let job = ended(&service, "short").await;
    assert_eq!(
        (&job["status"], &job["deviceJobStatistics"]["failedCount"]),
        (&json!("failed"), &json!(1))
    );
    assert!(job["failureReason"].is_string());

    // The list, page by page.
    let (mut listed, mut after) = (Vec::new(), None::<String>);
    loop {
        let mut request = service
            .call(
                Method::GET,
                "/jobs/v2/query?api-version=2021-04-12&jobType=",
            )
            .header("x-ms-max-item-count", "2");
        if let Some(after) = &after {
            request = request.header("x-ms-continuation", after);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.headers()["x-ms-item-type"], "JobResponse");
        after = answer
            .headers()
            .get("x-ms-continuation")
            .map(|value| value.to_str().unwrap().to_owned());
        let jobs: Vec<Value> = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        listed.extend(jobs.into_iter().map(|job| job["jobId"].clone()));
        if after.is_none() {
            break;
        }
    }
    assert_eq!(listed, ["short", "slow", "later"]);
    let path = "/jobs/v2/query?jobStatus=Cancelled&jobType=ScheduleDeviceMethod";
    let found = call(&service, Method::GET, path, None).await.unwrap();
    assert_eq!(found.as_array().unwrap().len(), 1);

    for (method, path, body, code) in [
        (Method::GET, "/jobs/v2/x", None, 404_002),
        (Method::POST, "/jobs/v2/x/cancel", None, 404_002),
        (Method::PUT, "/jobs/v2/a%20b", Some(update("*")), 400_004),
        (
            Method::PUT,
            "/jobs/v2/x",
            Some(update("deviceId =")),
            400_004,
        ),
        (Method::PUT, "/jobs/v2/x", Some(update("")), 400_004),
        (Method::PUT, "/jobs/v2/x", Some(json!([])), 400_006),
        (Method::GET, "/jobs/v2/query?jobStatus=odd", None, 400_004),
        (
            Method::GET,
            "/jobs/v2/query?continuationToken=x",
            None,
            400_004,
        ),
        (Method::GET, "/jobs/v2/query?pageSize=0", None, 400_004),
        (Method::DELETE, "/jobs/v2/x", None, 405_000),
        (Method::POST, "/jobs/create", None, 501_000),
    ] {
        // Its policy has all permissions.
        let owner = RawService::with_policy(&hub, "iothubowner").await;
        let refused = call(&owner, method.clone(), path, body.as_ref()).await;
        assert_eq!(refused, Err(code), "{method} {path}");
    }
    let reader = RawService::with_policy(&hub, "registryRead").await;
    assert!(
        call(&reader, Method::GET, "/jobs/v2/slow", None)
            .await
            .is_ok()
    );
    assert_eq!(make(&reader, "x", &update("*")).await, Err(401_002));
}

#[tokio::test]
async fn a_job_over_many_devices_goes_on_after_a_restart() {
    let hub = TestHub::start().await;
    let service = RawService::new(&hub).await;
    let count = 300;
    for n in 0..count {
        hub.create(&format!("d{n}")).await;
    }
    let mut later = update("*");
    later["startTime"] = json!("2999-01-01T00:00:00.000Z");
    make(&service, "later", &later).await.unwrap();
    make(&service, "j", &update("*")).await.unwrap();
    // At some time while it runs.
    let started = Instant::now();
    while read(&service, "j").await["status"] == "queued" {
        assert!(started.elapsed() < Duration::from_secs(60));
    }
    let hub = hub.restart().await;
    let service = RawService::new(&hub).await;
    let job = ended(&service, "j").await;
    assert_eq!(job["status"], "completed");
    assert_eq!(job["deviceJobStatistics"]["succeededCount"], count);
    assert_eq!(read(&service, "later").await["status"], "scheduled");
    let twin = call(&service, Method::GET, "/twins/d299", None)
        .await
        .unwrap();
    assert_eq!(twin["properties"]["desired"]["wanted"], true);
}
