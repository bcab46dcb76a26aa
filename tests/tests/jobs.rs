//! Jobs: twins changed and methods called on every device that a condition selects.

use std::time::{Duration, Instant};

use common::wire::{method, twin};
use reqwest::Method;
use serde_json::{Value, json};
use tests::{RawDevice, RawService, TestHub};

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
    service
        .json(Method::PATCH, &path, Some(&body))
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
    let made = service.make_job("j", &update(condition)).await.unwrap();
    assert_eq!(
        (&made["status"], &made["jobId"]),
        (&json!("queued"), &json!("j"))
    );
    let job = service.ended_job("j").await;
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
        let twin = service.json(Method::GET, &path, None).await.unwrap();
        let floor = &twin["tags"]["Floor"];
        assert_eq!(*floor, if n < 3 { json!(3) } else { Value::Null });
    }

    // The id is taken, and a condition that selects nothing is no fault.
    assert_eq!(service.make_job("j", &update("*")).await, Err(409_000));
    service
        .make_job("none", &update("tags.group = 'z'"))
        .await
        .unwrap();
    let job = service.ended_job("none").await;
    assert_eq!(job["deviceJobStatistics"]["deviceCount"], 0);
    // Another etag: each device fails for itself.
    let mut other = update("*");
    other["updateTwin"]["etag"] = json!("abc");
    service.make_job("etag", &other).await.unwrap();
    let job = service.ended_job("etag").await;
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
    service.make_job("j", &job).await.unwrap();
    device.subscribe_to(method::FILTER).await;
    let (topic, payload) = device.message().await;
    let rid = topic
        .strip_prefix("$iothub/methods/POST/lockDoor/?$rid=")
        .unwrap();
    assert_eq!(payload, br#"{"doorId":1}"#);
    let running = service.job("j").await;
    assert_eq!(running["status"], "running");
    device
        .publish(
            &format!("$iothub/methods/res/200/?$rid={rid}"),
            b"\"locked\"",
        )
        .await;
    let job = service.ended_job("j").await;
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
    let rows = service
        .json(Method::POST, "/devices/query", Some(&query))
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
async fn a_job_works_on_modules_when_its_condition_is_on_them() {
    let hub = TestHub::start().await;
    let service = RawService::new(&hub).await;
    for id in ["a", "b", "a/m", "a/other"] {
        hub.create(id).await;
    }
    let connection = hub.create("b/m").await;
    let mut module = RawDevice::connect(&hub, &connection).await;
    module.subscribe_to(method::FILTER).await;
    let condition = "FROM devices.modules WHERE ModuleId = 'm'";
    service.make_job("twins", &update(condition)).await.unwrap();
    let job = service.ended_job("twins").await;
    assert_eq!(job["queryCondition"], condition);
    assert_eq!(job["deviceJobStatistics"]["succeededCount"], 2);
    for (path, floor) in [
        ("/twins/a/modules/m", json!(3)),
        ("/twins/b/modules/m", json!(3)),
        ("/twins/a/modules/other", Value::Null),
        ("/twins/a", Value::Null),
    ] {
        let twin = service.json(Method::GET, path, None).await.unwrap();
        assert_eq!(twin["tags"]["Floor"], floor, "{path}");
    }

    let call = json!({
        "type": "scheduleDeviceMethod", "queryCondition": condition,
        "cloudToDeviceMethod": { "methodName": "m" },
    });
    service.make_job("methods", &call).await.unwrap();
    let (topic, _) = module.message().await;
    let (_, rid) = topic.split_once("/?$rid=").unwrap();
    let answer = format!("$iothub/methods/res/200/?$rid={rid}");
    module.publish(&answer, b"7").await;
    service.ended_job("methods").await;
    let query = "SELECT * FROM devices.jobs WHERE jobId = 'methods' AND moduleId = 'm'";
    let rows = service.rows(query).await;
    let [away, here] = &rows[..] else {
        panic!("{rows:?}");
    };
    assert_eq!(
        (&away["deviceId"], &here["deviceId"]),
        (&json!("a"), &json!("b"))
    );
    assert_eq!(away["error"]["code"], "DeviceNotOnline");
    assert_eq!(here["outcome"]["deviceMethodResponse"]["payload"], 7);

    let jobs = update("FROM devices.jobs WHERE jobId = 'twins'");
    assert_eq!(service.make_job("x", &jobs).await, Err(400_004));
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
    let made = service.make_job("later", &later).await.unwrap();
    assert_eq!(made["status"], "queued", "IoT Hub's word for every new one");
    assert_eq!(service.job("later").await["status"], "scheduled");

    // One that runs: the device never answers.
    let slow = json!({
        "type": "scheduleDeviceMethod", "queryCondition": "*",
        "cloudToDeviceMethod": { "methodName": "m", "responseTimeoutInSeconds": 300 },
    });
    service.make_job("slow", &slow).await.unwrap();
    device.message().await;
    for id in ["later", "slow", "slow"] {
        let path = format!("/jobs/v2/{id}/cancel");
        let job = service.json(Method::POST, &path, None).await.unwrap();
        assert_eq!(job["status"], "cancelled");
    }
    // One that has too little time.
    let mut short = slow.clone();
    short["maxExecutionTimeInSeconds"] = json!(1);
    service.make_job("short", &short).await.unwrap();
    let job = service.ended_job("short").await;
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
    let found = service.json(Method::GET, path, None).await.unwrap();
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
        let refused = owner.json(method.clone(), path, body.as_ref()).await;
        assert_eq!(refused, Err(code), "{method} {path}");
    }
    let reader = RawService::with_policy(&hub, "registryRead").await;
    assert!(
        reader
            .json(Method::GET, "/jobs/v2/slow", None)
            .await
            .is_ok()
    );
    assert_eq!(reader.make_job("x", &update("*")).await, Err(401_002));
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
    service.make_job("later", &later).await.unwrap();
    service.make_job("j", &update("*")).await.unwrap();
    // At some time while it runs.
    let started = Instant::now();
    while service.job("j").await["status"] == "queued" {
        assert!(started.elapsed() < Duration::from_secs(60));
    }
    let hub = hub.restart().await;
    let service = RawService::new(&hub).await;
    let job = service.ended_job("j").await;
    assert_eq!(job["status"], "completed");
    assert_eq!(job["deviceJobStatistics"]["succeededCount"], count);
    assert_eq!(service.job("later").await["status"], "scheduled");
    let twin = service
        .json(Method::GET, "/twins/d299", None)
        .await
        .unwrap();
    assert_eq!(twin["properties"]["desired"]["wanted"], true);
}
