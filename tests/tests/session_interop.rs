//! Session mode with peers that do not support it, that are configured not to use it, or that
//! report it and do not support it.

use bytes::Bytes;
use common::connection_string::DeviceConnectionString;
use common::wire::stream::StreamRequest;
use tests::messages::send;
use tests::raw_device::{DeviceLeg, echo};
use tests::raw_service::accepted;
use tests::service::wait_for_report;
use tests::session_setup::{break_off, reset};
use tests::target::Behaviour;
use tests::{RawDevice, RawService, Target, TestDevice, TestHub, TestService, logs, soon, wait};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A hub with a device of this name, for the logs.
async fn hub_with(id: &str) -> (TestHub, DeviceConnectionString) {
    logs::keep();
    let hub = TestHub::start().await;
    let connection = hub.create(id).await;
    (hub, connection)
}

/// Checks that bytes are echoed.
async fn echoes(mut socket: TcpStream) -> TcpStream {
    let mut back = [0; 5];
    socket.write_all(b"hello").await.unwrap();
    soon("the echo", socket.read_exact(&mut back))
        .await
        .unwrap();
    assert_eq!(&back, b"hello");
    socket
}

/// Behaviours of a device that reports session mode and does not support it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pretender {
    Silent,
    Banner,
    Rejects,
    ClosesAtOnce,
    NeverComes,
}

impl Pretender {
    /// Answers a request for a session's stream; returns what must stay open.
    async fn respond(self, device: &mut RawDevice, request: &StreamRequest) -> Option<DeviceLeg> {
        if self == Self::Rejects {
            device.answer(request, false).await;
            return None;
        }
        device.answer(request, true).await;
        if self == Self::NeverComes {
            return None;
        }
        let mut leg = device.leg(request).await;
        match self {
            Self::Silent => Some(leg),
            Self::Banner => {
                let banner = Bytes::from_static(b"SSH-2.0-OpenSSH_9.2\r\n");
                send(&mut leg, banner).await;
                Some(leg)
            }
            _ => None,
        }
    }

    /// Whether this message names the fault.
    fn is_shown_in(self, text: &str) -> bool {
        let shown = match self {
            Self::Silent | Self::NeverComes => "said nothing within 10 s",
            Self::Banner => "does not speak session mode: it sent \"SSH-2.0-OpenSSH_9.2",
            Self::Rejects => "rejected",
            // Depends on whether the service's leg was there first.
            Self::ClosesAtOnce if text.contains("the stream was closed") => return true,
            Self::ClosesAtOnce => "the WebSocket upgrade with 401",
        };
        text.contains(shown)
    }
}

/// A connection to a device that reports session mode wrongly succeeds soon all the same, and the
/// next one need not detect it again.
async fn falls_back(id: &str, pretender: Pretender) {
    let (hub, connection) = hub_with(id).await;
    let mut device = RawDevice::connect(&hub, &connection).await;
    device.report_sessions().await;
    let service = TestService::listen(&hub, &[id, "0:x"]).await;
    let first = tokio::spawn(echoes(service.connect().await));
    let request = device.request().await;
    assert_eq!(request.name, "_session.x");
    let kept = pretender.respond(&mut device, &request).await;
    let request = device.request().await;
    assert_eq!(request.name, "x");
    device.answer(&request, true).await;
    let echo_first = tokio::spawn(echo(device.leg(&request).await));
    let first = first.await.unwrap();
    drop(kept);

    let second = tokio::spawn(echoes(service.connect().await));
    let request = device.request().await;
    assert_eq!(request.name, "x", "it is known by now");
    device.answer(&request, true).await;
    let echo_second = tokio::spawn(echo(device.leg(&request).await));
    let second = second.await.unwrap();
    // A plain stream lingers after an orderly end; the test does not wait for that.
    break_off(first);
    break_off(second);
    soon("the echoes' ends", async {
        tokio::join!(echo_first, echo_second)
    })
    .await
    .0
    .unwrap();

    let of_device = format!("device={id} name=");
    let warnings = logs::lines(&["WARN", "session mode", &of_device]);
    let may_be_unknown = match pretender {
        // The target may not exist there; the fallback is not remembered for an hour.
        Pretender::Rejects => true,
        Pretender::ClosesAtOnce => warnings.is_empty(),
        _ => false,
    };
    if may_be_unknown {
        assert!(warnings.is_empty(), "{warnings:?}");
        return;
    }
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("the device reports session mode, but: "));
    assert!(pretender.is_shown_in(&warnings[0]), "{warnings:?}");
    let time = match pretender {
        Pretender::Silent | Pretender::NeverComes => "5 s",
        _ => "60 min",
    };
    let shown = format!("; using plain streams for {time}");
    assert!(warnings[0].contains(&shown), "{warnings:?}");
}

/// With `--session always` the client is reset, and the reason is logged.
async fn names_the_fault(id: &str, pretender: Pretender) {
    let (hub, connection) = hub_with(id).await;
    let mut device = RawDevice::connect(&hub, &connection).await;
    let service = TestService::listen(&hub, &["--session", "always", id, "0:x"]).await;
    let mut socket = service.connect().await;
    let request = device.request().await;
    assert_eq!(request.name, "_session.x");
    let _kept = pretender.respond(&mut device, &request).await;
    reset(&mut socket).await;
    let why = logs::line(&["WARN", "peer=", &format!("stream to {id} (x)")]).await;
    assert!(pretender.is_shown_in(&why), "{why}");
}

#[tokio::test]
async fn a_silent_pretender() {
    falls_back("silent", Pretender::Silent).await;
    names_the_fault("silent-always", Pretender::Silent).await;
}

#[tokio::test]
async fn a_pretender_that_sends_a_banner() {
    falls_back("banner", Pretender::Banner).await;
    names_the_fault("banner-always", Pretender::Banner).await;
}

#[tokio::test]
async fn a_pretender_that_rejects() {
    falls_back("rejects", Pretender::Rejects).await;
    names_the_fault("rejects-always", Pretender::Rejects).await;
}

#[tokio::test]
async fn a_pretender_that_closes_at_once() {
    falls_back("closes", Pretender::ClosesAtOnce).await;
    names_the_fault("closes-always", Pretender::ClosesAtOnce).await;
}

#[tokio::test]
async fn a_pretender_that_accepts_and_never_comes() {
    falls_back("never-comes", Pretender::NeverComes).await;
    names_the_fault("never-comes-always", Pretender::NeverComes).await;
}

#[tokio::test]
async fn a_stock_device_is_never_asked_for_a_session() {
    let (hub, connection) = hub_with("stock").await;
    let mut device = RawDevice::connect(&hub, &connection).await;
    let service = TestService::listen(&hub, &["stock", "0:x"]).await;
    for _ in 0..3 {
        let talking = tokio::spawn(echoes(service.connect().await));
        let request = device.request().await;
        assert_eq!(request.name, "x");
        device.answer(&request, true).await;
        let leg = tokio::spawn(echo(device.leg(&request).await));
        break_off(talking.await.unwrap());
        soon("the echo's end", leg).await.unwrap();
    }
}

#[tokio::test]
async fn a_service_without_sessions_asks_for_none() {
    let (hub, connection) = hub_with("never-here").await;
    let mut device = RawDevice::connect(&hub, &connection).await;
    device.report_sessions().await;
    let options = ["--session", "never", "never-here", "0:x"];
    let service = TestService::listen(&hub, &options).await;
    let talking = tokio::spawn(echoes(service.connect().await));
    let request = device.request().await;
    assert_eq!(request.name, "x");
    device.answer(&request, true).await;
    let _leg = tokio::spawn(echo(device.leg(&request).await));
    talking.await.unwrap();
}

#[tokio::test]
async fn a_device_without_sessions_takes_plain_streams_only() {
    let (hub, connection) = hub_with("never-there").await;
    let target = Target::start(Behaviour::Echo).await;
    let option = format!("never-there={}", target.address);
    let options = ["--target", &option, "--session", "never"];
    let _device = TestDevice::start(&hub, &connection, &options).await;
    let service = TestService::listen(&hub, &["never-there", "0:never-there"]).await;
    for _ in 0..3 {
        echoes(service.connect().await).await;
    }
    let asked = logs::lines(&["session mode may not be used", "_session.never-there"]);
    assert!(asked.is_empty(), "{asked:?}");
    // Asked all the same, it refuses.
    let options = ["--session", "always", "never-there", "0:never-there"];
    let service = TestService::listen(&hub, &options).await;
    reset(&mut service.connect().await).await;
    logs::line(&["session mode may not be used", "_session.never-there"]).await;
    logs::line(&["WARN", "stream to never-there (never-there)", "rejected"]).await;
}

#[tokio::test]
async fn a_device_that_wants_sessions_only_rejects_plain_streams() {
    let (hub, connection) = hub_with("always-there").await;
    let options = ["--echo", "--session", "always"];
    let _device = TestDevice::start(&hub, &connection, &options).await;
    let service = TestService::listen(&hub, &["--session", "never", "always-there", "0"]).await;
    reset(&mut service.connect().await).await;
    logs::line(&["plain streams may not be used"]).await;
    // In sessions the target can be reached.
    wait_for_report(&hub, "always-there", |report| report.is_some()).await;
    let service = TestService::listen(&hub, &["always-there", "0"]).await;
    echoes(service.connect().await).await;
}

#[tokio::test]
async fn both_ends_as_they_are_use_one_stream_for_many_connections() {
    let (hub, connection) = hub_with("auto").await;
    let _device = TestDevice::start(&hub, &connection, &["--echo"]).await;
    wait_for_report(&hub, "auto", |report| report.is_some()).await;
    let service = TestService::listen(&hub, &["auto", "0"]).await;
    let mut sockets = Vec::new();
    for _ in 0..8 {
        sockets.push(echoes(service.connect().await).await);
    }
    assert_eq!(hub.state.legs.count(), 1);
    let options = ["--session", "never", "auto", "0"];
    let plain = TestService::listen(&hub, &options).await;
    for _ in 0..2 {
        sockets.push(echoes(plain.connect().await).await);
    }
    assert_eq!(hub.state.legs.count(), 3);
    // When one port without connections stops, its sessions end in an orderly way.
    sockets.into_iter().for_each(break_off);
    wait("the plain streams' ends", || hub.state.legs.count() == 1).await;
    service.shut_down().await;
    wait("the session's end", || hub.state.legs.count() == 0).await;
    assert!(
        logs::lines(&["session closed", "connections=", "name=TestStream"]).len() == 1,
        "{:?}",
        logs::lines(&["session"])
    );
}

#[tokio::test]
async fn a_device_restarted_without_sessions_is_detected() {
    let (hub, connection) = hub_with("changed").await;
    let first = TestDevice::start(&hub, &connection, &["--echo"]).await;
    wait_for_report(&hub, "changed", |report| report.is_some()).await;
    let service = TestService::listen(&hub, &["changed", "0"]).await;
    drop(echoes(service.connect().await).await);
    first.shut_down().await.unwrap();
    // The service still trusts the first report; the refusal corrects that.
    let options = ["--echo", "--session", "never"];
    let _second = TestDevice::start(&hub, &connection, &options).await;
    echoes(service.connect().await).await;
    let raw = RawService::new(&hub).await;
    accepted(&raw.initiate("changed", "x", 5.0, 5.0).await);
}
