//! Devices that authenticate with certificates of a registered CA.

use clap::Parser as _;
use common::connection_string::{DeviceConnectionString, DeviceCredential};
use common::tls::ClientIdentity;
use hub::cli::{Cli, Command};
use hub::commands::{self, CommandError};
use hub::registry::Authentication;
use reqwest::Method;
use tests::device::config;
use tests::{TestAuthority, TestDevice, TestHub, soon, wait};
use time::Duration;
use tokio_util::sync::CancellationToken;

const DAY: Duration = Duration::DAY;

/// Runs a `stream-hub` command beside the hub: what it prints, data and messages.
async fn admin(hub: &TestHub, words: &[&str]) -> Result<(String, String), CommandError> {
    let cli = Cli::parse_from(["stream-hub"].iter().chain(words));
    let Command::Admin(command) = cli.command else {
        panic!("{words:?} is no admin command")
    };
    let (mut out, mut talk) = (Vec::new(), Vec::new());
    commands::run(&hub.data_dir(), command, &mut out, &mut talk).await?;
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ok((text(out), text(talk)))
}

async fn add(hub: &TestHub, ca: &TestAuthority, options: &[&str]) {
    let file = ca.file();
    let words = [&["ca", "add", ca.name(), file.to_str().unwrap()], options].concat();
    admin(hub, &words).await.unwrap();
}

/// A device of this kind, made by the command, or a module.
async fn create(hub: &TestHub, id: &str) -> DeviceConnectionString {
    let line = match id.split_once('/') {
        None => vec!["device", "create", id, "--x509-ca"],
        Some((device, module)) => vec!["module", "create", device, module, "--x509-ca"],
    };
    let (out, _) = admin(hub, &line).await.unwrap();
    let connection = DeviceConnectionString::parse(out.trim()).unwrap();
    assert_eq!(connection.credential, DeviceCredential::X509);
    connection
}

/// Connects a device-proxy with this certificate, waiting until the hub knows the CA.
async fn connect(
    hub: &TestHub,
    connection: &DeviceConnectionString,
    certificate: &[String; 4],
    transport: &str,
) -> TestDevice {
    let mut line: Vec<&str> = certificate.iter().map(String::as_str).collect();
    line.extend(["--transport", transport, "--echo"]);
    TestDevice::start(hub, connection, &line).await
}

/// Whether a device-proxy with this certificate is refused at its first start.
async fn is_refused(
    hub: &TestHub,
    connection: &DeviceConnectionString,
    certificate: &[String; 4],
) -> bool {
    let mut line: Vec<&str> = certificate.iter().map(String::as_str).collect();
    line.push("--echo");
    let stop = CancellationToken::new();
    let running = device_proxy::run(config(hub, connection, &line), stop.clone());
    let running = tokio::spawn(running);
    let is_connected = || hub.state.presence.is_connected(&connection.identity);
    wait("a decision", || running.is_finished() || is_connected()).await;
    stop.cancel();
    match soon("its end", running).await.unwrap() {
        Ok(()) => false,
        Err(error) => {
            let text = common::report::chain(&error);
            assert!(text.contains("no CA of the hub has signed it"), "{text}");
            true
        }
    }
}

/// Waits until the serving hub has seen the change: the refused are judged anew.
async fn until_refused(
    hub: &TestHub,
    connection: &DeviceConnectionString,
    certificate: &[String; 4],
) {
    soon("the change", async {
        while !is_refused(hub, connection, certificate).await {}
    })
    .await;
}

async fn until_gone(hub: &TestHub, connection: &DeviceConnectionString) {
    wait("the end of the session", || {
        !hub.state.presence.is_connected(&connection.identity)
    })
    .await;
}

#[tokio::test]
async fn a_chain_opens_its_own_device_over_both_transports() {
    let hub = TestHub::start().await;
    let root = TestAuthority::root("fleet");
    let factory = root.intermediate("factory");
    let line = factory.intermediate("line");
    let [a, b, module] = [
        create(&hub, "A").await,
        create(&hub, "B").await,
        create(&hub, "A/m").await,
    ];
    let own = line.arguments("A", 1, DAY);
    // Not before the CA is registered.
    assert!(is_refused(&hub, &a, &own).await);
    add(&hub, &root, &[]).await;
    wait("the hub's look", || {
        format!("{:?}", hub.state.auth.authorities()).contains("fleet")
    })
    .await;
    for transport in ["mqtt", "mqtt-ws"] {
        for ca in [&root, &factory, &line] {
            let device = connect(&hub, &a, &ca.arguments("A", 2, DAY), transport).await;
            device.shut_down().await.unwrap();
            until_gone(&hub, &a).await;
        }
        let of_module = line.arguments("A/m", 3, DAY);
        let device = connect(&hub, &module, &of_module, transport).await;
        device.shut_down().await.unwrap();
        until_gone(&hub, &module).await;
        // A certificate for A never opens B, nor A's module, nor the other way round.
        for (connection, certificate) in [(&b, &own), (&module, &own), (&a, &of_module)] {
            assert!(is_refused(&hub, connection, certificate).await);
        }
    }
    // Another CA of the same name.
    let other = TestAuthority::root("fleet").intermediate("factory");
    assert!(is_refused(&hub, &a, &other.arguments("A", 4, DAY)).await);
    // A device with keys is not opened, although the name is its own.
    let mut keys = hub.create("keys").await;
    keys.credential = DeviceCredential::X509;
    assert!(is_refused(&hub, &keys, &root.arguments("keys", 5, DAY)).await);
}

#[tokio::test]
async fn removing_a_ca_ends_its_sessions_and_no_others() {
    let hub = TestHub::start().await;
    let (one, two) = (TestAuthority::root("one"), TestAuthority::root("two"));
    add(&hub, &one, &[]).await;
    add(&hub, &two, &[]).await;
    let (a, b) = (create(&hub, "A").await, create(&hub, "B").await);
    let (own_a, own_b) = (one.arguments("A", 1, DAY), two.arguments("B", 1, DAY));
    wait("the hub's look", || {
        format!("{:?}", hub.state.auth.authorities()).contains("two")
    })
    .await;
    let device_a = connect(&hub, &a, &own_a, "mqtt").await;
    let device_b = connect(&hub, &b, &own_b, "mqtt-ws").await;
    let file = one.file();
    let again = ["ca", "add", "uno", file.to_str().unwrap()];
    let error = admin(&hub, &again).await.unwrap_err();
    assert!(matches!(error, CommandError::AuthorityKnown(_)), "{error}");

    admin(&hub, &["ca", "remove", "one"]).await.unwrap();
    until_gone(&hub, &a).await;
    until_refused(&hub, &a, &own_a).await;
    assert!(hub.state.presence.is_connected(&b.identity));
    drop(device_a);
    // Added again, under whichever name.
    admin(&hub, &again).await.unwrap();
    wait("the hub's look", || {
        format!("{:?}", hub.state.auth.authorities()).contains("uno")
    })
    .await;
    let device_a = connect(&hub, &a, &own_a, "mqtt").await;
    // An identity that is given keys has no use for its certificate.
    let registry: &dyn hub::registry::Registry = &*hub.state.registry;
    let settings = hub::registry::IdentitySettings::new(Authentication::random_keys());
    let any = hub::registry::IfMatch::Any;
    registry.update(&a.identity, settings, any).await.unwrap();
    until_gone(&hub, &a).await;
    drop((device_a, device_b));
}

#[tokio::test]
async fn a_revocation_list_is_followed_while_the_hub_runs() {
    let hub = TestHub::start().await;
    let root = TestAuthority::root("fleet");
    let folder = tempfile::tempdir().unwrap();
    let crl = folder.path().join("crl.pem");
    std::fs::write(&crl, root.revoking(&[9])).unwrap();
    add(&hub, &root, &["--crl", crl.to_str().unwrap()]).await;
    let (a, b) = (create(&hub, "A").await, create(&hub, "B").await);
    let (own_a, own_b) = (root.arguments("A", 1, DAY), root.arguments("B", 2, DAY));
    wait("the hub's look", || {
        format!("{:?}", hub.state.auth.authorities()).contains("fleet")
    })
    .await;
    assert!(is_refused(&hub, &a, &root.arguments("A", 9, DAY)).await);
    let device_a = connect(&hub, &a, &own_a, "mqtt").await;
    let device_b = connect(&hub, &b, &own_b, "mqtt").await;
    // As CAs write it: beside it, and then in its place.
    let replace = |serials: &[u64]| {
        let new = folder.path().join("new");
        std::fs::write(&new, root.revoking(serials)).unwrap();
        std::fs::rename(&new, &crl).unwrap();
    };
    replace(&[1, 9]);
    until_gone(&hub, &a).await;
    until_refused(&hub, &a, &own_a).await;
    assert!(hub.state.presence.is_connected(&b.identity));
    drop(device_a);
    // Without a list that can be read the last one counts.
    std::fs::write(&crl, "no list").unwrap();
    let (out, _) = admin(&hub, &["ca", "list", "--json"]).await.unwrap();
    let listed: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(listed[0]["name"], "fleet");
    assert_eq!(listed[0]["subject"], "CN=fleet");
    assert_eq!(listed[0]["crlFile"], crl.to_str().unwrap());
    let error = admin(&hub, &["ca", "crl", "fleet", crl.to_str().unwrap()]).await;
    assert!(matches!(error, Err(CommandError::Ca(_))));
    assert!(is_refused(&hub, &a, &own_a).await);
    assert!(hub.state.presence.is_connected(&b.identity));
    // Without any list nothing is revoked.
    admin(&hub, &["ca", "crl", "fleet", "--none"])
        .await
        .unwrap();
    soon("the change", async {
        while is_refused(&hub, &a, &own_a).await {}
    })
    .await;
    drop(device_b);
}

#[tokio::test]
async fn a_session_ends_with_its_certificate() {
    let hub = TestHub::start().await;
    let root = TestAuthority::root("fleet");
    add(&hub, &root, &[]).await;
    let a = create(&hub, "A").await;
    wait("the hub's look", || {
        format!("{:?}", hub.state.auth.authorities()).contains("fleet")
    })
    .await;
    let short = root.arguments("A", 1, Duration::seconds(4));
    let device = connect(&hub, &a, &short, "mqtt").await;
    until_gone(&hub, &a).await;
    drop(device);
    assert!(is_refused(&hub, &a, &short).await);
}

#[tokio::test]
async fn what_is_no_ca_is_not_added() {
    let hub = TestHub::start().await;
    let root = TestAuthority::root("fleet");
    let factory = root.intermediate("factory");
    let [_, leaf, _, key] = factory.arguments("A", 1, DAY);
    let both = tempfile::NamedTempFile::new().unwrap();
    let files = [root.file(), factory.file()].map(|file| std::fs::read_to_string(file).unwrap());
    std::fs::write(both.path(), files.concat()).unwrap();
    let wrong_crl = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(wrong_crl.path(), factory.revoking(&[])).unwrap();
    let (file, both) = (root.file(), both.path());
    let (file, both) = (file.to_str().unwrap(), both.to_str().unwrap());
    let wrong_crl = wrong_crl.path().to_str().unwrap();
    for (words, part) in [
        (vec!["ca", "add", "x", &leaf], "2 certificates"),
        (vec!["ca", "add", "x", &key], "no PEM certificate"),
        (vec!["ca", "add", "x", both], "2 certificates"),
        (vec!["ca", "add", "x", "/no/such/file"], "/no/such/file"),
        (
            vec!["ca", "add", "x", file, "--crl", wrong_crl],
            "of this CA",
        ),
        (
            vec!["ca", "add", "x", file, "--crl", file],
            "no revocation list",
        ),
        (vec!["ca", "remove", "x"], "no CA \"x\""),
        (vec!["ca", "crl", "x", "--none"], "no CA \"x\""),
    ] {
        let error = admin(&hub, &words).await.unwrap_err();
        let text = common::report::chain(&error);
        assert!(text.contains(part), "{words:?}: {text}");
    }
    let [_, leaf, _, _] = root.arguments("A", 2, DAY);
    let error = admin(&hub, &["ca", "add", "x", &leaf]).await.unwrap_err();
    let text = common::report::chain(&error);
    assert!(text.contains("not a CA's certificate"), "{text}");
    let (_, talk) = admin(&hub, &["ca", "list"]).await.unwrap();
    assert!(talk.contains("there are no CAs"), "{talk}");
}

/// The hub's answer to a request, with a client certificate or a token.
async fn rest(
    hub: &TestHub,
    method: Method,
    path: &str,
    certificate: Option<&[String; 4]>,
    body: Option<serde_json::Value>,
) -> (u16, serde_json::Value) {
    let identity = certificate.map(|[_, certificate, _, key]| ClientIdentity {
        certificate: certificate.into(),
        key: key.into(),
    });
    let tls = common::tls::client_config(Some(&hub.ca_file()), identity.as_ref()).unwrap();
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured((*tls).clone())
        .no_proxy()
        .build()
        .unwrap();
    let url = format!(
        "https://localhost:{}{path}?api-version=2021-04-12",
        hub.https.port()
    );
    let mut request = client.request(method, url);
    if certificate.is_none() {
        let owner = hub.policy("iothubowner").await;
        request = request.header(
            "Authorization",
            tests::raw_service::token(&owner, common::clock::unix_now() + 60),
        );
    }
    if let Some(body) = body {
        request = request
            .header("Content-Type", "application/json")
            .body(body.to_string());
    }
    let response = soon("an answer", request.send()).await.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or_default())
}

#[tokio::test]
async fn the_rest_api_knows_the_kind_and_believes_the_certificate() {
    let hub = TestHub::start().await;
    let root = TestAuthority::root("fleet");
    add(&hub, &root, &[]).await;
    let kind = serde_json::json!({ "type": "certificateAuthority" });
    let put = serde_json::json!({ "deviceId": "A", "authentication": kind });
    let (status, made) = rest(&hub, Method::PUT, "/devices/A", None, Some(put)).await;
    assert_eq!(
        (status, &made["authentication"]["type"]),
        (200, &kind["type"])
    );
    let bulk = serde_json::json!([{ "id": "B", "importMode": "create", "authentication": kind }]);
    let (status, _) = rest(&hub, Method::POST, "/devices", None, Some(bulk)).await;
    assert_eq!(status, 200);
    let (_, read) = rest(&hub, Method::GET, "/devices/B", None, None).await;
    assert_eq!(read["authentication"]["type"], kind["type"]);
    wait("the hub's look", || {
        format!("{:?}", hub.state.auth.authorities()).contains("fleet")
    })
    .await;
    let own = root.arguments("A", 1, DAY);
    let get = |path| rest(&hub, Method::GET, path, Some(&own), None);
    assert_eq!(get("/devices/A/modules").await.0, 200);
    for path in ["/devices/B/modules", "/devices/A", "/devices", "/twins/A"] {
        assert_eq!(get(path).await.0, 401, "{path}");
    }
    let other = TestAuthority::root("fleet");
    let stranger = other.arguments("A", 1, DAY);
    let path = "/devices/A/modules";
    let (status, _) = rest(&hub, Method::GET, path, Some(&stranger), None).await;
    assert_eq!(status, 401);
}
