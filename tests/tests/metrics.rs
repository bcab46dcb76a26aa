//! What a hub counts, as who scrapes it sees it: what happened is in it, and no name is.

use std::collections::BTreeSet;

use common::identity::StreamName;
use common::wire::initiation::Timeouts;
use reqwest::Method;
use tests::hub::identity;
use tests::service::hub_api;
use tests::target::Behaviour;
use tests::{RawDevice, RawService, Target, TestDevice, TestHub, TestService, soon, wait};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Duration, sleep};
use tokio_util::sync::CancellationToken;

/// The value of a series; none is none.
fn value(metrics: &str, series: &str) -> Option<f64> {
    let mut lines = metrics.lines();
    let line = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map(|value| value.parse().unwrap())
}

/// Waits until a series has at least this value.
async fn reaches(hub: &TestHub, series: &str, least: f64) -> f64 {
    soon(series, async {
        loop {
            match value(&hub.metrics().await, series) {
                Some(value) if value >= least => return value,
                _ => sleep(Duration::from_millis(5)).await,
            }
        }
    })
    .await
}

/// Waits until a series has exactly this value.
async fn is(hub: &TestHub, series: &str, expected: f64) {
    soon(series, async {
        while value(&hub.metrics().await, series) != Some(expected) {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_stream_is_counted_while_it_is_open_and_after_that() {
    let hub = TestHub::start().await;
    let connection = hub.create("MyDevice").await;
    let arguments = ["--echo", "--transport", "mqtt"];
    let device = TestDevice::start(&hub, &connection, &arguments).await;
    is(&hub, "stream_hub_device_sessions{transport=\"mqtt\"}", 1.0).await;
    let words = ["--session", "never", "MyDevice", "0:echo"];
    let service = TestService::listen(&hub, &words).await;
    let mut client = service.connect().await;
    let sent = vec![7; 100_000];
    let mut back = vec![0; sent.len()];
    let (mut reading, mut writing) = client.split();
    let (read, written) = tokio::join!(
        soon("the echo", reading.read_exact(&mut back)),
        writing.write_all(&sent)
    );
    read.unwrap();
    written.unwrap();
    // Not only when it has ended.
    for direction in ["to_device", "to_service"] {
        let series = format!("stream_hub_relayed_bytes_total{{direction=\"{direction}\"}}");
        assert!(reaches(&hub, &series, 100_000.0).await < 110_000.0);
    }
    let metrics = hub.metrics().await;
    for (series, expected) in [
        ("stream_hub_streams", 1.0),
        ("stream_hub_streams_waiting", 0.0),
        ("stream_hub_streams_established_total", 1.0),
        ("stream_hub_stream_opening_seconds_count", 1.0),
        (
            "stream_hub_stream_requests_total{outcome=\"accepted\"}",
            1.0,
        ),
        (
            "stream_hub_http_requests_total{route=\"stream\",code=\"2xx\"}",
            1.0,
        ),
        (
            "stream_hub_http_requests_total{route=\"leg\",code=\"1xx\"}",
            2.0,
        ),
        ("stream_hub_connections{listener=\"mqtts\"}", 1.0),
        ("stream_hub_limit{limit=\"streams\"}", 20_000.0),
    ] {
        assert_eq!(
            value(&metrics, series),
            Some(expected),
            "{series}\n{metrics}"
        );
    }
    let read = "stream_hub_registry_seconds_count{access=\"read\"}";
    assert!(value(&metrics, read) > Some(0.0), "{metrics}");
    let expires = value(&metrics, "stream_hub_certificate_expiry_timestamp_seconds");
    assert!(expires > Some(common::clock::unix_now() as f64));
    drop(client);
    is(&hub, "stream_hub_streams", 0.0).await;
    is(&hub, "stream_hub_streams_ended_total{end=\"closed\"}", 1.0).await;
    let series = "stream_hub_relayed_bytes_total{direction=\"to_device\"}";
    assert!(value(&hub.metrics().await, series) >= Some(100_000.0));
    device.shut_down().await.unwrap();
    is(&hub, "stream_hub_device_sessions{transport=\"mqtt\"}", 0.0).await;
    is(
        &hub,
        "stream_hub_device_sessions_ended_total{end=\"disconnected\"}",
        1.0,
    )
    .await;
}

#[tokio::test]
async fn what_is_refused_is_counted_by_the_reason() {
    let hub = TestHub::start().await;
    let connection = hub.create("MyDevice").await;
    let other = hub.create("Other").await;
    // The key of another one.
    let wrong = common::connection_string::DeviceConnectionString {
        credential: other.credential,
        ..connection
    };
    let config = tests::device::config(&hub, &wrong, &["--echo"]);
    let running = device_proxy::run(config, CancellationToken::new());
    assert!(soon("the refusal", running).await.is_err());
    is(
        &hub,
        "stream_hub_auth_refused_total{who=\"device\",reason=\"wrong_key\"}",
        1.0,
    )
    .await;
    let api = hub_api(&hub, "device").await;
    let name = StreamName::parse("ssh").unwrap();
    let timeouts = Timeouts {
        connect: Duration::ZERO,
        response: Duration::from_secs(1),
    };
    let refused = api.initiate(&identity("MyDevice"), &name, timeouts).await;
    assert!(refused.is_err());
    is(
        &hub,
        "stream_hub_auth_refused_total{who=\"service\",reason=\"permission\"}",
        1.0,
    )
    .await;
    let api = hub_api(&hub, "service").await;
    let offline = api.initiate(&identity("MyDevice"), &name, timeouts).await;
    assert!(offline.is_err());
    is(
        &hub,
        "stream_hub_stream_requests_total{outcome=\"not_online\"}",
        1.0,
    )
    .await;
    // Nobody speaks TLS like that.
    let mut socket = tokio::net::TcpStream::connect(hub.https).await.unwrap();
    socket.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    is(
        &hub,
        "stream_hub_connections_failed_total{reason=\"tls\"}",
        1.0,
    )
    .await;
}

#[tokio::test]
async fn faults_of_the_registry_are_counted_however_they_come_to_light() {
    let hub = TestHub::start().await;
    let connection = hub.create("whole").await;
    hub.create("damaged").await;
    let database = rusqlite::Connection::open(hub.data_dir().join("hub.db")).unwrap();
    let damage = "UPDATE identities SET primary_credential = '?' WHERE device = 'damaged'";
    assert_eq!(database.execute(damage, []).unwrap(), 1);
    let owner = RawService::with_policy(&hub, "iothubowner").await;
    let status = async |method: Method, path: &str, body: &'static str| {
        let call = owner.call(method, &format!("{path}?api-version=2021-04-12"));
        let call = call.header("content-type", "application/json").body(body);
        let answer = soon("an answer", call.send()).await.unwrap();
        answer.status().as_u16()
    };
    let damaged = "stream_hub_faults_total{kind=\"damaged\"}";
    // Lists go on without it, and it is reported once.
    for _ in 0..2 {
        assert_eq!(status(Method::GET, "/devices", "").await, 200);
        is(&hub, damaged, 1.0).await;
    }
    for count in [2.0, 3.0] {
        assert_eq!(status(Method::GET, "/devices/damaged", "").await, 500);
        is(&hub, damaged, count).await;
    }
    let failed = "stream_hub_faults_total{kind=\"registry\"}";
    is(&hub, failed, 0.0).await;
    let mut device = RawDevice::connect(&hub, &connection).await;
    device.subscribe_twin().await;
    database.execute_batch("DROP TABLE twins").unwrap();
    assert_eq!(status(Method::GET, "/twins/whole", "").await, 500);
    is(&hub, failed, 1.0).await;
    // An item among many, whose failure is in the body,
    let items = r#"[{"id":"whole","importMode":"updateTwin","tags":{"a":1}}]"#;
    assert_eq!(status(Method::POST, "/devices", items).await, 400);
    is(&hub, failed, 2.0).await;
    // and what a device asks.
    device.publish("$iothub/twin/GET/?$rid=1", b"").await;
    let (response, _) = device.twin_response().await;
    assert_eq!(response.status, 500);
    is(&hub, failed, 3.0).await;
}

/// The names of all series, without their values.
async fn series(hub: &TestHub) -> BTreeSet<String> {
    let metrics = hub.metrics().await;
    let lines = metrics.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned()))
        .collect()
}

#[tokio::test]
async fn five_hundred_devices_and_targets_are_no_more_series_than_one() {
    const FLEET: usize = 500;
    let hub = TestHub::start().await;
    let target = Target::start(Behaviour::Echo).await;
    let connection = hub.create("MyDevice").await;
    let arguments = ["--target", &format!("ssh={}", target.address)];
    let _device = TestDevice::start(&hub, &connection, &arguments).await;
    let api = hub_api(&hub, "service").await;
    let wrong = hub_api(&hub, "device").await;
    let timeouts = Timeouts {
        connect: Duration::ZERO,
        response: Duration::from_secs(20),
    };
    let (hub, api, wrong) = (&hub, &api, &wrong);
    // A device that is not there, one that exists, and a target that the device does not have.
    let all_of = async |number: usize| {
        let (id, name) = (format!("device-{number}"), format!("target-{number}"));
        let name = StreamName::parse(&name).unwrap();
        let unknown = api.initiate(&identity(&id), &name, timeouts).await;
        assert!(unknown.is_err());
        hub.create(&id).await;
        let offline = api.initiate(&identity(&id), &name, timeouts).await;
        assert!(offline.is_err());
        let rejected = api.initiate(&identity("MyDevice"), &name, timeouts).await;
        assert!(rejected.is_err());
        if number < 3 {
            let refused = wrong.initiate(&identity(&id), &name, timeouts).await;
            assert!(refused.is_err());
        }
    };
    all_of(0).await;
    let rejected = "stream_hub_stream_requests_total{outcome=\"rejected\"}";
    is(hub, rejected, 1.0).await;
    let before = series(hub).await;
    for number in 1..FLEET {
        all_of(number).await;
    }
    is(hub, rejected, FLEET as f64).await;
    assert_eq!(series(hub).await, before);
    let metrics = hub.metrics().await;
    assert!(!metrics.contains("device-") && !metrics.contains("target-"));
    // Nor does it have their secrets, or what else is of one of them.
    assert!(!metrics.contains("MyDevice") && !metrics.contains("127.0.0.1"));
}

#[tokio::test]
async fn a_hub_is_ready_until_it_stops() {
    let hub = TestHub::start().await;
    assert_eq!(hub.ask("/readyz").await, (200, "ready\n".to_owned()));
    assert_eq!(hub.ask("/healthz").await, (200, "alive\n".to_owned()));
    let connection = hub.create("MyDevice").await;
    let _device = TestDevice::start(&hub, &connection, &["--echo"]).await;
    let words = ["--session", "never", "MyDevice", "0:echo"];
    let service = TestService::listen(&hub, &words).await;
    let mut client = service.connect().await;
    client.write_all(b"x").await.unwrap();
    soon("the echo", client.read_u8()).await.unwrap();
    // A stream that is open has its grace, and the hub can be asked meanwhile.
    let address = hub.admin;
    let asking = async {
        loop {
            let (status, text) = hub.ask("/readyz").await;
            if status != 200 {
                return (status, text);
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    hub.stop();
    let (status, text) = soon("not ready", asking).await;
    assert_eq!((status, &*text), (503, "not ready: the hub is stopping\n"));
    drop(client);
    hub.shut_down().await;
    wait("the admin port's end", || {
        std::net::TcpStream::connect(address).is_err()
    })
    .await;
}
