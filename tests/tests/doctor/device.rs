//! Faults from the device's chair, and a path that is well.

use common::clock::unix_now;
use common::connection_string::{DeviceConnectionString, DeviceCredential};
use common::doctor::{Outcome, Report};
use common::sas_token;
use hub::registry::Status;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use tests::fake_hub::{FakeHub, Fault};
use tests::forward_proxy::Kind;
use tests::program_hub::free_port;
use tests::target::Behaviour;
use tests::{ForwardProxy, RawHub, Target, TestDevice, TestHub};

use super::{Case, KEY, all_are_named, case, device};

async fn at(hub: &TestHub, connection: &DeviceConnectionString, arguments: &[&str]) -> Report {
    let ca_file = hub.ca_file();
    let mqtts = hub.mqtts.port().to_string();
    let common = [
        "--ca-file",
        ca_file.to_str().unwrap(),
        "--mqtts-port",
        &mqtts,
    ];
    // An option of the case counts more.
    let has_port = arguments.contains(&"--mqtts-port");
    let common = if has_port { &common[..2] } else { &common[..] };
    let text = connection.to_secret_text();
    device(text.expose(), &[arguments, common].concat()).await
}

/// A device "d" of a hub, with these options.
async fn with(arguments: &[&str]) -> Report {
    let hub = TestHub::start().await;
    let connection = hub.create("d").await;
    at(&hub, &connection, arguments).await
}

async fn with_token(resource: &'static str, left: i64) -> Report {
    let hub = TestHub::start().await;
    let mut connection = hub.create("d").await;
    let DeviceCredential::Key { key, .. } = &connection.credential else {
        panic!("no key")
    };
    let expiry = unix_now().checked_add_signed(left).unwrap();
    let token = sas_token::mint(resource, key, None, expiry);
    connection.credential = DeviceCredential::Token(token);
    at(&hub, &connection, &["--echo"]).await
}

async fn at_fake(fault: Fault) -> Report {
    let hub = FakeHub::start(fault).await;
    let ca_file = hub.ca_file();
    let text = format!("HostName={};DeviceId=d;SharedAccessKey={KEY}", hub.host());
    let mqtts = free_port().await.to_string();
    let options = [
        "--echo",
        "--ca-file",
        ca_file.to_str().unwrap(),
        "--mqtts-port",
        &mqtts,
    ];
    device(&text, &options).await
}

fn faults() -> Vec<Case> {
    vec![
        case(
            "a malformed connection string",
            "configuration",
            "has no `HostName`",
            async { device("DeviceId=d;SharedAccessKey=AAEC", &["--echo"]).await },
        ),
        case(
            "a service's connection string",
            "configuration",
            "device-proxy needs the device's own",
            async { device(&super::path::string("h"), &["--echo"]).await },
        ),
        case("no target", "configuration", "give a target", async {
            device(&format!("HostName=h;DeviceId=d;SharedAccessKey={KEY}"), &[]).await
        }),
        case(
            "a file that is not there",
            "configuration",
            "/no/such/device.cs",
            async {
                device(
                    "",
                    &["--echo", "--connection-string-file", "/no/such/device.cs"],
                )
                .await
            },
        ),
        case(
            "no such name",
            "name",
            "cannot resolve nobody.invalid",
            async {
                let text = format!("HostName=nobody.invalid;DeviceId=d;SharedAccessKey={KEY}");
                device(&text, &["--echo"]).await
            },
        ),
        case(
            "a proxy that wants a login",
            "proxy",
            "wants a user name",
            async {
                let hub = TestHub::start_hidden().await;
                let proxy = ForwardProxy::start(Kind::HttpBasic).await;
                let connection = hub.create("d").await;
                let option = format!("--proxy=http://{}", proxy.address);
                at(&hub, &connection, &["--echo", &option]).await
            },
        ),
        case(
            "a token that has expired",
            "credential",
            "expired",
            with_token("localhost/devices/d", -60),
        ),
        case(
            "a token for another device",
            "credential",
            "for devices/e, and not for devices/d",
            with_token("localhost/devices/e", 600),
        ),
        case(
            "a token for another hub",
            "credential",
            "for the hub elsewhere.example",
            with_token("elsewhere.example/devices/d", 600),
        ),
        case(
            "a certificate that has expired",
            "credential",
            "has expired",
            async {
                let key = KeyPair::generate().unwrap();
                let mut params = CertificateParams::new(["device".to_owned()]).unwrap();
                params.not_after = date_time_ymd(2020, 1, 1);
                let certificate = params.self_signed(&key).unwrap();
                let folder = tempfile::tempdir().unwrap();
                let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
                let (cert_file, key_file) = (path("cert.pem"), path("key.pem"));
                tests::fake_hub::write_private(&cert_file, &certificate.pem());
                tests::fake_hub::write_private(&key_file, &key.serialize_pem());
                let hub = TestHub::start().await;
                let text = format!("HostName={};DeviceId=d;x509=true", hub.state.address);
                let ca_file = hub.ca_file();
                let options = [
                    "--echo",
                    "--cert",
                    &cert_file,
                    "--key",
                    &key_file,
                    "--ca-file",
                    ca_file.to_str().unwrap(),
                ];
                device(&text, &options).await
            },
        ),
        case("a wrong key", "hub-session", "the key is wrong", async {
            let hub = TestHub::start().await;
            hub.create("d").await;
            let text = format!(
                "HostName={};DeviceId=d;SharedAccessKey={KEY}",
                hub.state.address
            );
            let connection = DeviceConnectionString::parse(&text).unwrap();
            at(&hub, &connection, &["--echo"]).await
        }),
        case(
            "an unknown device",
            "hub-session",
            "the identity does not exist there",
            async {
                let hub = TestHub::start().await;
                let connection = hub.create("d").await;
                hub.delete("d").await;
                at(&hub, &connection, &["--echo"]).await
            },
        ),
        case(
            "a disabled device",
            "hub-session",
            "it is disabled",
            async {
                let hub = TestHub::start().await;
                let connection = hub.create("d").await;
                hub.set_status("d", Status::Disabled).await;
                at(&hub, &connection, &["--echo", "--transport", "mqtt"]).await
            },
        ),
        case(
            "MQTT blocked, and WebSockets open",
            "transport",
            "use --transport mqtt-ws",
            async {
                let port = free_port().await.to_string();
                with(&["--echo", "--transport", "mqtt", "--mqtts-port", &port]).await
            },
        ),
        case(
            "WebSockets that are stripped",
            "websocket",
            "strips WebSockets",
            at_fake(Fault {
                upgrade: Some(403),
                ..Fault::default()
            }),
        ),
        case(
            "a hub that breaks the session",
            "hub-session",
            "broke",
            at_fake(Fault::default()),
        ),
        case(
            "a clock that is behind",
            "clock",
            "s behind the hub's",
            at_fake(Fault {
                clock: 4000,
                ..Fault::default()
            }),
        ),
        case(
            "a hub without streams",
            "hub-session",
            "does not offer device streams",
            async {
                let hub = RawHub::start().await;
                let ca_file = hub.ca_file();
                let mqtts = hub.mqtts_port().to_string();
                let host = format!("localhost:{}", hub.https_port());
                let text = format!("HostName={host};DeviceId=d;SharedAccessKey={KEY}");
                let options = [
                    "--echo",
                    "--transport",
                    "mqtt",
                    "--mqtts-port",
                    &mqtts,
                    "--ca-file",
                    ca_file.to_str().unwrap(),
                ];
                let serving = async {
                    // The first connection shakes hands and ends.
                    let mut kept = Vec::new();
                    loop {
                        kept.push(hub.subscribed(|filter| !filter.contains("streams")).await);
                    }
                };
                tokio::select! {
                    report = device(&text, &options) => report,
                    () = serving => unreachable!(),
                }
            },
        ),
        case(
            "a target that refuses",
            "target",
            "start the service on the device",
            async {
                let option = format!("web=127.0.0.1:{}", free_port().await);
                with(&["--target", &option]).await
            },
        ),
        case(
            "a target that says nothing",
            "target",
            "sends nothing",
            async {
                let target = Target::start(Behaviour::Silent).await;
                with(&["--target", &format!("ssh={}", target.address)]).await
            },
        ),
        case("no sessions", "session", "--session auto", async {
            with(&["--echo", "--session", "never"]).await
        }),
    ]
}

#[tokio::test]
async fn faults_of_the_device_are_named() {
    all_are_named(faults(), 19).await;
}

#[tokio::test]
async fn a_device_that_is_well_is_examined_to_its_end() {
    for transport in ["mqtt", "mqtt-ws"] {
        let report = with(&["--echo", "--transport", transport]).await;
        let outcomes: Vec<_> = report
            .checks
            .iter()
            .map(|check| (check.id, check.outcome))
            .filter(|(_, outcome)| *outcome != Outcome::Skipped)
            .collect();
        let ids = [
            "configuration",
            "credential",
            "name",
            "tcp",
            "tls",
            "certificate",
            "inspection",
            "http",
            "clock",
            "websocket",
            "hub-session",
            "twin",
            "target",
            "target",
            "session",
        ];
        let expected: Vec<_> = ids.into_iter().map(|id| (id, Outcome::Ok)).collect();
        assert_eq!(outcomes, expected, "{transport}: {:#?}", report.checks);
    }
}

#[tokio::test]
async fn a_device_that_runs_can_be_left_alone() {
    let hub = TestHub::start().await;
    let connection = hub.create("d").await;
    let _device = TestDevice::start(&hub, &connection, &["--echo"]).await;
    let report = at(&hub, &connection, &["--echo", "--no-connect"]).await;
    assert!(report.stuck_at().is_none(), "{}", report.sentence());
    let check = report.check("hub-session").unwrap();
    assert_eq!(check.outcome, Outcome::Skipped);
    // With a session it comes back by itself.
    let report = at(&hub, &connection, &["--echo"]).await;
    assert!(report.stuck_at().is_none(), "{}", report.sentence());
    tests::wait("the device's return", || {
        hub.state.presence.is_subscribed(&connection.identity)
    })
    .await;
}
