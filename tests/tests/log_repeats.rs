//! Repeated log lines are summed up: the first few are written as usual, and the number of the
//! others is exact, also at the end of the program.
#![cfg(unix)]

use common::clock::unix_now;
use common::connection_string::{DeviceConnectionString, ServiceConnectionString};
use common::mqtt::ConnectReturnCode;
use reqwest::Method;
use tests::program_hub::ProgramHub;
use tests::programs::Program;
use tests::raw_device::password;
use tests::{RawDevice, RawHub, RawService, raw_hub, raw_service, soon, wait};
use tokio::io::AsyncReadExt as _;
#[cfg(target_os = "linux")]
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

/// Log lines about events with all of these fields: the number of lines, and of events.
fn summed(output: &str, parts: &[&str]) -> (usize, usize) {
    let lines = output
        .lines()
        .filter(|line| parts.iter().all(|part| line.contains(part)));
    let numbers = lines.map(|line| match line.split_once(" repeated=") {
        Some((_, rest)) => rest.split(' ').next().unwrap().parse().unwrap(),
        None => 1,
    });
    numbers.fold((0, 0), |(lines, sum), number: usize| {
        (lines + 1, sum + number)
    })
}

/// The first five, and one line for each minute that the test may take.
const HANDFUL: usize = 8;

/// The program's whole log, after SIGTERM.
async fn ended(program: &mut Program) -> String {
    program.terminate();
    let (_, output) = program.ended().await;
    assert!(!output.contains("lines were lost"), "{output}");
    output
}

#[tokio::test]
async fn thousands_of_refusals_and_rejected_streams_are_a_handful_of_lines() {
    let mut hub = ProgramHub::start_quiet().await;
    let connection = hub.admin(&["device", "create", "MyDevice"]);
    let key = DeviceConnectionString::parse(&connection).unwrap();
    let policy = hub.admin(&["policy", "connection-string", "service"]);
    let policy = ServiceConnectionString::parse(&policy).unwrap();
    let mut device = Program::start(
        "device-proxy",
        &["--target", "ssh=localhost:22", "--ca-file", &hub.ca_file()],
        &[("IOTHUB_DEVICE_CONNECTION_STRING", &connection)],
    );
    device.line("connected; streams reach").await;

    // Each request on a connection of its own: a connection that is refused repeatedly is closed,
    // and in the end its address is answered late.
    let refused = 60;
    for _ in 0..refused {
        let stranger = RawService::at(hub.https, hub.tls(), "nonsense".into());
        let asked = stranger.call(Method::GET, "/devices?api-version=2020-09-30");
        let answer = soon("an answer", asked.send()).await.unwrap();
        assert_eq!(answer.status(), 401);
    }

    // A device with a wrong key, and one that reconnects again and again.
    for _ in 0..20 {
        let mut wrong = RawDevice::at(hub.mqtts, hub.tls()).await;
        let verdict = wrong
            .hello(&key, "SharedAccessSignature sr=x&sig=x&se=1")
            .await;
        assert_eq!(verdict, ConnectReturnCode::NotAuthorized);
    }
    let other = hub.admin(&["device", "create", "Other"]);
    let other = DeviceConnectionString::parse(&other).unwrap();
    for _ in 0..20 {
        let mut right = RawDevice::at(hub.mqtts, hub.tls()).await;
        let verdict = right
            .hello(&other, &password(&other, unix_now() + 60))
            .await;
        assert_eq!(verdict, ConnectReturnCode::Accepted);
    }

    // Streams that the device rejects, of a service and of a service-proxy.
    let token = raw_service::token(&policy, unix_now() + 3600);
    let requests = (0..8).map(|_| {
        let service = RawService::at(hub.https, hub.tls(), token.clone());
        async move {
            for _ in 0..125 {
                let answer = service.initiate("MyDevice", "nothing", 10.0, 10.0).await;
                assert_eq!(answer.headers()["iothub-streaming-is-accepted"], "False");
            }
        }
    });
    futures_util::future::join_all(requests).await;
    let arguments = ["--session", "never", "listen", "MyDevice", "0:nothing"];
    let (mut service, port) = hub.service(&arguments).await;
    for _ in 0..100 {
        let mut client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let end = soon("the end", client.read(&mut [0])).await;
        assert!(!end.is_ok_and(|count| count > 0));
    }

    let output = ended(&mut service).await;
    let (lines, sum) = summed(&output, &["WARN", "the device rejected it"]);
    assert!((6..=HANDFUL).contains(&lines), "{output}");
    assert_eq!(sum, 100, "{output}");

    let output = ended(&mut device).await;
    let (lines, sum) = summed(&output, &["WARN", "rejected a stream: no target", "name="]);
    assert!((6..=HANDFUL).contains(&lines), "{output}");
    assert_eq!(sum, 1_100, "{output}");

    let output = ended(&mut hub.program).await;
    for (parts, right) in [
        (
            ["WARN", "request of a service refused", "peer=127.0.0.1"],
            refused,
        ),
        (
            ["WARN", "CONNECT of MyDevice refused", "peer=127.0.0.1"],
            20,
        ),
        (["INFO", "stream rejected", "device=MyDevice"], 1_100),
    ] {
        let (lines, sum) = summed(&output, &parts);
        assert!((6..=HANDFUL).contains(&lines), "{parts:?}\n{output}");
        assert_eq!(sum, right, "{parts:?}\n{output}");
    }
    // Each successful connection is in the log.
    for what in ["device connected", "device disconnected"] {
        let (lines, sum) = summed(&output, &[what, "device=Other"]);
        assert_eq!((lines, sum), (20, 20), "{output}");
    }
}

#[tokio::test]
async fn malformed_stream_requests_are_summed_up() {
    let hub = RawHub::start().await;
    let connection =
        "HostName=localhost;DeviceId=MyDevice;SharedAccessKey=AAECAwQFBgcICQoLDA0ODw==";
    let mut device = Program::start(
        "device-proxy",
        &[
            "--echo",
            "--transport",
            "mqtt",
            "--mqtts-port",
            &hub.mqtts_port().to_string(),
            "--ca-file",
            hub.ca_file().to_str().unwrap(),
        ],
        &[("IOTHUB_DEVICE_CONNECTION_STRING", connection)],
    );
    let mut io = hub.device().await.unwrap();
    for number in 0..3_000 {
        let topic = format!("$iothub/streams/POST/name-{number}/?$rid=1");
        io.write(&raw_hub::publish(topic.as_bytes())).await.unwrap();
    }
    io.write(&raw_hub::publish(b"$iothub/streams/POST/last"))
        .await
        .unwrap();
    // Another message is not suppressed by those before it.
    device.line("does not have five levels").await;
    let malformed = "ignored a malformed stream request: the stream request has no";
    wait("the first lines", || device.count(malformed) == 5).await;
    let output = ended(&mut device).await;
    let (lines, sum) = summed(&output, &["WARN", malformed]);
    assert!((6..=HANDFUL).contains(&lines), "{output}");
    assert_eq!(sum, 3_000, "{output}");
}

/// A host with many addresses does not take up the table of peers for ever.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn strangers_from_many_addresses_are_counted_together() {
    let mut hub = ProgramHub::start_quiet().await;
    let tls = tokio_rustls::TlsConnector::from(hub.tls());
    let strangers = 150u8;
    for number in 0..strangers {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 1, number], 0).into()).unwrap();
        let to = ([127, 0, 0, 1], hub.https).into();
        let socket = soon("a connection", socket.connect(to)).await.unwrap();
        let name = "localhost".try_into().unwrap();
        let mut stream = soon("TLS", tls.connect(name, socket)).await.unwrap();
        let request = "GET /devices?api-version=2020-09-30 HTTP/1.1\r\nHost: localhost\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut status = [0; 12];
        soon("an answer", stream.read_exact(&mut status))
            .await
            .unwrap();
        assert_eq!(&status, b"HTTP/1.1 401");
    }
    let output = ended(&mut hub.program).await;
    let refused = "request of a service refused";
    let (lines, sum) = summed(&output, &[refused]);
    assert_eq!(sum, usize::from(strangers), "{output}");
    assert!((60..=70).contains(&lines), "{lines}\n{output}");
    let (_, others) = summed(&output, &[refused, "(and others like it) repeated="]);
    assert!(others >= 80, "{others}\n{output}");
}
