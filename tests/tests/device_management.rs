//! device-proxy and its twin and methods, with a hub whose part the test plays.

use common::mqtt::{self, Packet, PacketIo};
use serde_json::{Value, json};
use tests::programs::Program;
use tests::raw_hub::Stream;
use tests::{RawHub, soon, wait};

/// A device-proxy, and its hub session.
struct Device<'a> {
    hub: &'a RawHub,
    program: Program,
    io: PacketIo<Stream>,
    /// The desired properties, and their version.
    desired: Value,
    version: u64,
    /// The targets in the last report, if they had changed.
    targets: Value,
    calls: u64,
}

impl<'a> Device<'a> {
    async fn start(hub: &'a RawHub, options: &[&str]) -> Self {
        let program = Self::program(hub, options);
        Self::connected(hub, program, hub.device().await.unwrap())
    }

    fn program(hub: &RawHub, options: &[&str]) -> Program {
        let connection = format!(
            "HostName=localhost:{};DeviceId=MyDevice;SharedAccessKey=AAECAwQFBgcICQoLDA0ODw==",
            hub.https_port()
        );
        let ports = hub.mqtts_port().to_string();
        let ca_file = hub.ca_file();
        let fixed = [
            "--transport",
            "mqtt",
            "--mqtts-port",
            &ports,
            "--ca-file",
            ca_file.to_str().unwrap(),
        ];
        Program::start(
            "device-proxy",
            &[&fixed, options].concat(),
            &[("IOTHUB_DEVICE_CONNECTION_STRING", &connection)],
        )
    }

    fn connected(hub: &'a RawHub, program: Program, io: PacketIo<Stream>) -> Self {
        Self {
            hub,
            program,
            io,
            desired: json!({}),
            version: 1,
            targets: Value::Null,
            calls: 0,
        }
    }

    async fn send(&mut self, topic: &str, body: &Value) {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let packet = mqtt::publish_with(topic, body.as_bytes()).unwrap();
        self.io.write(&packet).await.unwrap();
    }

    /// The next message of the device: its topic without the request's id, the id, and its body.
    async fn next(&mut self) -> (String, String, Value) {
        let publish = loop {
            match soon("a message of the device", self.io.read()).await {
                Ok(Some(Packet::Publish(publish))) => break publish,
                Ok(Some(Packet::Pingreq)) => self.io.write(&[0xd0, 0]).await.unwrap(),
                other => panic!("{other:?}"),
            }
        };
        let (topic, id) = publish.topic_name().split_once("/?$rid=").unwrap();
        let body = serde_json::from_slice(publish.payload().as_slice()).unwrap_or_default();
        (topic.to_owned(), id.to_owned(), body)
    }

    fn twin(&self) -> Value {
        let mut desired = json!({ "deviceStreams": self.desired, "$version": self.version });
        if self.desired.is_null() {
            desired = json!({ "$version": self.version });
        }
        json!({ "desired": desired, "reported": { "$version": 1 } })
    }

    /// What it reports next of itself; the report is taken, and the twin may be read before.
    async fn report(&mut self) -> Value {
        loop {
            let (topic, id, body) = self.next().await;
            match topic.as_str() {
                "$iothub/twin/GET" => {
                    let topic = format!("$iothub/twin/res/200/?$rid={id}");
                    let twin = self.twin();
                    self.send(&topic, &twin).await;
                }
                "$iothub/twin/PATCH/properties/reported" => {
                    let topic = format!("$iothub/twin/res/204/?$rid={id}&$version=3");
                    self.send(&topic, &Value::Null).await;
                    return body["deviceStreams"].clone();
                }
                other => panic!("{other}: {body}"),
            }
        }
    }

    async fn notify(&mut self, version: u64) {
        let topic = format!("$iothub/twin/PATCH/properties/desired/?$version={version}");
        // The twin is read, whatever this says.
        let body = json!({ "$version": version, "deviceStreams": { "accept": true } });
        self.send(&topic, &body).await;
    }

    /// Changes the desired section: what becomes of it, as it is reported.
    async fn desire(&mut self, section: Value) -> Value {
        self.desired = section;
        self.version += 1;
        self.notify(self.version).await;
        let report = self.report().await;
        assert_eq!(report["policy"]["version"], self.version, "{report}");
        let is_of_policy = |name: &String| name == "policy" || name == "targets";
        let names = &mut report.as_object().unwrap().keys();
        assert!(names.all(is_of_policy), "nothing else: {report}");
        self.targets = report["targets"].clone();
        report["policy"].clone()
    }

    /// Calls a method: its status and payload.
    async fn call(&mut self, name: &str, payload: &str) -> (i32, Value) {
        self.calls += 1;
        let topic = format!("$iothub/methods/POST/{name}/?$rid={:x}", self.calls);
        let packet = mqtt::publish_with(&topic, payload.as_bytes()).unwrap();
        self.io.write(&packet).await.unwrap();
        let (topic, id, body) = self.next().await;
        let status = topic.strip_prefix("$iothub/methods/res/").unwrap();
        assert_eq!(id, format!("{:x}", self.calls));
        (status.parse().unwrap(), body)
    }

    /// Requests a stream that nothing serves: whether it is accepted.
    async fn is_accepted(&mut self, name: &str) -> bool {
        self.calls += 1;
        let rid = self.calls;
        let url = format!(
            "wss%3A%2F%2Flocalhost%3A{}%2Fb%2F{rid}",
            self.hub.https_port()
        );
        let topic = format!("$iothub/streams/POST/{name}/?$rid={rid}&$url={url}&$auth=t");
        self.send(&topic, &Value::Null).await;
        let (topic, id, _) = self.next().await;
        assert_eq!(id, rid.to_string());
        topic == "$iothub/streams/res/200"
    }
}

const SSH: [&str; 3] = ["--echo", "--target", "ssh=127.0.0.1:1"];

#[tokio::test]
async fn what_is_desired_is_obeyed_or_refused_and_confirmed() {
    let hub = RawHub::start().await;
    let mut device = Device::start(
        &hub,
        &[&SSH[..], &["--allow-cloud", "127.0.0.1:2"]].concat(),
    )
    .await;
    let first = device.report().await;
    assert_eq!(first["targets"], json!(["echo", "ssh"]));
    assert_eq!(first["activeStreams"], 0);
    for name in ["version", "platform", "startTime"] {
        assert!(first[name].is_string(), "{first}");
    }
    assert!(
        first.get("policy").is_none(),
        "nothing was desired: {first}"
    );
    assert!(device.is_accepted("echo").await);

    let applied = |version: u64| json!({ "version": version, "status": "applied", "reason": null });
    let policy = device.desire(json!({ "accept": false })).await;
    assert_eq!(policy, applied(2));
    assert_eq!(device.targets, Value::Null);
    assert!(!device.is_accepted("echo").await);
    let policy = device.desire(json!({ "targets": { "echo": false } })).await;
    assert_eq!(policy, json!({ "version": 3 }), "only what has changed");
    assert_eq!(device.targets, json!(["ssh"]));
    assert!(!device.is_accepted("echo").await);
    let line = device
        .program
        .line("policy changed by the desired properties (version 3): ")
        .await;
    assert!(
        line.contains("streams reach ssh -> 127.0.0.1:1; "),
        "{line}"
    );

    for (wider, reason) in [
        (
            json!({ "targets": { "web": "127.0.0.1:3" } }),
            "may not lead to 127.0.0.1:3",
        ),
        (
            json!({ "targets": { "rdp": true, "echo": true } }),
            "no target \"rdp\"",
        ),
        (json!({ "maxStreams": 513 }), "above the 512"),
        (json!({ "acept": true }), "\"acept\" is unknown"),
    ] {
        let policy = device.desire(wider).await;
        assert!(
            policy["reason"].as_str().unwrap().contains(reason),
            "{policy}"
        );
        assert!(!device.is_accepted("echo").await, "the policy is as before");
    }
    device
        .program
        .line("cannot be obeyed: maxStreams: 513 is above")
        .await;
    let (_, status) = device.call("status", "").await;
    assert_eq!(status["policy"]["status"], "refused");
    assert_eq!(status["targets"], json!(["ssh"]));

    let policy = device
        .desire(json!({ "targets": { "web": "127.0.0.1:2" }, "maxStreams": 5 }))
        .await;
    assert_eq!(
        policy,
        json!({ "version": 8, "status": "applied", "reason": null })
    );
    let (_, status) = device.call("status", "null").await;
    assert_eq!(status["targets"], json!(["echo", "ssh", "web"]));
    assert_eq!(
        (&status["maxStreams"], &status["accept"]),
        (&json!(5), &json!(true))
    );
    // Old news are none.
    device.notify(8).await;
    device.notify(3).await;
    assert_eq!(device.call("ping", "1").await, (200, json!(1)));
    // Nothing is desired any more.
    assert_eq!(device.desire(Value::Null).await, json!({ "version": 9 }));
    assert!(device.is_accepted("echo").await);
}

#[tokio::test]
async fn a_burst_of_changes_ends_in_the_newest() {
    let hub = RawHub::start().await;
    let mut device = Device::start(&hub, &SSH).await;
    device.report().await;
    for most in 1..=200 {
        device.desired = json!({ "maxStreams": most });
        device.version += 1;
        device.notify(device.version).await;
    }
    let mut reports = 0;
    let policy = loop {
        reports += 1;
        let policy = device.report().await["policy"].clone();
        if policy["version"] == 201 {
            break policy;
        }
    };
    assert_eq!(policy["version"], 201);
    assert!(reports < 10, "coalesced: {reports}");
    let (_, status) = device.call("status", "").await;
    assert_eq!(status["maxStreams"], 200);
    assert_eq!(
        status["policy"],
        json!({ "version": 201, "status": "applied" })
    );
}

#[tokio::test]
async fn methods_are_answered() {
    let hub = RawHub::start().await;
    let mut device = Device::start(&hub, &SSH).await;
    device.report().await;
    for payload in ["null", "1", "\"\"", "{\"a\":[1,{}]}"] {
        let expected: Value = serde_json::from_str(payload).unwrap();
        assert_eq!(device.call("ping", payload).await, (200, expected));
    }
    assert_eq!(device.call("ping", "").await, (200, Value::Null));
    let deep = "[".repeat(10_000);
    for bad in ["{", "nul", "1 2", "\u{1}", &deep] {
        assert_eq!(device.call("ping", bad).await.0, 400, "{bad:?}");
    }
    assert_eq!(device.call("Ping", "").await.0, 404);
    assert_eq!(device.call("reboot", "{}").await.0, 404);
    let (status, list) = device.call("listStreams", "").await;
    assert_eq!((status, list), (200, json!({ "total": 0, "streams": [] })));
    assert_eq!(device.call("listStreams", "{\"skip\":5}").await.0, 200);
    for (name, payload, status) in [
        ("listStreams", "{\"skip\":-1}", 400),
        ("listStreams", "[]", 400),
        ("doctor", "[]", 400),
        ("doctor", "{\"targets\":\"ssh\"}", 400),
        ("doctor", "{\"targets\":[\"a b\"]}", 400),
        ("closeStream", "", 400),
        ("closeStream", "{\"stream\":1}", 400),
        ("closeStream", "{\"stream\":\"x\",\"y\":1}", 400),
        ("closeStream", "{\"stream\":\"x\"}", 404),
        ("setLogLevel", "{\"level\":\"loud\"}", 400),
        ("setLogLevel", "\"debug\"", 400),
    ] {
        let (got, body) = device.call(name, payload).await;
        assert_eq!(got, status, "{name} {payload}: {body}");
        assert!(body["message"].is_string(), "{body}");
    }
    // The log's level changes at once, and by the desired properties too.
    let calls = "the hub calls a method: ping";
    device.call("ping", "").await;
    assert_eq!(device.program.count(calls), 0);
    let level = json!({ "level": "debug" });
    assert_eq!(
        device.call("setLogLevel", "{\"level\":\"debug\"}").await,
        (200, level)
    );
    device.call("ping", "").await;
    device.program.line(calls).await;
    let (_, status) = device.call("status", "").await;
    assert_eq!(status["logLevel"], "debug");
    device.desire(json!({ "logLevel": "error" })).await;
    assert_eq!(device.call("status", "").await.1["logLevel"], "error");
    device.desire(json!({})).await;
    assert_eq!(device.call("status", "").await.1["logLevel"], "info");
}

#[tokio::test]
async fn reconnect_answers_first_and_the_policy_stays() {
    let hub = RawHub::start().await;
    let mut device = Device::start(&hub, &SSH).await;
    device.report().await;
    device.desire(json!({ "targets": { "echo": false } })).await;
    assert_eq!(device.call("reconnect", "").await, (200, json!({})));
    let ended = soon("the end of the hub session", async {
        loop {
            match device.io.read().await {
                Ok(Some(Packet::Disconnect)) => break true,
                Ok(Some(_)) => {}
                _ => break false,
            }
        }
    });
    assert!(ended.await, "in order");
    let mut twin = device.twin();
    twin["reported"]["deviceStreams"] =
        json!({ "policy": { "version": 2, "status": "applied" }, "streams": 0 });
    device.io = hub.device_with(&twin.to_string()).await.unwrap();
    let report = device.report().await;
    assert!(report.get("policy").is_none(), "it is confirmed: {report}");
    assert!(report.get("streams").is_none(), "it is as it was: {report}");
    assert!(report["version"].is_string(), "{report}");
    assert!(!device.is_accepted("echo").await);
    wait("the log's line", || {
        device
            .program
            .count("connecting again, as the hub has asked")
            == 1
    })
    .await;
}

#[tokio::test]
async fn a_hub_that_grants_only_streams_is_not_asked_for_more() {
    let hub = RawHub::start().await;
    let program = Device::program(&hub, &SSH);
    let is_granted = |filter: &str| filter.starts_with("$iothub/streams/");
    let io = hub.subscribed(is_granted).await.unwrap();
    let mut device = Device::connected(&hub, program, io);
    // The first message of the device is its answer.
    assert!(device.is_accepted("echo").await);
    assert!(!device.is_accepted("rdp").await);
    // What such a hub does not send all the same harms nothing.
    device.notify(7).await;
    assert!(device.is_accepted("echo").await);
    device.program.terminate();
    let ended = soon("the end of the hub session", device.io.read()).await;
    assert!(matches!(ended, Ok(Some(Packet::Disconnect))), "{ended:?}");
    assert_eq!(device.program.exit_code().await, Some(0));
}
