//! Rules of the protocols below IoT Hub's own: edge cases of HTTP and WebSocket, and parts of the
//! REST API that are not implemented.

use common::clock::unix_now;
use common::identity::Leg;
use common::net::{Dialer, TlsHostStream};
use common::secret::Secret;
use reqwest::Method;
use tests::raw_service::{accepted, refusal, token};
use tests::{RawDevice, RawService, TestHub, soon};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

async fn tls(hub: &TestHub) -> TlsHostStream {
    Dialer::new(&hub.tls())
        .tls("localhost", hub.https.port())
        .await
        .unwrap()
}

/// Sends raw bytes as a request, and reads the head of the response.
async fn head(stream: &mut TlsHostStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    soon("an answer", async {
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
    })
    .await;
    String::from_utf8(head).unwrap().to_lowercase()
}

fn upgrade(path: &str, headers: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    )
}

#[tokio::test]
async fn http_requests_name_their_host() {
    let hub = TestHub::start().await;
    for (headers, status) in [
        ("", "400"),
        ("Host: a\r\nHost: b\r\n", "400"),
        ("Host: localhost\r\n", "401"),
    ] {
        let request = format!("GET /devices HTTP/1.1\r\n{headers}\r\n");
        let head = head(&mut tls(&hub).await, &request).await;
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{head}");
    }
}

#[tokio::test]
async fn other_versions_of_websocket_learn_which_there_is() {
    let hub = TestHub::start().await;
    let leg = format!("/bridges/ih/h/d/d/sid/{}/r/{}", "0".repeat(32), Leg::Device);
    for path in ["/$iothub/websocket", &leg] {
        for version in ["8", "14", "x"] {
            let headers =
                format!("Sec-WebSocket-Version: {version}\r\nSec-WebSocket-Protocol: mqtt\r\n");
            let head = head(&mut tls(&hub).await, &upgrade(path, &headers)).await;
            assert!(head.starts_with("http/1.1 426"), "{head}");
            assert!(head.contains("sec-websocket-version: 13\r\n"), "{head}");
        }
    }
}

#[tokio::test]
async fn a_wrong_method_is_answered_with_the_right_ones() {
    let hub = TestHub::start().await;
    let service = RawService::with_policy(&hub, "iothubowner").await;
    for (method, path, allow) in [
        (Method::PATCH, "/devices", "GET, POST"),
        (Method::POST, "/devices/d", "GET, PUT, DELETE"),
        (Method::PUT, "/devices/d/modules", "GET"),
        (Method::DELETE, "/twins/d", "GET, PATCH, PUT"),
        (Method::GET, "/twins/d/methods", "POST"),
        (Method::DELETE, "/jobs/v2/j", "GET, PUT"),
        (Method::GET, "/jobs/v2/j/cancel", "POST"),
        (Method::GET, "/devices/d/commands", "DELETE"),
        (Method::POST, "/messages/events", "GET"),
        (Method::GET, "/twins/d/streams/s", "POST"),
    ] {
        let answer = service.call(method.clone(), path).send().await.unwrap();
        assert_eq!(answer.status(), 405, "{method} {path}");
        assert_eq!(answer.headers()["allow"], allow, "{method} {path}");
    }
}

const MISSING: [(Method, &str); 10] = [
    (Method::POST, "/jobs/create"),
    (Method::GET, "/jobs"),
    (Method::GET, "/configurations"),
    (Method::PUT, "/configurations/c"),
    (Method::POST, "/configurations/testQueries"),
    (Method::POST, "/devices/d/applyConfigurationContent"),
    (Method::GET, "/digitaltwins/d"),
    (Method::POST, "/devices/d/files"),
    (Method::GET, "/devices/d/messages/deviceBound"),
    (Method::GET, "/devices/d/messages/devicebound"),
];

#[tokio::test]
async fn missing_parts_answer_authorised_callers_with_501() {
    let hub = TestHub::start().await;
    hub.create("d").await;
    let owner = RawService::with_policy(&hub, "iothubowner").await;
    for (method, path) in MISSING {
        let answer = owner.call(method.clone(), path).send().await.unwrap();
        let refused = refusal(answer).await;
        assert_eq!(refused, (501, 501_000), "{method} {path}");
    }
    let answer = owner.call(Method::GET, "/nothing").send().await.unwrap();
    assert_eq!(refusal(answer).await, (404, 404_000));
}

#[tokio::test]
async fn unauthenticated_callers_do_not_learn_which_routes_exist() {
    let hub = TestHub::start().await;
    let device = hub.create("d").await;
    let mut policy = hub.policy("service").await;
    policy.credential =
        common::connection_string::ServiceCredential::Key(common::secret::SharedKey::random());
    let wrong_key = RawService::with_token(&hub, token(&policy, unix_now() + 600));
    let late = RawService::with_token(
        &hub,
        token(&hub.policy("iothubowner").await, unix_now() - 3600),
    );
    let garbage = RawService::with_token(&hub, "SharedAccessSignature sr=x".to_owned());
    let mut other = hub.create("other").await;
    other.identity = device.identity.clone();
    let other = RawService::with_token(&hub, tests::raw_device::password(&other, unix_now() + 600));
    let there = [
        (Method::GET, "/devices/d"),
        (Method::GET, "/nothing"),
        (Method::GET, "/"),
        (Method::GET, "/twins/nobody"),
    ];
    for service in [&wrong_key, &late, &garbage, &other] {
        for (method, path) in MISSING.into_iter().chain(there.clone()) {
            let answer = service.call(method.clone(), path).send().await.unwrap();
            assert_eq!(answer.status(), 401, "{method} {path}");
        }
    }
}

/// A masked frame of a client, final or not.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![
        first,
        0x80 | u8::try_from(payload.len()).unwrap(),
        1,
        2,
        3,
        4,
    ];
    frame.extend(
        payload
            .iter()
            .zip([1, 2, 3, 4].iter().cycle())
            .map(|(a, b)| a ^ b),
    );
    frame
}

/// The code of the next Close; other frames are skipped.
async fn close_code(stream: &mut TlsHostStream) -> u16 {
    soon("a Close", async {
        loop {
            let mut head = [0; 2];
            stream.read_exact(&mut head).await.unwrap();
            let mut payload = vec![0; usize::from(head[1])];
            stream.read_exact(&mut payload).await.unwrap();
            if head[0] == 0x88 {
                return u16::from_be_bytes([payload[0], payload[1]]);
            }
        }
    })
    .await
}

/// A service's leg of an accepted stream, after the upgrade.
async fn leg(hub: &TestHub, url: &str, token: &Secret) -> TlsHostStream {
    let path = &url[url.find("/bridges").unwrap()..];
    let headers = format!(
        "Sec-WebSocket-Version: 13\r\nAuthorization: Bearer {}\r\n",
        token.expose()
    );
    let mut stream = tls(hub).await;
    let head = head(&mut stream, &upgrade(path, &headers)).await;
    assert!(head.starts_with("http/1.1 101"), "{head}");
    stream
}

#[tokio::test]
async fn broken_websocket_rules_have_their_codes() {
    let hub = TestHub::start().await;
    let connection = hub.create("d").await;
    let mut device = RawDevice::connect(&hub, &connection).await;
    let service = RawService::new(&hub).await;
    let reason = [&1000u16.to_be_bytes()[..], b"a\xFFb"].concat();
    let cases: [(&str, Vec<Vec<u8>>, u16); 7] = [
        ("text", vec![frame(0x81, b"\xCE\xBA\xED\xA0\x80")], 1007),
        ("the first fragment", vec![frame(0x01, b"a\xFF")], 1007),
        (
            "a character torn apart",
            vec![frame(0x01, b"\xF4"), frame(0x00, b"\x90")],
            1007,
        ),
        ("an unfinished character", vec![frame(0x81, b"a\xC3")], 1007),
        ("the reason of a Close", vec![frame(0x88, &reason)], 1007),
        ("a reserved opcode", vec![frame(0x83, b"")], 1002),
        ("half a code", vec![frame(0x88, b"\x03")], 1002),
    ];
    for (what, frames, code) in cases {
        let (response, _) = tokio::join!(service.initiate("d", "s", 5.0, 5.0), async {
            let request = device.request().await;
            device.answer(&request, true).await;
        });
        let (url, token) = accepted(&response);
        let mut stream = leg(&hub, &url, &token).await;
        stream.write_all(&frames.concat()).await.unwrap();
        assert_eq!(close_code(&mut stream).await, code, "{what}");
    }
}

#[tokio::test]
async fn broken_rules_of_mqtt_end_its_websocket_with_1002() {
    let hub = TestHub::start().await;
    let headers = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n";
    for bytes in [
        frame(0x82, b"\x00\x00"),
        frame(0x82, b"\xC0\x00"),
        frame(0x81, b"text"),
        frame(0x83, b""),
    ] {
        let mut stream = tls(&hub).await;
        let head = head(&mut stream, &upgrade("/$iothub/websocket", headers)).await;
        assert!(head.starts_with("http/1.1 101"), "{head}");
        stream.write_all(&bytes).await.unwrap();
        assert_eq!(close_code(&mut stream).await, 1002, "{bytes:?}");
    }
}

/// A header of AMQP 1.0 and a minimal Open.
const AMQP_OPEN: &[u8] = b"AMQP\0\x01\0\0\0\0\0\x10\x02\0\0\0\0\x53\x10\xc0\x03\x01\xa1\0";

#[tokio::test]
async fn clients_of_amqp_read_that_it_is_not_there() {
    use futures_util::{SinkExt as _, StreamExt as _};
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

    let hub = TestHub::start().await;
    let config = hub.tls();
    let mut stream = Dialer::new(&config)
        .tls("localhost", hub.amqps.port())
        .await
        .unwrap();
    stream.write_all(AMQP_OPEN).await.unwrap();
    let says_so = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        text.contains("amqp:not-implemented") && text.contains("MQTT")
    };
    let mut all = Vec::new();
    soon("words over TCP", async {
        while !says_so(&all) {
            assert_ne!(stream.read_buf(&mut all).await.unwrap(), 0);
        }
    })
    .await;
    let mut request = format!("wss://localhost:{}/$iothub/websocket", hub.https.port())
        .into_client_request()
        .unwrap();
    let name = "AMQPWSB10".parse().unwrap();
    request.headers_mut().insert("Sec-WebSocket-Protocol", name);
    let stream = tls(&hub).await;
    let (mut socket, answer) = tokio_tungstenite::client_async(request, stream)
        .await
        .unwrap();
    assert_eq!(answer.headers()["sec-websocket-protocol"], "AMQPWSB10");
    let open = Message::binary(AMQP_OPEN);
    socket.send(open).await.unwrap();
    let mut all = Vec::new();
    soon("words over WebSocket", async {
        while !says_so(&all) {
            all.extend_from_slice(&socket.next().await.unwrap().unwrap().into_data());
        }
    })
    .await;
}
