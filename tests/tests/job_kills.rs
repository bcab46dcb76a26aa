//! A hub that is killed in each state of a job: what it has acknowledged goes on after the next
//! start, each twin is changed once, and no method is called twice.

use std::time::Duration;

use common::clock::unix_now;
use common::connection_string::{DeviceConnectionString, ServiceConnectionString};
use reqwest::Method;
use serde_json::{Value, json};
use tests::method_devices::MethodDevices;
use tests::program_hub::ProgramHub;
use tests::{RawService, raw_service, wait};
use tokio::time::sleep;

/// The primary key of all devices.
const KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

struct Story {
    hub: ProgramHub,
    service: RawService,
}

impl Story {
    /// A hub with devices `d0000`, `d0001`, …
    async fn start(devices: usize) -> Self {
        let hub = ProgramHub::start_quiet().await;
        let service = service(&hub);
        let numbers: Vec<_> = (0..devices).collect();
        for numbers in numbers.chunks(100) {
            let keys = json!({ "primaryKey": KEY, "secondaryKey": KEY });
            let made = numbers.iter().map(|number| {
                json!({
                    "id": id(*number), "importMode": "create",
                    "authentication": { "type": "sas", "symmetricKey": keys },
                })
            });
            let made = Value::from_iter(made);
            let made = service.json(Method::POST, "/devices", Some(&made)).await;
            assert_eq!(made.unwrap()["isSuccessful"], true);
        }
        Self { hub, service }
    }

    async fn kill_and_start(&mut self) {
        self.hub.program.kill().await;
        self.start_again().await;
    }

    async fn start_again(&mut self) {
        self.hub.start_again().await;
        self.service = service(&self.hub);
    }

    fn devices(&self) -> MethodDevices {
        MethodDevices::new(self.hub.mqtts, &self.hub.tls())
    }

    /// What has become of each device of a job, and that its statistics tell the same.
    async fn rows(&self, job: &Value) -> Vec<Value> {
        let id = job["jobId"].as_str().unwrap();
        let query = format!("SELECT * FROM devices.jobs WHERE jobId = '{id}'");
        let rows = self.service.rows(&query).await;
        let statistics = &job["deviceJobStatistics"];
        let mut canceled = statistics["deviceCount"].as_u64().unwrap();
        for (status, name) in [
            ("pending", "pendingCount"),
            ("running", "runningCount"),
            ("completed", "succeededCount"),
            ("failed", "failedCount"),
        ] {
            let count = rows.iter().filter(|row| row["status"] == status).count();
            assert_eq!(statistics[name], count, "{name}: {job}");
            canceled -= count as u64;
        }
        // IoT Hub has no word for these.
        let count = rows.iter().filter(|row| row["status"] == "canceled");
        assert_eq!(canceled, count.count() as u64, "{job}");
        assert!(canceled == 0 || job["status"] == "cancelled", "{job}");
        rows
    }
}

fn service(hub: &ProgramHub) -> RawService {
    let text = hub.admin(&["policy", "connection-string", "iothubowner"]);
    let connection = ServiceConnectionString::parse(&text).unwrap();
    let token = raw_service::token(&connection, unix_now() + 3600);
    RawService::at(hub.https, hub.tls(), token)
}

fn id(number: usize) -> String {
    format!("d{number:04}")
}

fn connection(number: usize) -> DeviceConnectionString {
    let id = id(number);
    let text = format!("HostName=localhost;DeviceId={id};SharedAccessKey={KEY}");
    DeviceConnectionString::parse(&text).unwrap()
}

/// A job that sets a desired property of this name on every device.
fn update(name: &str) -> Value {
    json!({
        "type": "scheduleUpdateTwin", "queryCondition": "*",
        "updateTwin": { "etag": "*", "properties": { "desired": { name: true } } },
    })
}

fn call(condition: &str) -> Value {
    json!({
        "type": "scheduleDeviceMethod", "queryCondition": condition,
        "cloudToDeviceMethod": { "methodName": "m", "responseTimeoutInSeconds": 300 },
    })
}

/// In so many seconds from now.
fn at(mut job: Value, seconds: u64) -> Value {
    let at = time::OffsetDateTime::from_unix_timestamp((unix_now() + seconds) as i64).unwrap();
    let format = &time::format_description::well_known::Rfc3339;
    job["startTime"] = at.format(format).unwrap().into();
    job
}

fn succeeded(job: &Value) -> u64 {
    job["deviceJobStatistics"]["succeededCount"]
        .as_u64()
        .unwrap()
}

#[tokio::test]
async fn jobs_that_have_not_begun_run_after_a_kill() {
    let mut story = Story::start(3).await;
    let mut devices = story.devices();
    devices.add(connection(0), true);
    devices.connected().await;
    // As many as run at once.
    let holding = (0..10).map(|n| format!("holding{n}"));
    let holding: Vec<String> = holding.collect();
    for id in &holding {
        let job = call("deviceId = 'd0000'");
        story.service.make_job(id, &job).await.unwrap();
    }
    for id in &holding {
        let is_running = |job: &Value| job["deviceJobStatistics"]["runningCount"] == 1;
        story.service.job_when(id, is_running).await;
    }
    let later = at(update("later"), 24 * 3600);
    story.service.make_job("later", &later).await.unwrap();
    let later = story.service.job("later").await;
    assert_eq!(later["status"], "scheduled");
    let queued = update("queued");
    story.service.make_job("queued", &queued).await.unwrap();
    let due = at(update("due"), 1);
    story.service.make_job("due", &due).await.unwrap();
    for id in ["queued", "due"] {
        let is_queued = |job: &Value| job["status"] == "queued";
        story.service.job_when(id, is_queued).await;
    }
    // One comes due while the hub is away, and one has just been acknowledged.
    let soon = unix_now() + 2;
    let away = at(update("away"), 2);
    story.service.make_job("away", &away).await.unwrap();
    let made = update("made");
    story.service.make_job("made", &made).await.unwrap();
    story.hub.program.kill().await;
    while unix_now() <= soon {
        sleep(Duration::from_millis(50)).await;
    }
    story.start_again().await;

    for id in &holding {
        let job = story.service.ended_job(id).await;
        let rows = story.rows(&job).await;
        assert_eq!(job["status"], "completed");
        assert_eq!(rows[0]["status"], "failed", "{rows:?}");
        assert_eq!(rows[0]["error"]["code"], "JobInterrupted");
    }
    for id in ["queued", "due", "away", "made"] {
        let job = story.service.ended_job(id).await;
        story.rows(&job).await;
        assert_eq!((&job["status"], succeeded(&job)), (&json!("completed"), 3));
    }
    assert_eq!(story.service.job("later").await, later);
    // Four jobs, four changes.
    let changed = "version = 5 AND properties.desired.queued AND properties.desired.due AND \
        properties.desired.away AND properties.desired.made AND NOT \
        IS_DEFINED(properties.desired.later)";
    assert_eq!(story.service.count(changed).await, 3);
    assert_eq!(devices.calls()["d0000"], 10);
    let cancelled = story
        .service
        .json(Method::POST, "/jobs/v2/later/cancel", None)
        .await;
    assert_eq!(cancelled.unwrap()["status"], "cancelled");
}

#[tokio::test]
async fn twins_are_changed_once_however_often_the_hub_is_killed() {
    const DEVICES: u64 = 2_000;
    let mut story = Story::start(DEVICES as usize).await;
    let job = update("wanted");
    story.service.make_job("j", &job).await.unwrap();
    let (mut kills, mut done) = (0, 0);
    while kills < 3 {
        let goes_on = |job: &Value| succeeded(job) > done;
        let job = story.service.job_when("j", goes_on).await;
        done = succeeded(&job);
        if job["status"] != "running" {
            break;
        }
        story.kill_and_start().await;
        let job = story.service.job("j").await;
        assert!(succeeded(&job) >= done, "{job}");
        assert_eq!(job["deviceJobStatistics"]["deviceCount"], DEVICES);
        kills += 1;
    }
    assert!(kills > 0, "the job was too fast");
    let job = story.service.ended_job("j").await;
    assert_eq!(
        (&job["status"], succeeded(&job)),
        (&json!("completed"), DEVICES)
    );
    story.rows(&job).await;
    let changed = "properties.desired.wanted = true AND version = 2";
    assert_eq!(story.service.count(changed).await, DEVICES);
}

#[tokio::test]
async fn no_method_is_called_twice_and_those_that_wait_are_called() {
    const DEVICES: usize = 300;
    let mut story = Story::start(DEVICES).await;
    let mut devices = story.devices();
    // Of the 256 that are called at once, so many hold back that no more are.
    let holds_back = |number: usize| !number.is_multiple_of(4);
    for number in 0..DEVICES {
        devices.add(connection(number), holds_back(number));
    }
    devices.connected().await;
    story.service.make_job("j", &call("*")).await.unwrap();
    let is_amid = |job: &Value| {
        let statistics = &job["deviceJobStatistics"];
        statistics["runningCount"] == 192 && statistics["pendingCount"] == 44
    };
    let job = story.service.job_when("j", is_amid).await;
    assert_eq!((&job["status"], succeeded(&job)), (&json!("running"), 64));
    story.rows(&job).await;
    wait("the calls", || devices.calls().len() == 256).await;

    devices.answer_all();
    story.kill_and_start().await;
    let job = story.service.ended_job("j").await;
    // The devices that waited were away for a moment, since the hub was.
    assert_eq!(
        (&job["status"], succeeded(&job)),
        (&json!("completed"), 108)
    );
    for row in story.rows(&job).await {
        let number = row["deviceId"].as_str().unwrap()[1..].parse().unwrap();
        let was_called = number < 256 && holds_back(number);
        let error = if was_called {
            json!("JobInterrupted")
        } else {
            Value::Null
        };
        assert_eq!(row["error"]["code"], error, "{row}");
    }
    let calls = devices.calls();
    assert_eq!(calls.len(), DEVICES);
    assert!(calls.values().all(|calls| *calls == 1), "{calls:?}");
}

#[tokio::test]
async fn a_job_is_cancelled_as_a_whole_or_goes_on() {
    const DEVICES: u64 = 1_000;
    let mut story = Story::start(DEVICES as usize).await;
    for round in 0..4 {
        let name = format!("j{round}");
        story.service.make_job(&name, &update(&name)).await.unwrap();
        let has_begun = |job: &Value| succeeded(job) > 0;
        story.service.job_when(&name, has_begun).await;
        let path = format!("/jobs/v2/{name}/cancel");
        let cancel = story.service.call(Method::POST, &path).send();
        let cancelling = tokio::spawn(cancel);
        sleep(Duration::from_millis(fastrand::u64(0..20))).await;
        story.kill_and_start().await;
        let acknowledged = match cancelling.await.unwrap() {
            Ok(answer) => answer.bytes().await.ok(),
            Err(_) => None,
        };
        let job = story.service.ended_job(&name).await;
        if let Some(answer) = acknowledged {
            let answer: Value = serde_json::from_slice(&answer).unwrap();
            assert_eq!(job["status"], answer["status"], "{job}");
        }
        let changed = story.count_changed(&name).await;
        match job["status"].as_str().unwrap() {
            "cancelled" => assert!(succeeded(&job) <= DEVICES),
            "completed" => assert_eq!(succeeded(&job), DEVICES),
            _ => panic!("{job}"),
        }
        // No device was changed that is not counted, and the other way round.
        assert_eq!(succeeded(&job), changed, "{job}");
        story.rows(&job).await;
        assert_eq!(job["deviceJobStatistics"]["deviceCount"], DEVICES);
    }
}

impl Story {
    async fn count_changed(&self, name: &str) -> u64 {
        let condition = format!("properties.desired.{name} = true");
        self.service.count(&condition).await
    }
}

#[tokio::test]
async fn what_has_ended_stays_as_it_is() {
    let mut story = Story::start(3).await;
    let mut devices = story.devices();
    for number in 0..2 {
        devices.add(connection(number), number == 0);
    }
    devices.connected().await;
    let mut failing = call("deviceId = 'd0000'");
    failing["maxExecutionTimeInSeconds"] = json!(1);
    for (id, job, status) in [
        ("updated", update("x"), "completed"),
        ("called", call("deviceId != 'd0000'"), "completed"),
        ("failed", failing, "failed"),
    ] {
        story.service.make_job(id, &job).await.unwrap();
        assert_eq!(story.service.ended_job(id).await["status"], status);
    }
    let held = call("deviceId = 'd0000'");
    story.service.make_job("cancelled", &held).await.unwrap();
    let is_running = |job: &Value| job["deviceJobStatistics"]["runningCount"] == 1;
    story.service.job_when("cancelled", is_running).await;
    let cancel = "/jobs/v2/cancelled/cancel";
    let cancelled = story.service.json(Method::POST, cancel, None).await;
    assert_eq!(cancelled.unwrap()["status"], "cancelled");
    let mut before = Vec::new();
    for id in ["updated", "called", "failed", "cancelled"] {
        let job = story.service.job(id).await;
        let rows = story.rows(&job).await;
        before.push((job, rows));
    }
    let calls = devices.calls();

    story.kill_and_start().await;
    devices.connected().await;
    // The hub has looked through its jobs.
    story.service.make_job("next", &update("y")).await.unwrap();
    story.service.ended_job("next").await;
    for (job, rows) in before {
        let id = job["jobId"].as_str().unwrap();
        assert_eq!(story.service.job(id).await, job);
        assert_eq!(story.rows(&job).await, rows);
    }
    assert_eq!(devices.calls(), calls);
    assert_eq!(story.service.count("version = 3").await, 3);
}
