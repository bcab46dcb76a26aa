//! A ClientHello may come in as many records and segments as its client likes (CVE-2026-24904: a rule
//! that looked at the first piece alone did not see it). The hub judges nothing before it is whole: the
//! client is treated as any other, and so is one that never finishes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use common::clock::unix_now;
use common::connection_string::{DeviceConnectionString, DeviceCredential};
use common::mqtt::{ConnectReturnCode, Packet, PacketIo};
use common::tls::ClientIdentity;
use hub::auth::fingerprints;
use hub::limits::Limits;
use hub::registry::{Authentication, Thumbprint};
use rcgen::{CertificateParams, KeyPair};
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use tests::raw_device::{connect_packet, password};
use tests::{RawDevice, TestHub, raw_service, soon};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Duration, sleep};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How a client's handshake is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// As usual: the ClientHello is in one record.
    Whole,
    /// 27 bytes of it in each record, which is the least of this client.
    Records,
    /// The same, and each byte in a segment of its own.
    Bytes,
}

const CUTS: [Cut; 3] = [Cut::Whole, Cut::Records, Cut::Bytes];

impl Cut {
    fn config(self, hub: &TestHub, identity: Option<&ClientIdentity>) -> Arc<ClientConfig> {
        let config = common::tls::client_config(Some(&hub.ca_file()), identity).unwrap();
        let mut config = (*config).clone();
        // Each handshake is a whole one.
        config.resumption = Resumption::disabled();
        config.max_fragment_size = (self != Self::Whole).then_some(32);
        Arc::new(config)
    }

    async fn connect(
        self,
        hub: &TestHub,
        port: u16,
        identity: Option<&ClientIdentity>,
    ) -> TlsStream<Socket> {
        let tcp = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let socket = Socket {
            tcp,
            most: if self == Self::Bytes { 1 } else { usize::MAX },
        };
        let connector = TlsConnector::from(self.config(hub, identity));
        let name = ServerName::try_from("localhost").unwrap();
        let connecting = connector.connect(name, socket);
        soon("a handshake", connecting).await.unwrap()
    }
}

/// A connection that sends so many bytes at once.
struct Socket {
    tcp: TcpStream,
    most: usize,
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let most = self.most.min(bytes.len());
        Pin::new(&mut self.tcp).poll_write(cx, &bytes[..most])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

/// A device's own certificate in files.
struct Own {
    _folder: tempfile::TempDir,
    identity: ClientIdentity,
    thumbprint: Thumbprint,
}

impl Own {
    fn make() -> Self {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["device".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: String| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let identity = ClientIdentity {
            certificate: file("cert.pem", certificate.pem()),
            key: file("key.pem", key.serialize_pem()),
        };
        let [print, _] = fingerprints(certificate.der());
        Self {
            _folder: folder,
            identity,
            thumbprint: Thumbprint::parse(&print).unwrap(),
        }
    }
}

/// What the hub answers to a request: the status, and whether it wants credentials.
async fn status(stream: &mut TlsStream<Socket>, path: &str, token: Option<&str>) -> String {
    let authorization = token.map_or_else(String::new, |it| format!("Authorization: {it}\r\n"));
    let request = format!(
        "GET {path}?api-version=2021-04-12 HTTP/1.1\r\nHost: localhost\r\n{authorization}Connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = String::new();
    let _ = soon("an answer", stream.read_to_string(&mut answer)).await;
    let line = answer.lines().next().unwrap_or_default();
    line.trim_start_matches("HTTP/1.1 ").to_owned()
}

/// What the hub answers to CONNECT.
async fn connack(stream: TlsStream<Socket>, connect: &[u8]) -> ConnectReturnCode {
    let mut io = PacketIo::new(stream, 1 << 20);
    io.write(connect).await.unwrap();
    match soon("a packet", io.read()).await {
        Ok(Some(Packet::Connack(answer))) => answer.return_code(),
        other => panic!("{other:?} instead of CONNACK"),
    }
}

#[tokio::test]
async fn a_client_hello_in_pieces_opens_what_another_opens_and_nothing_else() {
    let hub = TestHub::start().await;
    let keys = hub.create("keys").await;
    let (own, other) = (Own::make(), Own::make());
    let proof = |own: &Own| Authentication::SelfSigned {
        primary: Some(own.thumbprint.clone()),
        secondary: None,
    };
    let device = hub.create_with("d", proof(&own)).await;
    hub.create_with("e", proof(&other)).await;
    let token = raw_service::token(&hub.policy("iothubowner").await, unix_now() + 600);
    let of_other = DeviceConnectionString {
        credential: DeviceCredential::X509,
        ..keys.clone()
    };
    for cut in CUTS {
        // HTTPS, with nothing, with a token, and with certificates.
        for (identity, path, token, expected) in [
            (None, "/devices", None, "401 Unauthorized"),
            (None, "/devices", Some(token.as_str()), "200 OK"),
            (None, "/devices/d/modules", None, "401 Unauthorized"),
            (Some(&own), "/devices/d/modules", None, "200 OK"),
            (Some(&other), "/devices/d/modules", None, "401 Unauthorized"),
            (Some(&own), "/devices/e/modules", None, "401 Unauthorized"),
            (Some(&own), "/devices", None, "401 Unauthorized"),
        ] {
            let identity = identity.map(|own| &own.identity);
            let mut stream = cut.connect(&hub, hub.https.port(), identity).await;
            let status = status(&mut stream, path, token).await;
            assert_eq!(status, expected, "{cut:?} {path}");
        }
        // MQTT, by key and by certificate.
        let good = connect_packet(&keys, &password(&keys, unix_now() + 600), true);
        let bad = connect_packet(&keys, &password(&keys, unix_now() - 3_600), true);
        let by_certificate = connect_packet(&device, "", true);
        let of_another = connect_packet(&of_other, "", true);
        use ConnectReturnCode::{Accepted, NotAuthorized};
        for (identity, connect, expected) in [
            (None, &good, Accepted),
            (None, &bad, NotAuthorized),
            (Some(&own), &by_certificate, Accepted),
            (Some(&other), &by_certificate, NotAuthorized),
            (None, &by_certificate, NotAuthorized),
            (Some(&own), &of_another, NotAuthorized),
        ] {
            let identity = identity.map(|own| &own.identity);
            let stream = cut.connect(&hub, hub.mqtts.port(), identity).await;
            assert_eq!(connack(stream, connect).await, expected, "{cut:?}");
        }
        // AMQP is refused behind TLS, in its own protocol.
        let mut stream = cut.connect(&hub, hub.amqps.port(), None).await;
        stream.write_all(b"AMQP\x03\x01\x00\x00").await.unwrap();
        let mut answer = [0; 4];
        let read = stream.read_exact(&mut answer);
        soon("a refusal", read).await.unwrap();
        assert_eq!(&answer, b"AMQP", "{cut:?}");
    }
}

/// The bytes of a ClientHello, as its client cuts it into records.
fn hello(hub: &TestHub, cut: Cut) -> Vec<u8> {
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = ClientConnection::new(cut.config(hub, None), name).unwrap();
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).unwrap();
    }
    bytes
}

/// Whether the hub has closed a connection.
async fn is_over(socket: &mut TcpStream) -> bool {
    let mut bytes = [0; 256];
    matches!(
        tokio::time::timeout(Duration::ZERO, socket.read(&mut bytes)).await,
        Ok(Ok(0) | Err(_))
    )
}

fn value(metrics: &str, series: &str) -> f64 {
    let mut lines = metrics.lines();
    let line = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().unwrap())
}

async fn reaches(hub: &TestHub, series: &str, expected: f64) {
    soon(series, async {
        while value(&hub.metrics().await, series) != expected {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn half_a_client_hello_in_pieces_takes_a_strangers_place_and_the_oldest_goes() {
    const MOST: usize = 8;
    let hub = TestHub::start_with(Limits {
        strangers: 2 * MOST,
        strangers_per_address: MOST,
        ..Limits::default()
    })
    .await;
    let connection = hub.create("d").await;
    let mut device = RawDevice::connect(&hub, &connection).await;
    for cut in CUTS {
        let hello = hello(&hub, cut);
        let mut open = Vec::new();
        for number in 0..MOST + 1 {
            let ports = [hub.https.port(), hub.mqtts.port()];
            let address = ("127.0.0.1", ports[number % 2]);
            let mut socket = TcpStream::connect(address).await.unwrap();
            socket.set_nodelay(true).unwrap();
            let size = if cut == Cut::Bytes { 1 } else { 32 };
            for piece in hello[..hello.len() - 1].chunks(size) {
                socket.write_all(piece).await.unwrap();
            }
            let count = (number + 1).min(MOST) as f64;
            reaches(&hub, "stream_hub_strangers", count).await;
            open.push(socket);
        }
        soon("the end of the oldest", async {
            while !is_over(&mut open[0]).await {
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        for socket in &mut open[1..] {
            assert!(!is_over(socket).await, "{cut:?}");
        }
        drop(open);
        reaches(&hub, "stream_hub_strangers", 0.0).await;
    }
    // Who has shown who it is had no place among them.
    device.send(&[0xc0, 0]).await;
    assert!(device.answers_ping().await);
}

#[tokio::test]
async fn pieces_give_a_handshake_no_more_time_and_no_more_bytes() {
    let hub = TestHub::start_with(Limits {
        handshake: Duration::from_secs(2),
        ..Limits::default()
    })
    .await;
    let slow = "stream_hub_connections_failed_total{reason=\"tls_slow\"}";
    let small = hello(&hub, Cut::Records);
    // A hello of 60,000 bytes, in records of 27: far more than a handshake may have.
    let body = [&[1, 0, 0xea, 0x60][..], &[0; 60_000]].concat();
    let record = |piece: &[u8]| [&[0x16, 3, 1, 0, piece.len() as u8][..], piece].concat();
    let large: Vec<u8> = body.chunks(27).flat_map(record).collect();
    let mut ended = 0.0;
    for port in [hub.https.port(), hub.mqtts.port(), hub.amqps.port()] {
        // A piece at a time, each well within the time of a whole handshake.
        let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let mut pieces = small.chunks(32);
        soon("the end of a slow handshake", async {
            while !is_over(&mut socket).await {
                let piece = pieces.next().expect("it is over before the hello is whole");
                let _ = socket.write_all(piece).await;
                sleep(Duration::from_millis(100)).await;
            }
        })
        .await;
        ended += 1.0;
        reaches(&hub, slow, ended).await;
        // As fast as it goes.
        let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let (mut reading, mut writing) = socket.split();
        let mut rest = Vec::new();
        let (_, _) = tokio::join!(
            writing.write_all(&large),
            soon("the end of a large hello", reading.read_to_end(&mut rest)),
        );
        assert!(rest.is_empty() || rest[0] == 21, "at most an alert");
        ended += 1.0;
        reaches(&hub, slow, ended).await;
    }
}
