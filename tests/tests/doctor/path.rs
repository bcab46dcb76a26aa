//! Faults between the program and the hub: names, TCP, proxies, TLS, clocks, WebSockets. Both programs
//! make the same checks; service-proxy stands for both.

use common::doctor::Report;
use tests::fake_hub::{Certificate, FakeHub, Fault};
use tests::forward_proxy::Kind;
use tests::program_hub::free_port;
use tests::{ForwardProxy, TestHub};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::{Case, KEY, all_are_named, case, service};

/// A service's connection string for a hub of this name.
pub(super) fn string(host: &str) -> String {
    format!("HostName={host};SharedAccessKeyName=service;SharedAccessKey={KEY}")
}

/// At a hub with this fault.
pub(super) async fn at(fault: Fault, arguments: &[&str]) -> Report {
    let hub = FakeHub::start(fault).await;
    let ca_file = hub.ca_file();
    let arguments = [arguments, &["--ca-file", ca_file.to_str().unwrap()]].concat();
    service(&string(&hub.host()), &arguments).await
}

async fn raw(bytes: &'static [u8], closes: bool) -> Report {
    let hub = FakeHub::start_raw(bytes, closes).await;
    let ca_file = hub.ca_file();
    service(
        &string(&hub.host()),
        &["--timeout", "2", "--ca-file", ca_file.to_str().unwrap()],
    )
    .await
}

async fn with_certificate(certificate: Certificate, is_trusted: bool) -> Report {
    let fault = Fault {
        certificate,
        is_trusted,
        ..Fault::default()
    };
    at(fault, &[]).await
}

/// Through a proxy that is no proxy, or that answers with these bytes.
async fn through(answer: &'static [u8]) -> Report {
    let hub = TestHub::start_hidden().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = format!("--proxy=http://{}", listener.local_addr().unwrap());
    let serving = async {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let _ = socket.read(&mut [0; 1024]).await;
            let _ = socket.write_all(answer).await;
        }
    };
    let options = [proxy.as_str()];
    tokio::select! {
        report = super::service_at(&hub, &options) => report,
        () = serving => unreachable!(),
    }
}

async fn logged_in(url: impl Fn(&ForwardProxy) -> String) -> Report {
    let hub = TestHub::start_hidden().await;
    let proxy = ForwardProxy::start(Kind::HttpBasic).await;
    let option = format!("--proxy={}", url(&proxy));
    super::service_at(&hub, &[&option]).await
}

/// Behind a proxy that breaks TLS open, with a CA that is trusted or not.
async fn inspected(is_trusted: bool) -> Report {
    let certificate = Certificate::of("Corp Inspection CA", "Corp");
    let fault = Fault {
        certificate,
        is_trusted,
        ..Fault::default()
    };
    let inspector = FakeHub::start(fault).await;
    // The hub itself, which is reached without the proxy.
    let hub = FakeHub::start(Fault::default()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = format!("--proxy=http://{}", listener.local_addr().unwrap());
    let leading = async {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let to = inspector.address;
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = socket.read_u8().await else {
                        return;
                    };
                    head.push(byte);
                }
                let _ = socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
                let mut there = tokio::net::TcpStream::connect(to).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut socket, &mut there).await;
            });
        }
    };
    let ca_file = inspector.ca_file();
    let arguments = [&proxy, "--ca-file", ca_file.to_str().unwrap()];
    let text = string(&hub.host());
    tokio::select! {
        report = service(&text, &arguments) => report,
        () = leading => unreachable!(),
    }
}

/// A port whose packets nobody takes: the queue of its listener is full.
#[cfg(target_os = "linux")]
async fn filtered() -> Report {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&any.into()).unwrap();
    socket.listen(0).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    let mut waiting = Vec::new();
    for _ in 0..4 {
        let connecting = tokio::net::TcpStream::connect(("127.0.0.1", port));
        let limit = std::time::Duration::from_millis(300);
        waiting.push(tokio::time::timeout(limit, connecting).await);
    }
    assert!(waiting.iter().any(Result::is_err), "the queue is full");
    service(&string(&format!("127.0.0.1:{port}")), &["--timeout", "2"]).await
}

fn network() -> Vec<Case> {
    let mut cases = vec![
        case(
            "no such name",
            "name",
            "cannot resolve nobody.invalid",
            async { service(&string("nobody.invalid"), &[]).await },
        ),
        case("nothing listens", "tcp", "is the hub running", async {
            let port = free_port().await;
            service(&string(&format!("localhost:{port}")), &[]).await
        }),
        case(
            "no such proxy",
            "proxy",
            "the proxy's name cannot be resolved",
            async {
                service(
                    &string("localhost"),
                    &["--proxy", "http://nobody.invalid:1"],
                )
                .await
            },
        ),
        case(
            "no proxy there",
            "proxy",
            "the proxy cannot be reached",
            async {
                let proxy = format!("http://localhost:{}", free_port().await);
                service(&string("hub.invalid"), &["--proxy", &proxy]).await
            },
        ),
        case(
            "a proxy that wants a login",
            "proxy",
            "wants a user name and a password",
            logged_in(|proxy| format!("http://{}", proxy.address)),
        ),
        case(
            "a proxy that refuses the login",
            "proxy",
            "refuses the user name or the password",
            logged_in(|proxy| format!("http://ada:wrong@{}", proxy.address)),
        ),
        case(
            "a proxy that forbids the host",
            "proxy",
            "does not allow it (403 Forbidden)",
            through(b"HTTP/1.1 403 Forbidden\r\n\r\n"),
        ),
        case(
            "a proxy that reaches nothing",
            "proxy",
            "the proxy cannot reach it (502",
            through(b"HTTP/1.1 502 Bad Gateway\r\n\r\n"),
        ),
        case(
            "no proxy, but an SSH server",
            "proxy",
            "what answers there is not an HTTP proxy",
            through(b"SSH-2.0-x\r\n"),
        ),
    ];
    #[cfg(target_os = "linux")]
    cases.push(case(
        "packets that nobody takes",
        "tcp",
        "a firewall swallows the packets",
        filtered(),
    ));
    cases
}

fn tls() -> Vec<Case> {
    let hub = || Certificate::of("Hub CA", "Hubs");
    vec![
        case(
            "plain HTTP",
            "tls",
            "does not speak TLS",
            raw(
                b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
                false,
            ),
        ),
        case(
            "a handshake that is cut",
            "tls",
            "closed during the TLS handshake",
            raw(b"", true),
        ),
        case(
            "a handshake without an answer",
            "tls",
            "swallows TLS",
            raw(b"", false),
        ),
        case(
            "TLS 1.0 alone",
            "tls",
            "only TLS older than 1.2",
            // A fatal alert: protocol_version.
            raw(&[0x15, 3, 1, 0, 2, 2, 70], false),
        ),
        case(
            "a certificate that signs itself",
            "certificate",
            "self-signed",
            with_certificate(Certificate::default(), false),
        ),
        case(
            "an unknown CA",
            "certificate",
            "\"Hub CA\", a CA that is not trusted",
            with_certificate(hub(), false),
        ),
        case(
            "an expired certificate",
            "certificate",
            "has expired",
            with_certificate(
                Certificate {
                    is_expired: true,
                    ..hub()
                },
                true,
            ),
        ),
        case(
            "a certificate of the future",
            "certificate",
            "is this machine's clock right?",
            with_certificate(
                Certificate {
                    is_early: true,
                    ..hub()
                },
                true,
            ),
        ),
        case(
            "another host's certificate",
            "certificate",
            "for another host name (elsewhere.example)",
            with_certificate(
                Certificate {
                    name: Some("elsewhere.example"),
                    ..hub()
                },
                true,
            ),
        ),
        case(
            "a missing intermediate",
            "certificate",
            "the hub does not send that of \"Between CA\"",
            with_certificate(
                Certificate {
                    hides_intermediate: true,
                    ..hub()
                },
                true,
            ),
        ),
        case(
            "inspection by a known product",
            "certificate",
            "TLS may be inspected by \"Zscaler Root CA\"",
            with_certificate(Certificate::of("Zscaler Root CA", "Zscaler Inc."), false),
        ),
        case(
            "inspection by a known product that is trusted",
            "inspection",
            "TLS may be inspected by \"FortiGate CA\"",
            with_certificate(Certificate::of("FortiGate CA", "Fortinet"), true),
        ),
        case(
            "inspection by the proxy",
            "certificate",
            "TLS may be inspected by the proxy 127.0.0.1:",
            inspected(false),
        ),
        case(
            "inspection by the proxy, with a CA that is trusted",
            "inspection",
            "through it the certificate is signed by \"Corp Inspection CA\"",
            inspected(true),
        ),
    ]
}

fn http() -> Vec<Case> {
    let clock = |clock| Fault {
        clock,
        ..Fault::default()
    };
    let upgrade = |status| Fault {
        upgrade: Some(status),
        ..Fault::default()
    };
    vec![
        case(
            "a clock that is behind",
            "clock",
            "s behind the hub's",
            at(clock(3600), &[]),
        ),
        case(
            "a clock that is ahead",
            "clock",
            "s ahead of the hub's",
            at(clock(-3600), &[]),
        ),
        case(
            "no HTTP in TLS",
            "http",
            "has sent no answer to HTTP",
            async {
                // Its port for MQTT.
                let hub = TestHub::start().await;
                let text = string(&format!("localhost:{}", hub.mqtts.port()));
                let ca_file = hub.ca_file();
                service(
                    &text,
                    &["--timeout", "2", "--ca-file", ca_file.to_str().unwrap()],
                )
                .await
            },
        ),
        case(
            "a WebSocket that is a page",
            "websocket",
            "answered with 200",
            at(upgrade(200), &[]),
        ),
        case(
            "a WebSocket that is no request",
            "websocket",
            "answered with 400",
            at(upgrade(400), &[]),
        ),
        case(
            "a WebSocket that is forbidden",
            "websocket",
            "answered with 403",
            at(upgrade(403), &[]),
        ),
    ]
}

#[tokio::test]
async fn faults_of_the_network_are_named() {
    all_are_named(network(), 9).await;
}

#[tokio::test]
async fn faults_of_tls_are_named() {
    all_are_named(tls(), 14).await;
}

#[tokio::test]
async fn faults_of_http_are_named() {
    all_are_named(http(), 6).await;
}
