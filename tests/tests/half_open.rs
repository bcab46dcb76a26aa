//! Many clients that connect and do not authenticate: they take a limited share of a hub's
//! descriptors and little of its memory, and clients that are refused repeatedly are answered late.

use std::sync::Arc;
use std::time::Duration;

use common::mqtt::{ConnectReturnCode, Packet, packet};
use common::net::{Dialer, TlsHostStream};
use rustls::ClientConfig;
use tests::program_hub::ProgramHub;
use tests::target::Behaviour;
use tests::{RawDevice, Target, TestHub, soon};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

const UPGRADE: &[u8] =
    b"GET /$iothub/websocket HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";
/// A masked binary message of 4,000 bytes with an incomplete CONNECT of 3,990.
const MESSAGE: &[u8] = &[0x82, 0xfe, 0x0f, 0xa0, 0, 0, 0, 0, 0x10, 0x93, 0x1f];

/// What a client sends before it stops sending.
#[derive(Clone, Copy)]
enum Stage {
    Connected,
    /// Half of a TLS handshake.
    HalfHello,
    Silent,
    /// Half of a request's head.
    HalfHead,
    /// Half of a CONNECT, in half of a message.
    HalfMessage,
    /// Half of a CONNECT.
    HalfConnect,
}

/// A connection, in TLS or not.
enum Stranger {
    Plain(TcpStream),
    Tls(Box<TlsHostStream>),
}

impl Stranger {
    async fn is_over(&mut self) -> bool {
        let mut bytes = [0; 1024];
        let read = match self {
            Self::Plain(socket) => timeout(Duration::ZERO, socket.read(&mut bytes)).await,
            Self::Tls(stream) => timeout(Duration::ZERO, stream.read(&mut bytes)).await,
        };
        matches!(read, Ok(Ok(0) | Err(_)))
    }
}

async fn stranger(stage: Stage, hub: &ProgramHub, tls: &Arc<ClientConfig>) -> Stranger {
    let port = match stage {
        Stage::HalfConnect | Stage::Silent => hub.mqtts,
        _ => hub.https,
    };
    if let Stage::Connected | Stage::HalfHello = stage {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        if let Stage::HalfHello = stage {
            let hello = [&[0x16, 3, 1, 0x0f, 0, 1, 0, 0x1e, 0][..], &[0; 3000]].concat();
            socket.write_all(&hello).await.unwrap();
        }
        return Stranger::Plain(socket);
    }
    let mut stream = Dialer::new(tls).tls("localhost", port).await.unwrap();
    match stage {
        Stage::HalfHead => {
            let head = format!(
                "GET / HTTP/1.1\r\nHost: localhost\r\nx: {}",
                "x".repeat(5000)
            );
            stream.write_all(head.as_bytes()).await.unwrap();
        }
        Stage::HalfMessage => {
            stream.write_all(UPGRADE).await.unwrap();
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"HTTP/1.1 101");
            let message = [MESSAGE, &[0; 3900]].concat();
            stream.write_all(&message).await.unwrap();
        }
        Stage::HalfConnect => {
            let packet = [&[0x10, 0x93, 0x1f][..], &[0; 3900]].concat();
            stream.write_all(&packet).await.unwrap();
        }
        Stage::Connected | Stage::HalfHello | Stage::Silent => {}
    }
    stream.flush().await.unwrap();
    Stranger::Tls(Box::new(stream))
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn half_open_connections_lock_no_client_out() {
    let hub = ProgramHub::start_limited(256).await;
    let tls = hub.tls();
    let echo = Target::start(Behaviour::Echo).await;
    let first = hub.admin(&["device", "create", "first"]);
    let second = hub.admin(&["device", "create", "second"]);
    let target = echo.address.to_string();
    let _first = hub.device(&first, &target);
    hub.program.line("device connected").await;

    let mut strangers = Vec::new();
    for number in 0..400 {
        let stage = match number % 4 {
            0 => Stage::Connected,
            1 => Stage::Silent,
            2 => Stage::HalfHead,
            _ => Stage::HalfConnect,
        };
        strangers.push(stranger(stage, &hub, &tls).await);
    }
    // Long before the handshake time-out,
    let entering = async {
        let device = hub.device(&second, &target);
        device.line("connected").await;
        for name in ["first", "second"] {
            let (_service, port) = hub.service(&["listen", name, "0"]).await;
            let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            socket.write_all(b"hello").await.unwrap();
            let mut back = [0; 5];
            socket.read_exact(&mut back).await.unwrap();
            assert_eq!(&back, b"hello");
        }
    };
    timeout(hub::limits::STRANGER * 2 / 3, entering)
        .await
        .expect("strangers keep others out");
    // the oldest connection is closed, and the newest is kept.
    let mut over = Vec::new();
    for stranger in &mut strangers {
        over.push(stranger.is_over().await);
    }
    assert!(over.iter().take(300).all(|over| *over), "{over:?}");
    assert!(over.iter().rev().take(10).all(|over| !over), "{over:?}");
}

/// Private memory of a process, in bytes.
#[cfg(target_os = "linux")]
fn memory(process: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .unwrap();
    let kib: usize = line.trim().trim_end_matches(" kB").parse().unwrap();
    kib << 10
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn half_open_connections_hold_little_memory() {
    const COUNT: usize = 200;
    /// 16 KiB for each on average, and an allowance for rounding.
    const MOST: usize = 18 << 10;
    tests::holdings::allow_descriptors(4 * COUNT as u64 + 400);
    let hub = ProgramHub::start().await;
    let tls = hub.tls();
    let process = hub.program.id();
    // One-time allocations of the program do not count.
    for stage in [Stage::HalfHello, Stage::HalfMessage, Stage::HalfConnect] {
        drop(stranger(stage, &hub, &tls).await);
    }
    let before = memory(process);
    let mut strangers = Vec::new();
    for stage in [
        Stage::HalfHello,
        Stage::HalfHead,
        Stage::HalfMessage,
        Stage::HalfConnect,
    ] {
        for _ in 0..COUNT {
            strangers.push(stranger(stage, &hub, &tls).await);
        }
    }
    // A message too large for any CONNECT ends its connection at once.
    for _ in 0..COUNT {
        let mut stream = Dialer::new(&tls).tls("localhost", hub.https).await.unwrap();
        stream.write_all(UPGRADE).await.unwrap();
        let huge = [
            &[0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0][..],
            &[0; 65_000],
        ]
        .concat();
        let _ = stream.write_all(&huge).await;
        let mut answer = Vec::new();
        let _ = soon("the end of a huge message", stream.read_to_end(&mut answer)).await;
    }
    let each = memory(process).saturating_sub(before) / strangers.len();
    assert!(each <= MOST, "{each} bytes for each stranger");
    for stranger in &mut strangers {
        assert!(!stranger.is_over().await);
    }
}

/// The status line and the headers of the next response.
async fn answer(stream: &mut TlsHostStream) -> Option<String> {
    stream
        .write_all(b"GET /devices?api-version=2021-04-12 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .ok()?;
    let mut all = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&all).to_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.split("content-length: ").nth(1).unwrap();
            let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
            if body.len() >= length {
                return Some(head.to_owned());
            }
        }
        if stream.read_buf(&mut all).await.ok()? == 0 {
            return None;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_end_a_connection_and_slow_an_address_down() {
    let hub = TestHub::start().await;
    let connection = hub.create("bystander").await;
    let mut device = RawDevice::connect(&hub, &connection).await;
    let (port, config) = (hub.https.port(), hub.tls());
    let refused = async || {
        let mut stream = Dialer::new(&config).tls("localhost", port).await.unwrap();
        let mut heads = Vec::new();
        while let Some(head) = soon("an answer", answer(&mut stream)).await {
            assert!(head.starts_with("http/1.1 401 "), "{head}");
            heads.push(head);
        }
        heads
    };
    let is_last = |head: &String| head.contains("connection: close");
    let heads = refused().await;
    let lasts: Vec<bool> = heads.iter().map(is_last).collect();
    assert_eq!(lasts, [false, false, false, false, false, false, true]);
    // Many connections from one address: in the end each gets one answer, some occasionally more.
    let mut flood = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let config = Arc::clone(&config);
        flood.spawn(async move {
            loop {
                if let Ok(mut stream) = Dialer::new(&config).tls("localhost", port).await {
                    while answer(&mut stream).await.is_some() {}
                }
            }
        });
    }
    soon("an only answer", async {
        while refused().await.len() > 1 {}
    })
    .await;
    // A device with a wrong key is delayed as well,
    soon("a late CONNACK", async {
        loop {
            let mut stranger = RawDevice::open(&hub).await;
            let started = tokio::time::Instant::now();
            let code = stranger.hello(&connection, "wrong").await;
            assert_ne!(code, ConnectReturnCode::Accepted);
            if started.elapsed() >= Duration::from_secs(1) {
                break;
            }
        }
    })
    .await;
    // and one with a right key is admitted meanwhile and stays connected.
    let other = hub.create("other").await;
    let _other = soon("a device", RawDevice::connect(&hub, &other)).await;
    let ping = packet::Pingreq::builder().build().unwrap();
    device.io.write(&ping.to_continuous_buffer()).await.unwrap();
    assert!(matches!(device.packet().await, Packet::Pingresp));
}
