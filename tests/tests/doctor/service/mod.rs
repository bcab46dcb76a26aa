//! Faults behind the hub's door, from the operator's side: credentials, the hub's answers, the device,
//! its targets and streams; and a path that is well.

mod answers;
mod credentials;
mod devices;
mod strangers;

use common::doctor::{Outcome, Report};
use serde_json::Value;
use tests::{TestDevice, TestHub};
use tokio::net::TcpListener;

use crate::service_at;

/// A report about the device "d", with these options of device-proxy.
async fn with_device(options: &[&str], arguments: &[&str]) -> Report {
    let hub = TestHub::start().await;
    let connection = hub.create("d").await;
    let _device = TestDevice::start(&hub, &connection, options).await;
    service_at(&hub, &[&["d"], arguments].concat()).await
}

#[tokio::test]
async fn a_path_that_is_well_is_examined_to_its_end() {
    let ssh = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("ssh={}", ssh.local_addr().unwrap());
    let serving = async {
        loop {
            let (mut socket, _) = ssh.accept().await.unwrap();
            let hello = b"SSH-2.0-Test\r\n";
            let _ = tokio::io::AsyncWriteExt::write_all(&mut socket, hello).await;
        }
    };
    let options = ["--echo", "--target", &target];
    let examining = with_device(&options, &[]);
    let report = tokio::select! {
        report = examining => report,
        () = serving => unreachable!(),
    };
    let outcomes: Vec<_> = report
        .checks
        .iter()
        .map(|check| (check.id, check.outcome))
        .filter(|(id, _)| *id != "idle")
        .collect();
    let ok = |id| (id, Outcome::Ok);
    let skipped = |id| (id, Outcome::Skipped);
    let expected = [
        ok("configuration"),
        ok("credential"),
        ok("name"),
        ok("tcp"),
        skipped("proxy"),
        ok("tls"),
        ok("certificate"),
        ok("inspection"),
        ok("http"),
        ok("clock"),
        ok("websocket"),
        ok("hub"),
        ok("authentication"),
        ok("device"),
        ok("view"),
        ok("device-clock"),
        ok("target"),
        ok("target"),
        ok("stream"),
        ok("round-trip"),
        ok("throughput"),
        ok("session"),
    ];
    assert_eq!(outcomes, expected, "{:#?}", report.checks);
    assert!(report.stuck_at().is_none());
    let json = report.to_json();
    assert_eq!(json["stuckAt"], Value::Null);
    assert_eq!(json["checks"][17]["title"], "target ssh");
    let ssh = report
        .checks
        .iter()
        .find(|check| check.title == "target ssh");
    assert!(ssh.unwrap().detail.ends_with("answers SSH-2.0-Test"));
}

#[tokio::test]
async fn policies_of_windows_are_named_where_there_is_rdp() {
    for (target, is_named) in [("rdp=localhost:1", true), ("ssh=localhost:1", false)] {
        let report = with_device(&["--target", target], &[]).await;
        let idle = report.check("idle").unwrap();
        let names = idle.detail.contains("sessions of rdp by policies");
        assert_eq!(names, is_named, "{idle:#?}");
    }
}
