//! A device-proxy that is managed through its twin and its methods, with our hub between.

use std::time::Duration;

use common::connection_string::DeviceConnectionString;
use reqwest::Method;
use serde_json::{Value, json};
use tests::echo::is_echoed;
use tests::target::Behaviour;
use tests::{RawService, Target, TestDevice, TestHub, TestService, soon, wait};

/// A hub, a service's client of it, and the device "d" of it.
struct Fleet {
    hub: TestHub,
    service: RawService,
    connection: DeviceConnectionString,
}

impl Fleet {
    async fn start() -> Self {
        let hub = TestHub::start().await;
        Self {
            service: RawService::new(&hub).await,
            connection: hub.create("d").await,
            hub,
        }
    }

    async fn device(&self, arguments: &[&str]) -> TestDevice {
        TestDevice::start(&self.hub, &self.connection, arguments).await
    }

    async fn listen(&self, session: &str, target: &str) -> TestService {
        let forward = format!("0:{target}");
        TestService::listen(&self.hub, &["--session", session, "d", &forward]).await
    }

    async fn twin(&self) -> Value {
        let path = "/twins/d?api-version=2021-04-12";
        let response = self.service.call(Method::GET, path).send().await.unwrap();
        assert_eq!(response.status(), 200);
        serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
    }

    /// What the device reports of itself.
    async fn reported(&self) -> Value {
        self.twin().await["properties"]["reported"]["deviceStreams"].clone()
    }

    /// Waits until it reports this.
    async fn reports(&self, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        soon(what, async {
            loop {
                let reported = self.reported().await;
                if condition(&reported) {
                    return reported;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
    }

    /// Patches the desired section: the version of the desired properties then.
    async fn patch(&self, section: &Value) -> u64 {
        let body = json!({ "properties": { "desired": { "deviceStreams": section } } });
        let request = self
            .service
            .call(Method::PATCH, "/twins/d?api-version=2021-04-12")
            .header("If-Match", "\"*\"")
            .header("Content-Type", "application/json")
            .body(body.to_string());
        let response = request.send().await.unwrap();
        let status = response.status();
        let twin: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
        assert_eq!(status, 200, "{twin}");
        twin["properties"]["desired"]["$version"].as_u64().unwrap()
    }

    /// The same, and waits for what becomes of it.
    async fn desire(&self, section: Value) -> Value {
        let version = self.patch(&section).await;
        let is_new = |reported: &Value| reported["policy"]["version"] == version;
        let reported = self.reports("the confirmation", is_new).await;
        reported["policy"].clone()
    }

    async fn is_applied(&self, section: Value) {
        let policy = self.desire(section).await;
        assert_eq!(policy["status"], "applied", "{policy}");
        assert!(policy.get("reason").is_none(), "{policy}");
    }

    /// Calls a method: its status and payload.
    async fn call(&self, name: &str, payload: Value) -> (i64, Value) {
        let body =
            json!({ "methodName": name, "payload": payload, "responseTimeoutInSeconds": 20 });
        let request = self
            .service
            .call(Method::POST, "/twins/d/methods?api-version=2021-04-12")
            .header("Content-Type", "application/json")
            .body(body.to_string());
        let response = soon("an answer", request.send()).await.unwrap();
        let status = response.status();
        let body = response.bytes().await.unwrap();
        assert_eq!(status, 200, "{body:?}");
        let answer: Value = serde_json::from_slice(&body).unwrap();
        (
            answer["status"].as_i64().unwrap(),
            answer["payload"].clone(),
        )
    }
}

#[tokio::test]
async fn a_target_that_is_withdrawn_by_the_twin_ends_its_connections() {
    let fleet = Fleet::start().await;
    let rdp = Target::start(Behaviour::Echo).await;
    let web = Target::start(Behaviour::Echo).await;
    let (one, other) = (
        format!("rdp={}", rdp.address),
        format!("web={}", web.address),
    );
    let _device = fleet.device(&["--target", &one, "--target", &other]).await;
    let reported = fleet
        .reports("the first report", |ours| ours["version"].is_string())
        .await;
    assert_eq!(reported["targets"], json!(["rdp", "web"]));
    assert!(reported["session"]["bootId"].is_string(), "{reported}");
    assert!(reported.get("policy").is_none(), "{reported}");

    let session = fleet.listen("always", "rdp").await;
    let plain = fleet.listen("never", "rdp").await;
    let kept = fleet.listen("auto", "web").await;
    let mut withdrawn = [session.connect().await, plain.connect().await];
    let mut stays = kept.connect().await;
    for socket in withdrawn.iter_mut().chain([&mut stays]) {
        assert!(is_echoed(socket).await);
    }
    fleet
        .is_applied(json!({ "targets": { "rdp": false } }))
        .await;
    for socket in &mut withdrawn {
        assert!(!is_echoed(socket).await);
    }
    wait("the end at the target", || rdp.counters.connections() == 0).await;
    assert!(is_echoed(&mut stays).await);

    // It holds in the next hub session, in which nothing is confirmed once more.
    let version = fleet.twin().await["properties"]["reported"]["$version"]
        .as_u64()
        .unwrap();
    assert_eq!(fleet.call("reconnect", Value::Null).await, (200, json!({})));
    let counts = fleet
        .reports("the counts", |ours| ours["streams"] == 3)
        .await;
    assert_eq!(counts["targets"], json!(["web"]));
    assert!(counts["bytesIn"].as_u64().unwrap() >= 3, "{counts}");
    assert!(
        fleet.twin().await["properties"]["reported"]["$version"]
            .as_u64()
            .unwrap()
            > version
    );
    for service in [&session, &plain] {
        assert!(!service.echoes().await);
    }
    assert!(
        is_echoed(&mut stays).await,
        "streams outlive the hub session"
    );

    fleet.is_applied(json!(null)).await;
    for service in [&session, &plain] {
        assert!(service.echoes().await);
    }
}

#[tokio::test]
async fn what_was_desired_while_the_device_was_away_holds_from_its_first_stream_on() {
    let fleet = Fleet::start().await;
    let ssh = Target::start(Behaviour::Echo).await;
    let target = format!("ssh={}", ssh.address);
    let version = fleet.patch(&json!({ "targets": { "ssh": false } })).await;
    // Its request waits for the device.
    let service = fleet.listen("never", "ssh").await;
    let mut socket = service.connect().await;
    let _device = fleet.device(&["--target", &target]).await;
    assert!(!is_echoed(&mut socket).await);
    let is_new = |reported: &Value| reported["policy"]["version"] == version;
    fleet.reports("the confirmation", is_new).await;
    let (_, status) = fleet.call("status", Value::Null).await;
    assert_eq!(
        (&status["streams"], &status["targets"]),
        (&json!(0), &json!([]))
    );
    fleet.is_applied(json!({ "targets": null })).await;
    assert!(service.echoes().await);
}

#[tokio::test]
async fn a_device_that_accepts_nothing_goes_on_with_what_it_has() {
    let fleet = Fleet::start().await;
    let ssh = Target::start(Behaviour::Echo).await;
    let target = format!("ssh={}", ssh.address);
    let _device = fleet.device(&["--target", &target]).await;
    let session = fleet.listen("always", "ssh").await;
    let plain = fleet.listen("never", "ssh").await;
    let mut open = [session.connect().await, plain.connect().await];
    for socket in &mut open {
        assert!(is_echoed(socket).await);
    }
    fleet.is_applied(json!({ "accept": false })).await;
    // Neither a stream, nor a connection in a session that is open.
    for service in [&session, &plain] {
        assert!(!service.echoes().await);
    }
    let another = fleet.listen("always", "ssh").await;
    assert!(!another.echoes().await);
    for socket in &mut open {
        assert!(is_echoed(socket).await);
    }
    fleet
        .is_applied(json!({ "accept": true, "maxStreams": 1 }))
        .await;
    assert!(session.echoes().await, "in the session there is");
    assert!(!plain.echoes().await, "two are open");
}

#[tokio::test]
async fn nothing_is_widened_but_what_the_device_allows() {
    let fleet = Fleet::start().await;
    let ssh = Target::start(Behaviour::Echo).await;
    let web = Target::start(Behaviour::Echo).await;
    let other = Target::start(Behaviour::Echo).await;
    let (target, allowed) = (format!("ssh={}", ssh.address), web.address.to_string());
    let _device = fleet
        .device(&[
            "--target",
            &target,
            "--allow-cloud",
            &allowed,
            "--max-streams",
            "9",
        ])
        .await;
    let service = fleet.listen("auto", "web").await;
    assert!(!service.echoes().await);

    let elsewhere = other.address.to_string();
    for (wider, reason) in [
        (
            json!({ "targets": { "web": elsewhere } }),
            "\"web\" may not lead to",
        ),
        (
            json!({ "targets": { "web": null }, "maxStreams": 10 }),
            "10 is above the 9",
        ),
        (
            json!({ "maxStreams": null, "targets": 1 }),
            "targets is not an object",
        ),
        (json!({ "targets": null, "logLevel": "loud" }), "logLevel"),
    ] {
        let policy = fleet.desire(wider).await;
        assert_eq!(policy["status"], "refused", "{policy}");
        assert!(
            policy["reason"].as_str().unwrap().contains(reason),
            "{policy}"
        );
        assert!(!service.echoes().await);
    }
    let wanted = json!({ "logLevel": null, "targets": { "web": allowed } });
    fleet.is_applied(wanted).await;
    assert!(service.echoes().await);
    assert_eq!(other.counters.connections(), 0);
}

#[tokio::test]
async fn a_burst_of_changes_ends_in_the_newest() {
    let fleet = Fleet::start().await;
    let _device = fleet.device(&["--echo", "--max-streams", "100"]).await;
    let mut last = 0;
    for most in 1..=60 {
        last = fleet.patch(&json!({ "maxStreams": most })).await;
    }
    let is_last = |reported: &Value| reported["policy"]["version"] == last;
    let reported = fleet.reports("the newest", is_last).await;
    assert_eq!(reported["policy"]["status"], "applied");
    assert_eq!(fleet.call("status", Value::Null).await.1["maxStreams"], 60);
}

#[tokio::test]
async fn streams_are_listed_and_closed_one_by_one() {
    let fleet = Fleet::start().await;
    let ssh = Target::start(Behaviour::Echo).await;
    let target = format!("ssh={}", ssh.address);
    let _device = fleet.device(&["--target", &target]).await;
    let session = fleet.listen("always", "ssh").await;
    let plain = fleet.listen("never", "ssh").await;
    let (mut sockets, mut ids) = (Vec::new(), Vec::new());
    for (number, service) in (1..).zip([&session, &session, &plain, &plain]) {
        let mut socket = service.connect().await;
        assert!(is_echoed(&mut socket).await);
        sockets.push(socket);
        let (status, list) = fleet.call("listStreams", Value::Null).await;
        assert_eq!((status, &list["total"]), (200, &json!(number)), "{list}");
        let newest = &list["streams"][number - 1];
        assert_eq!(newest["name"], "ssh");
        assert_eq!(newest["target"], ssh.address.to_string());
        assert_eq!(
            (&newest["bytesIn"], &newest["bytesOut"]),
            (&json!(1), &json!(1))
        );
        ids.push(newest["stream"].as_str().unwrap().to_owned());
    }
    assert!(ids[0].contains('/') && ids[3].len() == 32, "{ids:?}");
    for closed in [1, 2] {
        let id = json!({ "stream": ids[closed] });
        let answer = json!({ "stream": ids[closed], "closed": true });
        assert_eq!(fleet.call("closeStream", id.clone()).await, (200, answer));
        assert!(!is_echoed(&mut sockets[closed]).await);
        assert_eq!(fleet.call("closeStream", id).await.0, 404);
    }
    for kept in [0, 3] {
        assert!(is_echoed(&mut sockets[kept]).await);
    }
    wait("the ends at the target", || ssh.counters.connections() == 2).await;
    let (_, status) = fleet.call("status", Value::Null).await;
    assert_eq!(
        (&status["activeStreams"], &status["streams"]),
        (&json!(2), &json!(4))
    );
    assert_eq!(
        (&status["bytesIn"], &status["sessions"]),
        (&json!(6), &json!(1))
    );
    assert!(
        status.get("lastError").is_none(),
        "an operator's wish is none: {status}"
    );
    assert_eq!(fleet.call("ping", json!([1])).await, (200, json!([1])));
    assert_eq!(fleet.call("reboot", Value::Null).await.0, 404);
}

#[tokio::test]
async fn the_last_error_is_kept() {
    let fleet = Fleet::start().await;
    let nowhere = Target::nowhere().await.to_string();
    let _device = fleet.device(&["--target", &nowhere]).await;
    for session in ["always", "never"] {
        let service = fleet.listen(session, session).await;
        assert!(!service.echoes().await);
        let (_, status) = fleet.call("status", Value::Null).await;
        let error = status["lastError"]["message"].as_str().unwrap();
        assert!(error.starts_with(&format!("{session}: ")), "{error}");
        assert_eq!(status["streams"], 0);
    }
    fleet.call("reconnect", Value::Null).await;
    fleet
        .reports("the error", |ours| ours["lastError"]["time"].is_string())
        .await;
}
