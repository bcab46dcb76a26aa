//! SAS tokens for a part of the hub: what they open, and what they do not; and the policies whose
//! keys sign them.

use std::time::Duration;

use common::clock::unix_now;
use common::connection_string::{ServiceConnectionString, ServiceCredential};
use common::limits::CLOCK_SKEW;
use common::mqtt::ConnectReturnCode;
use common::sas_token;
use common::secret::Secret;
use reqwest::Method;
use service_proxy::config::Config;
use service_proxy::local::listener::{Address, Listener};
use tests::echo::{connect, echoes, is_echoed};
use tests::program_hub::ProgramHub;
use tests::programs::{Program, run};
use tests::raw_service::{self, refusal};
use tests::target::Behaviour;
use tests::{RawDevice, RawService, Target, TestDevice, TestHub, service, slow_link, soon};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// A service with a token of the policy `service` for this path.
fn with(hub: &TestHub, policy: &ServiceConnectionString, path: &str) -> RawService {
    let ServiceCredential::Key(key) = &policy.credential else {
        panic!("no key")
    };
    let resource = format!("{}/{path}", policy.host.name());
    let expiry = unix_now() + 3600;
    let token = sas_token::mint(&resource, key, Some("service"), expiry);
    RawService::with_token(hub, token.expose().to_owned())
}

/// Whether the hub has asked further than who calls, and what the call is about.
async fn is_let_in(service: &RawService, method: Method, path: &str) -> bool {
    let call = service.call(method, &format!("/{path}?api-version=2021-04-12"));
    let call = call.header("iothub-streaming-connect-timeout-in-seconds", "0.1");
    let answer = soon("an answer", call.body("{}").send()).await.unwrap();
    // 400: no stream can have such a name.
    ![400, 401].contains(&answer.status().as_u16())
}

#[tokio::test]
async fn a_token_opens_what_it_names_and_nothing_beside() {
    let hub = TestHub::start().await;
    for id in ["MyDevice", "mydevice", "MyDevice2", "MyDevice/m"] {
        hub.create(id).await;
    }
    let policy = hub.policy("service").await;
    let streams: [(&str, &[&str]); 5] = [
        (
            "twins/MyDevice/streams/ssh",
            &["ssh", "_session.ssh", "%73sh", "_session%2Essh"],
        ),
        (
            "twins/MyDevice/streams/_session.ssh",
            &["_session.ssh", "_session%2Essh"],
        ),
        ("twins/MyDevice/streams/ssh/x", &[]),
        ("twins/MyDevice/streams/SSH", &["SSH", "_session.SSH"]),
        ("twins/MyDevice/streams/%73sh", &[]),
    ];
    let names = [
        "ssh",
        "_session.ssh",
        "%73sh",
        "_session%2Essh",
        "SSH",
        "_session.SSH",
        "ss",
        "ssh2",
        "ssh%2Fx",
        "_session.ssh%2Fx",
        "_session._session.ssh",
        "_sessionssh",
        "web",
        "%2573sh",
        "%2E%2E%2Fssh",
    ];
    for (path, opened) in streams {
        let service = with(&hub, &policy, path);
        for name in names {
            let stream = format!("twins/MyDevice/streams/{name}");
            let expected = opened.contains(&name);
            assert_eq!(
                is_let_in(&service, Method::POST, &stream).await,
                expected,
                "{path} and {stream}"
            );
        }
        for other in [
            "twins/mydevice/streams/ssh",
            "twins/MyDevice2/streams/ssh",
            "twins/MyDevice/modules/m/streams/ssh",
            "twins/MyDevice/methods",
        ] {
            assert!(!is_let_in(&service, Method::POST, other).await, "{other}");
        }
        for other in ["twins/MyDevice", "devices/MyDevice", "jobs/v2"] {
            assert!(!is_let_in(&service, Method::GET, other).await, "{other}");
        }
    }
}

#[tokio::test]
async fn a_token_for_a_device_is_for_all_of_it() {
    let hub = TestHub::start().await;
    for id in ["MyDevice", "MyDevice2", "MyDevice/m"] {
        hub.create(id).await;
    }
    let policy = hub.policy("service").await;
    for (path, stream, module, twin) in [
        ("twins/MyDevice", true, true, true),
        ("twins/MyDevice/", true, true, true),
        ("twins/MyDevice/streams", true, false, false),
        ("twins/MyDevice/modules/m", false, true, false),
        ("twins/MyDevice/modules/m/streams/ssh", false, true, false),
        ("twins/MyDevic", false, false, false),
        ("twins/MyDevice2", false, false, false),
        ("devices/MyDevice", false, false, false),
        ("twins", true, true, true),
        ("", true, true, true),
    ] {
        let service = with(&hub, &policy, path);
        for (method, call, expected) in [
            (Method::POST, "twins/MyDevice/streams/ssh", stream),
            (Method::POST, "twins/MyDevice/streams/_session.ssh", stream),
            (Method::POST, "twins/MyDevice/modules/m/streams/ssh", module),
            (Method::GET, "twins/MyDevice", twin),
        ] {
            let is_let_in = is_let_in(&service, method, call).await;
            assert_eq!(is_let_in, expected, "{path:?} and {call}");
        }
    }
}

#[tokio::test]
async fn an_operator_uses_a_token_in_place_of_a_connection_string() {
    let hub = ProgramHub::start_quiet().await;
    let ssh = Target::start(Behaviour::Echo).await;
    let connection = hub.admin(&["device", "create", "MyDevice"]);
    let device = hub.device(&connection, &format!("ssh={}", ssh.address));
    device.line("connected").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let create = |target: &str| {
        let token = hub.admin(&[
            "token", "create", "--device", "MyDevice", "--target", target,
        ]);
        // At once, so that no half of it is read.
        let new = folder.path().join("new");
        std::fs::write(&new, token + "\r\n").unwrap();
        std::fs::rename(new, &file).unwrap();
    };
    create("ssh");
    let ca_file = hub.ca_file();
    for session in ["always", "never"] {
        create("ssh");
        let arguments = [
            "listen",
            "MyDevice",
            "0:ssh",
            "0:echo",
            "--session",
            session,
            "--token-file",
            file.to_str().unwrap(),
            "--ca-file",
            &ca_file,
        ];
        let service = Program::start("service-proxy", &arguments, &[]);
        let port = async |target: &str| -> u16 {
            let line = service.line(&format!("({target})")).await;
            let rest = line.split("127.0.0.1:").nth(1).unwrap();
            rest.split(' ').next().unwrap().parse().unwrap()
        };
        let (to_ssh, to_echo) = (port("ssh").await, port("echo").await);
        assert!(echoes(to_ssh).await, "{session}");
        assert!(!echoes(to_echo).await, "{session}");
        service
            .line("it is for twins/MyDevice/streams/ssh and nothing else")
            .await;
        // Another token, without a restart.
        create("echo");
        service.line(file.to_str().unwrap()).await;
        let mut socket = connect(to_echo).await;
        assert!(is_echoed(&mut socket).await, "{}", service.output());
        assert!(!service.output().contains("sig="));
    }
}

/// A port of a service-proxy with this token, which leads to the echo of the device `d`.
async fn port_with(hub: &TestHub, token: &str, session: &str) -> u16 {
    let mut connection = hub.policy("service").await;
    connection.credential = ServiceCredential::Token(Secret::new(token));
    let line = ["listen", "--session", session, "d", "0:echo"];
    let Config::Listen(config) = service::config(hub, &connection, &line) else {
        panic!("not listen")
    };
    let listener = Listener::bind(config).await.unwrap();
    let port = listener
        .addresses()
        .find_map(|listening| match listening.address {
            Address::Tcp(address) => address.is_ipv4().then_some(address.port()),
            Address::Unix(_) => None,
        });
    tokio::spawn(listener.run(CancellationToken::new()));
    port.unwrap()
}

#[tokio::test]
async fn an_expired_token_opens_nothing_and_what_is_open_ends_when_it_is_interrupted() {
    let (hub, links) = TestHub::start_behind(slow_link::Settings::default()).await;
    let connection = hub.create("d").await;
    // Its hub session has a link of its own, which is not reset below.
    let options = ["--echo", "--transport", "mqtt"];
    let _device = TestDevice::start(&hub, &connection, &options).await;
    // The hub takes it for so long after its time, since clocks differ.
    let expiry = unix_now() - CLOCK_SKEW.as_secs() + 8;
    let token = raw_service::token(&hub.policy("service").await, expiry);
    let raw = RawService::with_token(&hub, token.clone());
    let in_session = port_with(&hub, &token, "always").await;
    let plain = port_with(&hub, &token, "never").await;
    let mut open = [connect(in_session).await, connect(plain).await];
    for socket in &mut open {
        assert!(is_echoed(socket).await);
    }
    soon("the end of the token's time", async {
        while is_let_in(&raw, Method::GET, "twins/d").await {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    for name in ["echo", "_session.echo"] {
        let refused = soon("an answer", raw.initiate("d", name, 5.0, 5.0)).await;
        assert_eq!(refusal(refused).await, (401, 401_003), "{name}");
    }
    assert!(!echoes(plain).await);
    // What is open goes on; in a session, with new connections, too.
    for socket in &mut open {
        assert!(is_echoed(socket).await);
    }
    assert!(echoes(in_session).await);

    links.https.reset_all();
    for socket in &mut open {
        assert!(!is_echoed(socket).await);
    }
    assert!(!echoes(in_session).await);
}

/// A device that is connected with a policy's key.
async fn device(hub: &TestHub, id: &str, policy: &ServiceConnectionString) -> RawDevice {
    let connection = hub.create(id).await;
    let ServiceCredential::Key(key) = &policy.credential else {
        panic!("no key")
    };
    let resource = format!("{}/devices/{id}", policy.host.name());
    let password = sas_token::mint(&resource, key, Some(&policy.policy), unix_now() + 3600);
    let mut device = RawDevice::open(hub).await;
    let code = device.hello(&connection, password.expose()).await;
    assert_eq!(code, ConnectReturnCode::Accepted);
    device
}

async fn is_here(device: &mut RawDevice) -> bool {
    device.try_send(&[0xc0, 0]).await.is_ok() && device.answers_ping().await
}

async fn ended(device: &mut RawDevice) {
    soon("the end of the device's session", async {
        while is_here(device).await {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn the_keys_of_a_policy_change_one_at_a_time_and_end_with_it() {
    let hub = TestHub::start().await;
    let own = hub.create("Own").await;
    let mut own = RawDevice::connect(&hub, &own).await;
    let data_dir = hub.data_dir();
    let data_dir = data_dir.to_str().unwrap();
    let admin = |arguments: &[&str]| {
        let line = [arguments, &["--data-dir", data_dir]].concat();
        let (ok, out, talk) = run("stream-hub", &line);
        (ok, out.trim_end().to_owned() + &talk)
    };
    let allow = ["--allow", "serviceconnect,DeviceConnect"];
    let create = [&["policy", "create", "fleet"], &allow[..]].concat();
    assert!(admin(&create).0);
    let (ok, said) = admin(&create);
    assert!(!ok && said.contains("already"), "{said}");
    let service = |secondary: &[&str]| {
        let line = [&["policy", "connection-string", "fleet"], secondary].concat();
        ServiceConnectionString::parse(&admin(&line).1).unwrap()
    };
    let (primary, secondary) = (service(&[]), service(&["--secondary"]));
    let is_valid = async |policy: &ServiceConnectionString| {
        let token = raw_service::token(policy, unix_now() + 3600);
        let service = RawService::with_token(&hub, token);
        is_let_in(&service, Method::GET, "twins/Own").await
    };
    assert!(is_valid(&primary).await && is_valid(&secondary).await);
    let mut first = device(&hub, "First", &primary).await;
    let mut second = device(&hub, "Second", &secondary).await;

    assert!(admin(&["policy", "regenerate-key", "fleet"]).0);
    assert!(!is_valid(&primary).await);
    assert!(is_valid(&secondary).await && is_valid(&service(&[])).await);
    ended(&mut first).await;
    assert!(is_here(&mut second).await && is_here(&mut own).await);

    assert!(admin(&["policy", "delete", "fleet"]).0);
    assert!(!is_valid(&secondary).await);
    ended(&mut second).await;
    assert!(is_here(&mut own).await);
    for again in [
        &["policy", "delete", "fleet"][..],
        &["policy", "regenerate-key", "fleet"],
        &["policy", "create", "a b"],
        &["policy", "create", "fleet", "--allow", "Everything"],
    ] {
        assert!(!admin(again).0, "{again:?}");
    }
}

#[tokio::test]
async fn tokens_that_would_open_nothing_are_not_made() {
    let hub = ProgramHub::start_quiet().await;
    hub.admin(&["device", "create", "MyDevice"]);
    let data_dir = hub.data_dir();
    for (arguments, said, code) in [
        (&["--device", "Other"][..], "there is no device Other", 1),
        (
            &["--device", "MyDevice", "--module", "m"],
            "there is no module",
            1,
        ),
        (
            &["--device", "MyDevice", "--target", "_session.ssh"],
            "does not begin with _session.",
            2,
        ),
        (
            &["--device", "MyDevice", "--policy", "registryRead"],
            "does not allow ServiceConnect",
            1,
        ),
        (
            &["--device", "MyDevice", "--policy", "nobody"],
            "there is no shared access policy",
            1,
        ),
        (&["--device", "MyDevice", "--ttl", "1s"], "--ttl", 2),
        (&[], "--device", 2),
    ] {
        let command = ["token", "create", "--data-dir", &data_dir];
        let mut program = Program::start("stream-hub", &[&command, arguments].concat(), &[]);
        let exit_code = program.exit_code().await;
        let (_, output) = program.ended().await;
        assert!(output.contains(said), "{arguments:?}: {output}");
        assert_eq!(exit_code, Some(code), "{arguments:?}: {output}");
        assert!(!output.contains("sig="), "{output}");
    }
}
