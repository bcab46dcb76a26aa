//! Unauthenticated peers that send garbage, nothing, or too much: each is disconnected, and a
//! device that is connected meanwhile is not disturbed.

use std::io::{Read as _, Write as _};

use common::clock::unix_now;
use common::identity::DeviceIdentity;
use common::limits;
use common::mqtt::{Packet, packet};
use common::net::Dialer;
use hub::limits::Limits;
use tests::{RawDevice, RawService, TestHub, raw_service, soon};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Duration;

async fn bystander(hub: &TestHub) -> (RawDevice, DeviceIdentity) {
    let connection = hub.create("bystander").await;
    let device = RawDevice::connect(hub, &connection).await;
    (device, connection.identity)
}

async fn is_well(device: &mut RawDevice) {
    let ping = packet::Pingreq::builder().build().unwrap();
    device.io.write(&ping.to_continuous_buffer()).await.unwrap();
    assert!(matches!(device.packet().await, Packet::Pingresp));
}

/// Reads to the end; a reset counts as an end.
async fn read_all<S: tokio::io::AsyncRead + Unpin>(stream: &mut S) -> Vec<u8> {
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all).await;
    all
}

#[tokio::test]
async fn garbage_on_each_port() {
    let hub = TestHub::start().await;
    let (mut device, _) = bystander(&hub).await;
    for (port, is_http) in [(hub.https.port(), true), (hub.mqtts.port(), false)] {
        // Without TLS: an alert at most, whose record is 7 bytes (RFC 8446, 6),
        let mut plain = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        plain.write_all(&[0x55; 4096]).await.unwrap();
        let alert = soon("the end", read_all(&mut plain)).await;
        assert!(
            alert.is_empty() || (alert[0] == 21 && alert.len() == 7),
            "{alert:?}"
        );
        // and inside it: a refusal from HTTP, nothing from MQTT.
        let mut inside = Dialer::new(&hub.tls())
            .tls("localhost", port)
            .await
            .unwrap();
        let _ = inside.write_all(&[0x55; 64 << 10]).await;
        let _ = inside.flush().await;
        let answer = soon("the end", read_all(&mut inside)).await;
        let is_refusal = is_http && answer.starts_with(b"HTTP/1.1 4");
        assert!(answer.is_empty() || is_refusal, "{}", answer.escape_ascii());
    }
    is_well(&mut device).await;
}

#[tokio::test]
async fn silent_connections_are_closed() {
    let hub = TestHub::start_with(Limits {
        handshake: Duration::from_secs(3),
        ..Limits::default()
    })
    .await;
    let (mut device, _) = bystander(&hub).await;
    let (https, mqtts, tls) = (hub.https.port(), hub.mqtts.port(), hub.tls());
    let silent = async |port| {
        let mut plain = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let mut inside = Dialer::new(&tls).tls("localhost", port).await.unwrap();
        tokio::join!(read_all(&mut plain), read_all(&mut inside));
    };
    let both = async { tokio::join!(silent(https), silent(mqtts)) };
    soon("the ends of the silent connections", both).await;
    is_well(&mut device).await;
}

#[tokio::test]
async fn oversized_http_head_and_body() {
    let hub = TestHub::start().await;
    let service = RawService::with_policy(&hub, "iothubowner").await;
    let huge = "x".repeat(2 * limits::HTTP_HEAD);
    let head = service
        .call(reqwest::Method::GET, "/devices?api-version=x")
        .header("x-filler", huge)
        .send()
        .await;
    // Refused with a status, or cut off while it was still sending.
    assert!(head.is_err() || head.unwrap().status() == 431);
    let body = service
        .call(reqwest::Method::POST, "/devices?api-version=x")
        .body(vec![b' '; hub::limits::HTTP_BODY + 1])
        .send()
        .await
        .unwrap();
    assert_eq!(tests::raw_service::refusal(body).await, (413, 413_001));
    let fine = service
        .call(reqwest::Method::GET, "/devices?api-version=x")
        .send()
        .await;
    assert_eq!(fine.unwrap().status(), 200);
}

#[tokio::test]
async fn oversized_mqtt_packets() {
    let hub = TestHub::start().await;
    let (mut device, _) = bystander(&hub).await;
    // A first packet that declares more than any CONNECT can have.
    let mut stranger = RawDevice::open(&hub).await;
    stranger
        .io
        .write(&[0x10, 0xff, 0xff, 0xff, 0x7f])
        .await
        .unwrap();
    stranger.ended().await;
    // A known device that sends more than a message may contain.
    let connection = hub.create("d").await;
    let mut known = RawDevice::connect(&hub, &connection).await;
    let publish = packet::Publish::builder()
        .topic_name("devices/d/messages/events/")
        .unwrap()
        .payload(vec![0u8; limits::MQTT_PACKET])
        .build()
        .unwrap();
    let _ = known.io.write(&publish.to_continuous_buffer()).await;
    known.ended().await;
    is_well(&mut device).await;
}

#[tokio::test]
async fn mqtt_upgrades_must_be_what_they_say() {
    let hub = TestHub::start().await;
    let service = RawService::new(&hub).await;
    let upgrade = |path: &str| {
        service
            .call(reqwest::Method::GET, path)
            .header("Upgrade", "websocket")
            .header("Connection", "Upgrade")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header("Sec-WebSocket-Version", "13")
    };
    let none = upgrade("/$iothub/websocket").send().await.unwrap();
    assert_eq!(none.status(), 400, "no subprotocol");
    let other = upgrade("/$iothub/websocket").header("Sec-WebSocket-Protocol", "chat");
    assert_eq!(
        other.send().await.unwrap().status(),
        400,
        "another subprotocol"
    );
    let plain = service
        .call(reqwest::Method::GET, "/$iothub/websocket")
        .send()
        .await
        .unwrap();
    assert_eq!(plain.status(), 400, "no upgrade");
    for spelling in ["mqtt", "MQTT"] {
        let good = upgrade("/$iothub/websocket?x=y").header("Sec-WebSocket-Protocol", spelling);
        let answer = good.send().await.unwrap();
        assert_eq!(answer.status(), 101);
        assert_eq!(answer.headers()["Sec-WebSocket-Protocol"], spelling);
        assert_eq!(
            answer.headers()["Sec-WebSocket-Accept"],
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
        assert!(!answer.headers().contains_key("Sec-WebSocket-Extensions"));
    }
}

/// A client with a large request sends it in the same moment as the end of its handshake.
#[tokio::test]
async fn a_first_request_may_be_large() {
    let hub = TestHub::start().await;
    let connection = hub.policy("service").await;
    let token = raw_service::token(&connection, unix_now() + 3600);
    let body = format!(
        "{{\"query\":\"SELECT * FROM devices\"{}}}",
        " ".repeat(60_000)
    );
    let request = format!(
        "POST /devices/query HTTP/1.1\r\nHost: localhost\r\nAuthorization: {token}\r\n\
         Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let (tls, port) = (hub.tls(), hub.https.port());
    let exchange = tokio::task::spawn_blocking(move || {
        let name = "localhost".try_into().unwrap();
        let mut client = rustls::ClientConnection::new(tls, name).unwrap();
        client.writer().write_all(request.as_bytes()).unwrap();
        let mut socket = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let mut answer = Vec::new();
        rustls::Stream::new(&mut client, &mut socket)
            .read_to_end(&mut answer)
            .map(|_| answer)
    });
    let answer = soon("the answer", exchange).await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&answer);
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
}
