//! Faults of the device and of its targets.

use common::doctor::Report;
use hub::registry::Status;
use reqwest::Method;
use serde_json::{Value, json};
use tests::target::Behaviour;
use tests::{RawService, Target, TestDevice, TestHub};

use super::with_device;
use crate::{Case, all_are_named, case, service_at};

async fn with_target(name: &str, behaviour: Behaviour) -> Report {
    let target = Target::start(behaviour).await;
    let option = format!("{name}={}", target.address);
    with_device(&["--echo", "--target", &option], &[]).await
}

fn devices() -> Vec<Case> {
    vec![
        case(
            "an unknown device",
            "device",
            "the hub knows no device `d`",
            async { service_at(&TestHub::start().await, &["d"]).await },
        ),
        case(
            "a disabled device",
            "device",
            "stream-hub device enable d",
            async {
                let hub = TestHub::start().await;
                hub.create("d").await;
                hub.set_status("d", Status::Disabled).await;
                service_at(&hub, &["d"]).await
            },
        ),
        case(
            "a device that is away",
            "device",
            "is not connected to the hub",
            async {
                let hub = TestHub::start().await;
                hub.create("d").await;
                service_at(&hub, &["d"]).await
            },
        ),
        case(
            "no such target",
            "target",
            "no target of this name",
            async {
                with_device(
                    &["--echo", "--target", "web=127.0.0.1:1"],
                    &["--target", "nope"],
                )
                .await
            },
        ),
        case(
            "a target that refuses",
            "target",
            "start the service on the device",
            async {
                let port = tests::program_hub::free_port().await;
                let option = format!("web=127.0.0.1:{port}");
                with_device(&["--echo", "--target", &option], &[]).await
            },
        ),
        case(
            "a target that says nothing",
            "target",
            "and sends nothing",
            with_target("ssh", Behaviour::Silent),
        ),
        case(
            "a target of another kind",
            "target",
            "what answers there is no SSH server",
            with_target("ssh", Behaviour::Flood),
        ),
        case(
            "a target that hangs up",
            "target",
            "closes them at once",
            with_target("ssh", Behaviour::CloseAtOnce),
        ),
        case(
            "a target whose name is unknown",
            "target",
            "cannot resolve nobody.invalid",
            async { with_device(&["--echo", "--target", "web=nobody.invalid:1"], &[]).await },
        ),
        case(
            "a host that may not be used",
            "stream",
            "--streaming-hosts",
            async { with_device(&["--echo"], &["--streaming-hosts", "elsewhere.example"]).await },
        ),
        case(
            "no sessions at the device",
            "session",
            "the device does not offer it",
            async { with_device(&["--echo", "--session", "never"], &[]).await },
        ),
        case("no sessions here", "session", "off here", async {
            with_device(&["--echo"], &["--session", "never"]).await
        }),
        case(
            "a device that takes no streams",
            "view",
            "accepts no new streams",
            async {
                let hub = TestHub::start().await;
                let connection = hub.create("d").await;
                let _device = TestDevice::start(&hub, &connection, &["--echo"]).await;
                desire(&hub, json!({ "accept": false })).await;
                service_at(&hub, &["d"]).await
            },
        ),
        case(
            "a device without room",
            "view",
            "no room for another",
            async {
                let hub = TestHub::start().await;
                let connection = hub.create("d").await;
                let options = ["--echo", "--max-streams", "1"];
                let _device = TestDevice::start(&hub, &connection, &options).await;
                let service = RawService::new(&hub).await;
                let response = service.initiate("d", "echo", 1.0, 5.0).await;
                let (url, token) = tests::raw_service::accepted(&response);
                let _leg = service.leg(&url, &token).await;
                service_at(&hub, &["d"]).await
            },
        ),
    ]
}

/// Desires something of the device "d", and waits until it is in force.
async fn desire(hub: &TestHub, section: Value) {
    let service = RawService::new(hub).await;
    let path = "/twins/d?api-version=2021-04-12";
    let body = json!({ "properties": { "desired": { "deviceStreams": section } } });
    let request = service
        .call(Method::PATCH, path)
        .header("If-Match", "\"*\"");
    let request = request.header("Content-Type", "application/json");
    let answer = request.body(body.to_string()).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    tests::soon("the confirmation", async {
        loop {
            let twin = service.call(Method::GET, path).send().await.unwrap();
            let twin: Value = serde_json::from_slice(&twin.bytes().await.unwrap()).unwrap();
            let status = twin.pointer("/properties/reported/deviceStreams/policy/status");
            if status == Some(&json!("applied")) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn faults_of_devices_are_named() {
    all_are_named(devices(), 14).await;
}
