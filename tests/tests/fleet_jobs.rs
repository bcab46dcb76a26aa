//! `service-proxy job`: made, watched to their end, shown, listed and cancelled.

use common::wire::method;
use serde_json::json;
use tests::commands::{command, service};
use tests::{RawDevice, TestHub};

/// A device that answers every call of a direct method with this status.
async fn answering(hub: &TestHub, id: &str, status: u16) -> tokio::task::JoinHandle<()> {
    let connection = hub.create(id).await;
    let mut device = RawDevice::connect(hub, &connection).await;
    device.subscribe_to(method::FILTER).await;
    tokio::spawn(async move {
        loop {
            let (topic, payload) = device.message().await;
            let (_, rid) = topic.split_once("/?$rid=").unwrap();
            let answer = format!("$iothub/methods/res/{status}/?$rid={rid}");
            device.publish(&answer, &payload).await;
        }
    })
}

#[tokio::test]
async fn a_twin_job_changes_every_device_that_matches() {
    let hub = TestHub::start().await;
    for number in 0..120 {
        hub.create(&format!("d{number:03}")).await;
    }
    let berlin = r#"{"tags":{"site":"berlin"}}"#;
    service(&hub, &["twin", "set", "d007", berlin]).await.ok();
    let patch = r#"{"properties":{"desired":{"a":1}}}"#;
    let words = [
        "job",
        "twin",
        patch,
        "--where",
        "NOT IS_DEFINED(tags.site)",
        "--id",
        "j1",
    ];
    let job = service(&hub, &words).await;
    assert!(job.err.contains("job j1 "), "{}", job.err);
    assert_eq!(
        job.ok(),
        "job j1 completed: 119 devices, 119 succeeded, 0 failed\n"
    );
    let query = "SELECT COUNT() AS n FROM devices WHERE properties.desired.a = 1";
    let count = service(&hub, &["query", query, "--json"]).await.json();
    assert_eq!(count, json!([{ "n": 119 }]));
    let rows = service(&hub, &["job", "show", "j1", "--devices", "--json"]).await;
    assert_eq!(rows.json().as_array().unwrap().len(), 119);
    let shown = service(&hub, &["job", "show", "j1"]).await.ok();
    assert!(shown.contains("NOT IS_DEFINED(tags.site)"), "{shown}");
    // The document is read before anything is made.
    let words = ["job", "twin", "[]", "--where", "*", "--id", "j2"];
    service(&hub, &words).await.fails(2, &["the patch"]);
    service(&hub, &["job", "show", "j2"])
        .await
        .fails(1, &["read job j2", "no such job"]);
}

#[tokio::test]
async fn a_job_has_failed_where_a_device_has_not_done_it() {
    let hub = TestHub::start().await;
    let devices = [
        answering(&hub, "good", 200).await,
        answering(&hub, "bad", 404).await,
    ];
    hub.create("offline").await;
    let job = ["job", "method", "lockDoor", "7", "--where"];
    let words = [&job[..], &["deviceId = 'good'", "--id", "j1"]].concat();
    let ran = service(&hub, &words).await;
    assert_eq!(
        ran.ok(),
        "job j1 completed: 1 devices, 1 succeeded, 0 failed\n"
    );
    let words = [&job[..], &["*", "--id", "j2"]].concat();
    let ran = service(&hub, &words).await;
    // An answer is no success by itself.
    ran.fails(
        1,
        &["bad: status 404 7", "offline: ", "job j2: 2 of 3 devices"],
    );
    assert_eq!(
        ran.out,
        "job j2 completed: 3 devices, 1 succeeded, 2 failed\n"
    );
    let waited = service(&hub, &["job", "show", "j2", "--wait", "--json"]).await;
    waited.fails(1, &["2 of 3 devices failed"]);
    assert!(waited.out.contains("\"jobId\": \"j2\""), "{}", waited.out);
    let rows = service(&hub, &["job", "show", "j2", "--devices"])
        .await
        .ok();
    let good = rows.lines().find(|line| line.starts_with("good ")).unwrap();
    assert!(
        good.contains("completed") && good.ends_with("status 200 7"),
        "{good}"
    );
    devices.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_job_that_waits_for_its_time_can_be_cancelled() {
    let hub = TestHub::start().await;
    hub.create("d").await;
    let patch = r#"{"tags":{"a":1}}"#;
    let job = [
        "job", "twin", patch, "--where", "*", "--at", "+1h", "--id", "j",
    ];
    let made = service(&hub, &[&job[..], &["--no-wait"]].concat()).await;
    assert_eq!(made.ok(), "j\n");
    let again = service(&hub, &job).await;
    again.fails(1, &["create job j", "of that id already"]);
    let list = service(&hub, &["job", "list"]).await.ok();
    assert_eq!(list.lines().count(), 2, "{list}");
    let of_methods = ["job", "list", "--type", "scheduleDeviceMethod"];
    let none = service(&hub, &of_methods).await;
    assert_eq!((none.out.as_str(), none.err.as_str()), ("", "no jobs\n"));
    let cancelled = service(&hub, &["job", "cancel", "j"]).await;
    assert_eq!(cancelled.ok(), "job j is cancelled\n");
    service(&hub, &["job", "show", "j", "--wait"])
        .await
        .fails(1, &["job j is cancelled"]);
    service(&hub, &["job", "cancel", "nobody"])
        .await
        .fails(1, &["no such job"]);
    let bad = ["job", "twin", patch, "--where", "tags.a = = 1"];
    service(&hub, &bad).await.fails(1, &["column"]);
}

/// The job is the hub's: whoever watches it may leave.
#[cfg(unix)]
#[tokio::test]
async fn a_signal_ends_the_watching_and_not_the_job() {
    use rustix::process::Signal;
    use tests::{programs, soon};
    use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};

    let hub = TestHub::start().await;
    hub.create("d").await;
    let patch = r#"{"tags":{"a":1}}"#;
    let words = [
        "job", "twin", patch, "--where", "*", "--at", "+1h", "--id", "j",
    ];
    let mut child = command(&hub, &words).await.spawn().unwrap();
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    let mut text = String::new();
    let watching = errors.read_line(&mut text);
    soon("the first line", watching).await.unwrap();
    assert!(text.contains("job j "), "{text}");
    programs::signal(&child, Signal::TERM);
    let status = soon("service-proxy's end", child.wait()).await.unwrap();
    errors.read_to_string(&mut text).await.unwrap();
    assert_eq!(status.code(), Some(1), "{text}");
    assert!(text.contains("job j goes on"), "{text}");
    let job = service(&hub, &["job", "show", "j", "--json"]).await.json();
    assert_ne!(job["status"], "cancelled");
}
