//! How sessions begin under bad conditions: a slow path, a pause, programs that start at the same
//! time, a hub whose disk is slow or full. Every connection that a device accepts is in a session
//! all the same, and survives a restart of the hub.

use std::time::Duration;

use common::connection_string::DeviceConnectionString;
use common::session::handshake::{Exchange, SessionRequest};
use common::wire::twin::BootId;
use rusqlite::Connection;
use tests::hub::Links;
use tests::service::{session_report, wait_for_report};
use tests::{RawDevice, TestDevice, TestHub, TestService, logs, slow_link, soon, wait};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

async fn hub_with(id: &str) -> (TestHub, Links, DeviceConnectionString) {
    logs::keep();
    let (hub, links) = TestHub::start_behind(slow_link::Settings::default()).await;
    let connection = hub.create(id).await;
    (hub, links, connection)
}

async fn echoes(socket: &mut TcpStream) {
    socket.write_all(b"hello").await.unwrap();
    let mut back = [0; 5];
    let echo = tokio::time::timeout(Duration::from_secs(30), socket.read_exact(&mut back));
    echo.await.expect("no echo within 30 s").unwrap();
    assert_eq!(&back, b"hello");
}

/// Cuts all streams as a restart of the hub would; connections in sessions survive it.
async fn survives_a_reset(links: &Links, sockets: &mut [TcpStream]) {
    links.https.reset_all();
    for socket in sockets {
        echoes(socket).await;
    }
}

/// The hub's database, opened to block the hub's access to it.
fn database(hub: &TestHub) -> Connection {
    let database = Connection::open(hub.data_dir().join("hub.db")).unwrap();
    database.busy_timeout(Duration::from_secs(10)).unwrap();
    database
}

#[tokio::test]
async fn a_path_of_700_ms_carries_sessions() {
    let id = "far-away";
    let (hub, links, connection) = hub_with(id).await;
    let _device = TestDevice::start(&hub, &connection, &["--echo"]).await;
    links.https.set_delay(Duration::from_millis(350));
    let service = TestService::listen(&hub, &[id, "0"]).await;
    let mut socket = service.connect().await;
    echoes(&mut socket).await;
    links.https.set_delay(Duration::ZERO);
    survives_a_reset(&links, &mut [socket]).await;
    let warnings = logs::lines(&["plain streams for", id]);
    assert!(warnings.is_empty(), "{warnings:?}");
}

#[tokio::test]
async fn a_pause_before_the_greeting_is_waited_for() {
    let id = "pauses";
    let (hub, _links, connection) = hub_with(id).await;
    let mut device = RawDevice::connect(&hub, &connection).await;
    device.report_sessions().await;
    let service = TestService::listen(&hub, &[id, "0:x"]).await;
    let _waiting = service.connect().await;
    let request = device.request().await;
    device.answer(&request, true).await;
    let mut exchange = Exchange::new(device.leg(&request).await);
    // The pause is what is tested; the service waits for 10 s.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let asked = soon("the service's request", exchange.greet(BootId::random())).await;
    assert!(matches!(asked, Ok(SessionRequest::New { .. })), "{asked:?}");
}

#[tokio::test]
async fn a_silence_is_forgotten_in_seconds() {
    let id = "silent-once";
    let (hub, _links, connection) = hub_with(id).await;
    let mut device = RawDevice::connect(&hub, &connection).await;
    device.report_sessions().await;
    let service = TestService::listen(&hub, &[id, "0:x"]).await;
    let _first = service.connect().await;
    let request = device.request().await;
    assert_eq!(request.name, "_session.x");
    device.answer(&request, true).await;
    let _silent = device.leg(&request).await;
    let line = ["plain streams for 5 s", id];
    tokio::time::timeout(Duration::from_secs(15), async {
        while logs::lines(&line).is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("no line about plain streams within 15 s");
    assert_eq!(device.request().await.name, "x");
    // The silence is temporary: a later connection must be in a session again.
    soon("a request for a session", async {
        loop {
            let _client = service.connect().await;
            let request = device.request().await;
            if request.name == "_session.x" {
                break;
            }
            device.answer(&request, false).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn connections_survive_the_hub_in_any_order_of_start() {
    // The service starts first and its client waits for the device; then the device first; then
    // both.
    for (round, service_first) in [true, false, true].into_iter().enumerate() {
        let id = format!("start-{round}");
        let (hub, links, connection) = hub_with(&id).await;
        let mut device = None;
        if !service_first {
            device = Some(TestDevice::start(&hub, &connection, &["--echo"]).await);
        }
        let service = TestService::listen(&hub, &[&id, "0"]).await;
        let mut sockets = vec![service.connect().await, service.connect().await];
        for socket in &mut sockets {
            socket.write_all(b"hel").await.unwrap();
        }
        if service_first && round == 0 {
            // It has read the twin, and requests the stream.
            wait("the stream request", || hub.state.legs.count() > 0).await;
        }
        if device.is_none() {
            device = Some(TestDevice::start(&hub, &connection, &["--echo"]).await);
        }
        for socket in &mut sockets {
            socket.write_all(b"lo").await.unwrap();
            let mut back = [0; 5];
            soon("the echo", socket.read_exact(&mut back))
                .await
                .unwrap();
        }
        wait("one stream, the session's", || hub.state.legs.count() == 1).await;
        survives_a_reset(&links, &mut sockets).await;
        if round == 0 {
            let _hub = hub.restart_behind(&links).await;
            for socket in &mut sockets {
                echoes(socket).await;
            }
        }
        drop(device);
    }
}

#[tokio::test]
async fn a_report_that_the_disk_delays_is_waited_for() {
    let id = "slow-disk";
    let (hub, links, connection) = hub_with(id).await;
    let service = TestService::listen(&hub, &[id, "0"]).await;
    let mut socket = service.connect().await;
    wait("the stream request", || hub.state.legs.count() > 0).await;
    let disk = database(&hub);
    disk.execute_batch("BEGIN IMMEDIATE").unwrap();
    let _device = TestDevice::start(&hub, &connection, &["--echo"]).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(session_report(&hub, id).await, None);
    disk.execute_batch("ROLLBACK").unwrap();
    echoes(&mut socket).await;
    survives_a_reset(&links, &mut [socket]).await;
}

#[tokio::test]
async fn a_report_that_the_hub_refuses_is_repeated() {
    let id = "full-disk";
    let (hub, links, connection) = hub_with(id).await;
    let disk = database(&hub);
    for event in ["INSERT", "UPDATE"] {
        let sql = format!(
            "CREATE TRIGGER full_{event} BEFORE {event} ON twins BEGIN SELECT RAISE(ABORT, 'the disk is full'); END"
        );
        disk.execute_batch(&sql).unwrap();
    }
    let _device = TestDevice::start(&hub, &connection, &["--echo"]).await;
    let warning = ["the report on session mode does not reach", "status 500"];
    logs::line(&warning).await;
    // Long enough for some attempts.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(session_report(&hub, id).await, None);
    disk.execute_batch("DROP TRIGGER full_INSERT; DROP TRIGGER full_UPDATE")
        .unwrap();
    wait_for_report(&hub, id, |report| report.is_some()).await;
    logs::line(&["the hub has taken the report on session mode"]).await;
    assert_eq!(logs::lines(&warning).len(), 1);
    let service = TestService::listen(&hub, &[id, "0"]).await;
    let mut socket = service.connect().await;
    echoes(&mut socket).await;
    survives_a_reset(&links, &mut [socket]).await;
}
