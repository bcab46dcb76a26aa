//! Both proxies in corporate networks: the hub can be reached only through an HTTP or SOCKS5 proxy.

use std::sync::Arc;
use std::time::Duration;

use clap::Parser as _;
use common::identity::{DeviceIdentity, StreamName};
use common::report;
use common::wire::initiation::Timeouts;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use service_proxy::config::Config;
use service_proxy::hub_api::HubApi;
use tests::forward_proxy::{IN_URL, Kind};
use tests::hub::identity;
use tests::session_setup::{DEVICE, pass, talk};
use tests::target::Behaviour;
use tests::{ForwardProxy, SessionSetup, Target, TestDevice, TestHub, TestService, logs, soon};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// The option for a proxy, with its password.
fn option(scheme: &str, proxy: &ForwardProxy) -> String {
    format!("--proxy={scheme}://{IN_URL}{}", proxy.address)
}

/// Why a device-proxy with these options ends at its start.
async fn device_failure(hub: &TestHub, options: &[&str]) -> String {
    let connection = hub.create(DEVICE).await;
    let config = tests::device::config(hub, &connection, &[&["--echo"], options].concat());
    let running = device_proxy::run(config, CancellationToken::new());
    report::chain(&soon("device-proxy's end", running).await.unwrap_err())
}

/// Why a service-proxy with these options gets no stream.
async fn service_failure(hub: &TestHub, options: &[&str]) -> String {
    let service = hub.policy("service").await;
    let arguments = [options, &["connect", DEVICE]].concat();
    let Config::Connect(config) = tests::service::config(hub, &service, &arguments) else {
        panic!("not connect");
    };
    let dialer = config.hub.dialer().unwrap();
    let api = HubApi::new(&config.hub.service, None, &dialer);
    let timeouts = Timeouts {
        connect: Duration::ZERO,
        response: Duration::from_secs(5),
    };
    let (id, name): (DeviceIdentity, _) = (identity(DEVICE), StreamName::parse("x").unwrap());
    let error = api.initiate(&id, &name, timeouts).await.unwrap_err();
    report::chain(&error)
}

async fn echoes(service: &TestService) {
    let mut stream = service.connect().await;
    stream.write_all(b"through the proxy").await.unwrap();
    let mut back = [0; 17];
    soon("the echo", stream.read_exact(&mut back))
        .await
        .unwrap();
    assert_eq!(&back, b"through the proxy");
}

#[tokio::test]
async fn streams_and_targets_where_the_hub_is_behind_proxies() {
    logs::keep();
    for (kind, scheme, transport) in [
        (Kind::HttpBasic, "http", "mqtt-ws"),
        (Kind::HttpBasic, "http", "mqtt"),
        (Kind::Socks, "socks5h", "mqtt-ws"),
        (Kind::Socks, "socks5h", "mqtt"),
    ] {
        let hub = TestHub::start_hidden().await;
        let near = ForwardProxy::start(kind).await;
        let far = ForwardProxy::start(kind).await;
        let target = Target::start(Behaviour::Echo).await;
        let connection = hub.create(DEVICE).await;
        let to_target = format!("echo={}", target.address);
        let options = [
            &option(scheme, &far),
            "--transport",
            transport,
            "--target",
            &to_target,
        ];
        let device = TestDevice::start(&hub, &connection, &options).await;
        for mode in ["never", "always"] {
            let options = [&option(scheme, &near), "--session", mode, DEVICE, "0:echo"];
            let service = TestService::listen(&hub, &options).await;
            echoes(&service).await;
            echoes(&service).await;
            service.shut_down().await;
        }
        device.shut_down().await.unwrap();
        let hubs = |target: &String| target.starts_with(TestHub::HIDDEN);
        assert!(near.opened().iter().all(hubs) && far.opened().iter().all(hubs));
        assert!(
            near.opened().len() >= 2 && far.opened().len() >= 4,
            "{:?}",
            far.opened()
        );
        let line = format!("the hub is reached through a proxy proxy={} ", far.address);
        assert_eq!(logs::lines(&[&line]).len(), 1, "{line}");
    }
    assert!(logs::lines(&["sesame"]).is_empty());
}

#[tokio::test]
async fn a_session_goes_on_after_its_proxy_was_restarted() {
    let hub = TestHub::start_hidden().await;
    let mut near = ForwardProxy::start(Kind::HttpBasic).await;
    let mut far = ForwardProxy::start(Kind::Http).await;
    let (near_option, far_option) = (option("http", &near), option("http", &far));
    let setup = SessionSetup::on(hub, "proxied", &[&far_option], &[&near_option]).await;
    let (mut here, mut there) = setup.pair().await;
    talk(&mut here, &mut there).await;
    for proxy in [&mut near, &mut far] {
        proxy.stop().await;
        here.write_all(b"typed meanwhile").await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        let asked = proxy.asked();
        proxy.start_again().await;
        let mut arrived = [0; 15];
        soon("what was typed", there.read_exact(&mut arrived))
            .await
            .unwrap();
        assert_eq!(&arrived, b"typed meanwhile");
        pass(&mut there, &mut here, b"the answer").await;
        // Legs, dialled ahead or not, REST, the hub session and probes; not a flood.
        let asked = proxy.asked() - asked;
        assert!(asked <= 20, "{asked} requests to the proxy");
    }
}

#[tokio::test]
async fn a_proxy_that_wants_a_password_says_so() {
    let hub = TestHub::start_hidden().await;
    let proxy = ForwardProxy::start(Kind::HttpBasic).await;
    let without = format!("--proxy=http://{}", proxy.address);
    let wrong = format!("--proxy=http://ada:topsecret@{}", proxy.address);
    for (option, words) in [
        (
            &without,
            "wants a user name and a password (407, Basic); give them with --proxy-auth-file",
        ),
        (&wrong, "refuses the user name or the password (407, Basic)"),
    ] {
        let text = service_failure(&hub, &[option]).await;
        let expected = format!(
            "cannot reach {} through the proxy {}: the proxy ",
            hub.state.address, proxy.address
        );
        assert!(
            text.starts_with(&expected) && text.contains(words),
            "{text}"
        );
        assert!(!text.contains("topsecret"), "{text}");
        let text = device_failure(&hub, &[option]).await;
        assert!(text.contains(&expected) && text.contains(words), "{text}");
        hub.delete(DEVICE).await;
    }
    assert!(proxy.opened().is_empty());
    // A file that is corrected is read again.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("proxy.auth");
    std::fs::write(&file, "ada:open sesame").unwrap();
    let in_file = ["--proxy-auth-file", file.to_str().unwrap(), &wrong];
    let text = service_failure(&hub, &in_file).await;
    assert!(text.contains("knows no device"), "the hub answers: {text}");
}

#[tokio::test]
async fn what_a_proxy_refuses_names_the_host_and_what_to_do() {
    let hub = TestHub::start_hidden().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let option = format!("--proxy=http://{address}");
    for (answer, words) in [
        (
            "HTTP/1.1 403 Forbidden\r\n\r\n",
            "does not allow it (403 Forbidden); ask its administrator",
        ),
        (
            "HTTP/1.0 503 Unavailable\r\n\r\n",
            "the proxy cannot reach it (503 Service Unavailable)",
        ),
        ("SSH-2.0-x\r\n", "what answers there is not an HTTP proxy"),
        ("", "closed the connection instead of answering"),
    ] {
        let proxy = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = [0; 512];
            let _ = socket.read(&mut request).await.unwrap();
            socket.write_all(answer.as_bytes()).await.unwrap();
        };
        let options = [option.as_str()];
        let (text, ()) = tokio::join!(service_failure(&hub, &options), proxy);
        assert!(
            text.contains(&format!(
                "{} through the proxy {address}",
                hub.state.address
            )) && text.contains(words),
            "{text}"
        );
    }
    drop(listener);
    let text = service_failure(&hub, &[&option]).await;
    assert!(
        text.contains("the proxy cannot be reached (is --proxy or HTTPS_PROXY right?)"),
        "{text}"
    );
    let hubs = [
        "--proxy",
        &format!("http://{address}"),
        "--no-proxy",
        "invalid",
    ];
    let text = service_failure(&hub, &hubs).await;
    assert!(
        text.contains("cannot resolve hub.invalid") || text.contains("lookup"),
        "{text}"
    );
}

/// A proxy that breaks TLS open with a CA of its own and answers with 403 itself.
async fn inspecting(listener: TcpListener, tls: TlsAcceptor) {
    loop {
        let (mut socket, _) = listener.accept().await.unwrap();
        let tls = tls.clone();
        tokio::spawn(async move {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(socket.read_u8().await.unwrap());
            }
            socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            let Ok(mut stream) = tls.accept(socket).await else {
                return;
            };
            let mut request = [0; 2048];
            let _ = stream.read(&mut request).await;
            let _ = stream
                .write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                .await;
            let _ = stream.shutdown().await;
        });
    }
}

#[tokio::test]
async fn a_proxy_that_inspects_tls_and_strips_upgrades_is_named() {
    let hub = TestHub::start_hidden().await;
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name
        .push(rcgen::DnType::CommonName, "Corp Inspection CA");
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec![TestHub::HIDDEN.to_owned()]).unwrap();
    let server = server.signed_by(&key, &ca).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let tls = ServerConfig::builder_with_provider(common::tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![server.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let proxy = tokio::spawn(inspecting(listener, TlsAcceptor::from(Arc::new(tls))));
    let option = format!("--proxy=http://{address}");
    for text in [
        device_failure(&hub, &[&option]).await,
        service_failure(&hub, &[&option]).await,
    ] {
        for words in [
            &format!("cannot be trusted through the proxy {address}, which seems to inspect TLS"),
            "Corp Inspection CA",
            "--ca-file",
        ] {
            assert!(text.contains(words), "{text}");
        }
    }
    hub.delete(DEVICE).await;
    // With its CA trusted, what it answers instead of the hub is explained.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("corp.pem");
    std::fs::write(&path, ca.pem()).unwrap();
    let connection = hub.create(DEVICE).await;
    let text = connection.to_secret_text();
    let line = [
        "device-proxy",
        "--echo",
        "--ca-file",
        path.to_str().unwrap(),
        &option,
    ];
    let options = device_proxy::cli::Cli::parse_from(line).options;
    let environment =
        |name: &str| (name == "IOTHUB_DEVICE_CONNECTION_STRING").then(|| text.expose().into());
    let sources = device_proxy::config::sources(&options, &environment).unwrap();
    let config = device_proxy::config::Config::resolve(options, &sources).unwrap();
    let running = device_proxy::run(config, CancellationToken::new());
    let text = report::chain(&soon("device-proxy's end", running).await.unwrap_err());
    assert!(
        text.contains(&format!(
            "answered the WebSocket upgrade through the proxy {address} with 403 Forbidden (if the proxy inspects TLS,"
        )),
        "{text}"
    );
    proxy.abort();
}
