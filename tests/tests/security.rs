//! The threat model (`docs/security.md`): that each test which it names is there, and those of its
//! promises that have no other place.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use common::clock::unix_now;
use common::connection_string::{DeviceConnectionString, ServiceConnectionString};
use common::net::{self, TlsHostStream};
use common::secret::SharedKey;
use tests::programs::{Program, binary};
use tests::raw_hub::answer;
use tests::{RawHub, TestHub, raw_service, soon};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

fn text_of(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Whether a file of tests has this one: a function behind an attribute that makes it a test, or in a
/// suite of Python a step whose title has these words.
fn has_test(file: &str, name: &str) -> bool {
    let text = text_of(file);
    if file.ends_with(".py") {
        return text.contains(name);
    }
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.iter().enumerate().any(|(at, line)| {
        let is_it = [format!("fn {name}("), format!("async fn {name}(")]
            .iter()
            .any(|start| line.starts_with(start));
        let mut before = lines[..at].iter().rev();
        let is_test =
            |line: &&str| line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        // proptest's functions stand in a macro.
        is_it
            && before
                .by_ref()
                .take_while(|line| line.starts_with('#'))
                .any(is_test)
    })
}

#[test]
fn every_promise_of_the_threat_model_has_a_test_that_is_there() {
    let text = text_of("docs/security.md");
    let mut named = 0;
    for line in text.lines() {
        let mut tests = line
            .split('`')
            .skip(1)
            .step_by(2)
            .filter_map(|code| code.split_once("::"));
        let of_files: Vec<_> = tests
            .by_ref()
            .filter(|(file, _)| file.ends_with(".rs") || file.ends_with(".py"))
            .collect();
        for (file, name) in &of_files {
            assert!(has_test(file, name), "{file} has no test {name}");
            named += 1;
        }
        // In the tables every row is a promise, but for their heads.
        let is_row =
            line.starts_with("| ") && !line.starts_with("| **") && !line.starts_with("| ---");
        assert!(!is_row || !of_files.is_empty(), "no test is named: {line}");
    }
    assert!(named > 60, "only {named} tests are named");
}

#[test]
fn a_missing_test_is_noticed() {
    let own = "tests/tests/security.rs";
    assert!(has_test(own, "a_missing_test_is_noticed"));
    // A function that is no test, and a name in a text.
    assert!(!has_test(own, "has_test"));
    assert!(!has_test(own, "every_promise"));
    assert!(has_test(
        "tests/realworld/tls.py",
        "no finding without an explanation"
    ));
}

/// Secrets are compared in constant time: by their types, which derive no comparison.
#[test]
fn types_of_secrets_derive_no_comparison() {
    for (file, names) in [
        ("common/src/secret.rs", &["Secret", "SharedKey"][..]),
        ("common/src/tls/pinned.rs", &["Fingerprint"]),
        (
            "common/session/src/proto/proof.rs",
            &["ResumeSecret", "Proof"],
        ),
    ] {
        let text = text_of(file);
        assert!(text.contains("verify_slices_are_equal"), "{file}");
        for name in names {
            let (before, _) = text.split_once(&format!("pub struct {name}(")).unwrap();
            let attributes = before.rsplit("\n\n").next().unwrap();
            assert!(!attributes.contains("PartialEq"), "{file}: {name}");
            assert!(
                text.contains(&format!("impl PartialEq for {name}")),
                "{file}: {name}"
            );
        }
    }
}

async fn connect(hub: &TestHub) -> TlsHostStream {
    let dialer = net::Dialer::new(&hub.tls());
    dialer.tls("localhost", hub.https.port()).await.unwrap()
}

/// Sends a request, and reads the answer's status line, or nothing.
async fn status(hub: &TestHub, request: &str) -> String {
    let mut stream = connect(hub).await;
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    let _ = soon("an answer", async {
        while !bytes.contains(&b'\n') {
            match stream.read_u8().await {
                Ok(byte) => bytes.push(byte),
                Err(_) => break,
            }
        }
    })
    .await;
    String::from_utf8(bytes).unwrap().trim().to_owned()
}

/// Fails when anything connects to it.
struct Trap(TcpListener);

impl Trap {
    async fn set() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    fn address(&self) -> String {
        self.0.local_addr().unwrap().to_string()
    }

    /// A connection of our own comes behind all that were made before.
    async fn is_empty(&self) -> bool {
        let own = TcpStream::connect(self.0.local_addr().unwrap())
            .await
            .unwrap();
        let (first, peer) = soon("our own connection", self.0.accept()).await.unwrap();
        drop(first);
        peer == own.local_addr().unwrap()
    }
}

#[tokio::test]
async fn a_hub_is_no_proxy_to_other_hosts() {
    let hub = TestHub::start().await;
    let trap = Trap::set().await;
    let other = trap.address();
    let token = raw_service::token(&hub.policy("iothubowner").await, unix_now() + 60);
    for request in [
        format!("GET http://{other}/ HTTP/1.1\r\nHost: {other}\r\n"),
        format!("GET https://{other}/devices HTTP/1.1\r\nHost: {other}\r\n"),
        format!("GET http://{other}/devices HTTP/1.1\r\nHost: localhost\r\n"),
        format!("CONNECT {other} HTTP/1.1\r\nHost: {other}\r\n"),
        format!("GET //{other}/devices HTTP/1.1\r\nHost: localhost\r\n"),
        format!("GET /{other} HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-Host: {other}\r\n"),
        format!("GET /devices/http:%2f%2f{other}%2f HTTP/1.1\r\nHost: localhost\r\n"),
    ] {
        // Also of somebody who may do everything.
        for authorization in [String::new(), format!("Authorization: {token}\r\n")] {
            let answer = status(&hub, &format!("{request}{authorization}\r\n")).await;
            // A path of the hub's own is answered, whatever host stands before it.
            let is_own = request.contains("/devices HTTP") && !request.contains("GET //");
            let is_answered = answer.contains(" 200 ");
            let expected = is_own && !authorization.is_empty();
            assert_eq!(is_answered, expected, "{request}: {answer}");
        }
    }
    assert!(trap.is_empty().await, "the hub has connected there");
}

#[tokio::test]
async fn where_a_request_is_routed_says_nothing_of_who_sends_it() {
    let hub = TestHub::start().await;
    let owner = hub.policy("iothubowner").await;
    let good = raw_service::token(&owner, unix_now() + 60);
    let mut elsewhere = owner.clone();
    elsewhere.host = common::hub_address::HubAddress::parse("other.example").unwrap();
    let of_other = raw_service::token(&elsewhere, unix_now() + 60);
    let request = |headers: &str| format!("GET /devices HTTP/1.1\r\n{headers}\r\n");
    for hints in [
        "Host: other.example\r\n",
        "Host: localhost\r\nX-Forwarded-For: 127.0.0.1\r\nForwarded: for=127.0.0.1;host=other.example\r\n",
        "Host: localhost\r\nX-Real-IP: 127.0.0.1\r\nX-SSL-Client-Verify: SUCCESS\r\nX-SSL-Client-CN: d\r\n",
        "Host: localhost\r\niothub-policy: iothubowner\r\nX-MS-Client-Principal-Name: iothubowner\r\n",
    ] {
        let without = status(&hub, &request(hints)).await;
        assert!(without.contains(" 401 "), "{hints}: {without}");
        // A token for another hub, which the Host header names.
        let other = format!("{hints}Authorization: {of_other}\r\n");
        let other = status(&hub, &request(&other)).await;
        assert!(other.contains(" 401 "), "{hints}: {other}");
        let own = format!("{hints}Authorization: {good}\r\n");
        let own = status(&hub, &request(&own)).await;
        assert!(own.contains(" 200 "), "{hints}: {own}");
    }
}

#[tokio::test]
async fn no_port_speaks_without_tls() {
    let hub = TestHub::start().await;
    let request = b"GET /devices HTTP/1.1\r\nHost: localhost\r\n\r\n";
    // CONNECT of MQTT 3.1.1, with a clean session and the id `d`.
    let connect = [
        16, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, 1, b'd',
    ];
    for port in [hub.https.port(), hub.mqtts.port(), hub.amqps.port()] {
        for bytes in [&request[..], &connect] {
            let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            socket.write_all(bytes).await.unwrap();
            let mut read = Vec::new();
            let _ = soon("its end", socket.read_to_end(&mut read)).await;
            // At most an alert of TLS.
            assert!(read.is_empty() || read[0] == 21, "{port}: {read:?}");
        }
    }
}

/// A hub that answers the first request of a program with a redirect elsewhere.
async fn redirects(program: &str, arguments: &[&str], variable: &str, string: &str, hub: &RawHub) {
    let trap = Trap::set().await;
    let location = trap.address();
    let ca_file = hub.ca_file();
    let words = [&["--ca-file", ca_file.to_str().unwrap()], arguments].concat();
    let mut running = Program::start(program, &words, &[(variable, string)]);
    for code in [
        "301 Moved Permanently",
        "302 Found",
        "307 Temporary Redirect",
        "308 Permanent Redirect",
    ] {
        let (stream, head) = tokio::select! {
            asked = hub.request() => asked,
            // A program that gives up after one of them asks no more.
            _ = running.exit_code() => break,
        };
        assert!(!head.contains(&location), "{head}");
        let text = format!(
            "HTTP/1.1 {code}\r\nLocation: https://{location}/\r\nRetry-After: 0\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        answer(stream, text.as_bytes()).await;
    }
    assert!(trap.is_empty().await, "{program} has followed a redirect");
}

#[tokio::test]
async fn no_program_follows_a_redirect_with_its_credentials() {
    let key = SharedKey::random().to_base64();
    let hub = RawHub::start().await;
    let host = format!("localhost:{}", hub.https_port());
    let device = format!(
        "HostName={host};DeviceId=d;SharedAccessKey={}",
        key.expose()
    );
    assert!(DeviceConnectionString::parse(&device).is_ok());
    let of_device = "IOTHUB_DEVICE_CONNECTION_STRING";
    let line = ["--echo", "--transport", "mqtt-ws"];
    redirects("device-proxy", &line, of_device, &device, &hub).await;
    let hub = RawHub::start().await;
    let host = format!("localhost:{}", hub.https_port());
    let service = format!(
        "HostName={host};SharedAccessKeyName=service;SharedAccessKey={}",
        key.expose()
    );
    assert!(ServiceConnectionString::parse(&service).is_ok());
    let line = ["query", "SELECT * FROM devices"];
    redirects(
        "service-proxy",
        &line,
        "IOTHUB_CONNECTION_STRING",
        &service,
        &hub,
    )
    .await;
}

/// Other users of a machine see the arguments of every program.
#[test]
fn no_unit_and_no_image_has_a_secret_in_its_arguments() {
    let mut files = vec!["Dockerfile".to_owned(), "compose.yaml".to_owned()];
    for unit in ["stream-hub", "device-proxy", "service-proxy"] {
        files.push(format!("packaging/systemd/{unit}.service"));
    }
    for file in files {
        let text = text_of(&file);
        for line in text.lines() {
            let is_command = ["ExecStart", "command:", "entrypoint:", "CMD", "ENTRYPOINT"]
                .iter()
                .any(|word| line.trim_start().starts_with(word));
            for word in ["SharedAccess", "--connection-string ", "--primary-key "] {
                assert!(!(is_command && line.contains(word)), "{file}: {line}");
            }
        }
        if file.ends_with(".service") {
            let start = text
                .lines()
                .find(|line| line.starts_with("ExecStart="))
                .unwrap();
            let options: Vec<_> = start
                .split(' ')
                .filter(|word| word.starts_with("--"))
                .collect();
            assert_eq!(options, ["--config"], "{file}");
        }
    }
}

/// What cannot be used as any setting: neither a number, a name, a file nor a URL.
const UNUSABLE: &str = "/no such\u{7}/§ ;;=,:://";

/// Those that count for one command alone, where some may be any text: what is no text is refused.
const OF_COMMANDS: [(&str, &[&str]); 5] = [
    ("DEVICE_PROXY_ENROLMENT", &["enrol"]),
    ("SERVICE_PROXY_ENROLMENT", &["login"]),
    (
        "SERVICE_PROXY_CLIENT_SECRET",
        &["login", "--hub", "localhost:1", "--dir", "login"],
    ),
    ("STREAM_HUB_PRIMARY_KEY", &["device", "create", "d"]),
    (
        "STREAM_HUB_WEBHOOK_SECRET",
        &["serve", "--check-config", "--config", "hub.toml"],
    ),
];

/// Whose variables begin so. Others in the documents are of other programs, or set by ours.
const OWNERS: [(&str, &str); 5] = [
    ("DEVICE_PROXY_", "device-proxy"),
    ("IOTHUB_DEVICE_", "device-proxy"),
    ("SERVICE_PROXY_", "service-proxy"),
    ("IOTHUB_CONNECTION_", "service-proxy"),
    ("STREAM_HUB_", "stream-hub"),
];

#[cfg(unix)]
fn no_text() -> OsString {
    use std::os::unix::ffi::OsStringExt as _;
    OsString::from_vec(vec![0xff])
}

#[cfg(windows)]
fn no_text() -> OsString {
    use std::os::windows::ffi::OsStringExt as _;
    OsString::from_wide(&[0xd800])
}

/// The help of a command and of all below it.
fn add_help(command: &mut clap::Command, text: &mut String) {
    *text += &command.render_long_help().to_string();
    *text += "\n";
    for below in command.get_subcommands_mut() {
        add_help(below, text);
    }
}

/// The environment variables that a program's help names, whatever the page.
fn of_help(mut command: clap::Command) -> BTreeSet<String> {
    command.build();
    let mut help = String::new();
    add_help(&mut command, &mut help);
    let help: Vec<_> = help.split_whitespace().collect();
    let help = help.join(" ");
    help.split("[env: ")
        .skip(1)
        .filter_map(|rest| Some(rest.split_once(']')?.0))
        .flat_map(|names| names.split([',', ' ']))
        // There are words between them.
        .filter(|name| name.contains('_'))
        .map(str::to_owned)
        .collect()
}

/// Those of a program that the documents and the examples name.
fn of_documents(program: &str) -> BTreeSet<String> {
    let mut variables = BTreeSet::new();
    for folder in ["docs", "examples"] {
        for file in std::fs::read_dir(root().join(folder)).unwrap() {
            let path = file.unwrap().path();
            let end = path.extension();
            if !end.is_some_and(|end| end == "md" || end == "toml") {
                continue;
            }
            let text = std::fs::read_to_string(path).unwrap();
            let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let own = words.filter(|word| {
                let is_own =
                    |(start, owner): &(&str, &str)| *owner == program && word.starts_with(*start);
                OWNERS.iter().any(is_own)
            });
            variables.extend(own.map(str::to_owned));
        }
    }
    variables
}

/// What a program says of a variable that holds nothing useful, with all that it needs beside it.
fn said_of(program: &str, line: &[&str], variable: &str) -> (Option<i32>, String) {
    let key = SharedKey::random().to_base64();
    let device = format!(
        "HostName=h.example;DeviceId=d;SharedAccessKey={}",
        key.expose()
    );
    let service = format!(
        "HostName=h.example;SharedAccessKeyName=service;SharedAccessKey={}",
        key.expose()
    );
    let of_program = match program {
        "device-proxy" => vec![("IOTHUB_DEVICE_CONNECTION_STRING", device.as_str())],
        "service-proxy" => vec![
            ("IOTHUB_CONNECTION_STRING", service.as_str()),
            ("DEVICE_ID", "d"),
            ("LOCAL_PORT", "2222"),
        ],
        _ => Vec::new(),
    };
    let mut command = std::process::Command::new(binary(program));
    command.env_clear().envs(of_program);
    if variable.contains("PROXY_AUTH") {
        let proxy = "http://127.0.0.1:1";
        command.envs([
            ("DEVICE_PROXY_PROXY", proxy),
            ("SERVICE_PROXY_PROXY", proxy),
        ]);
    }
    // Of two for the same the other one would count.
    match variable {
        "STREAMING_TARGET_DEVICE" => drop(command.env_remove("DEVICE_ID")),
        "PROXY_PORT" => drop(command.env_remove("LOCAL_PORT")),
        _ => {}
    }
    // `serve` would make the folder.
    let line = match variable {
        "STREAM_HUB_DATA_DIR" => &["device", "list"],
        _ => line,
    };
    let output = command.args(line).env(variable, UNUSABLE).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), text)
}

/// The same of one that counts for a command alone, and is no text.
fn said_by_command(program: &str, line: &[&str], variable: &str) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let told = "[approvals]\nwebhook-url = \"https://h.example/\"\n";
    std::fs::write(folder.path().join("hub.toml"), told).unwrap();
    let mut command = std::process::Command::new(binary(program));
    command.env_clear().current_dir(folder.path());
    let output = command
        .args(line)
        .env(variable, no_text())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), text)
}

/// A program of a known name had a documented variable for its users' passwords that it never read,
/// and was open to everybody. Each of ours, when it holds nothing useful, is refused by its name, or
/// by the name of the file that only it names.
#[test]
fn every_documented_variable_is_read() {
    let mut missing: BTreeSet<_> = OF_COMMANDS.map(|(variable, _)| variable).into();
    for (program, command, line) in [
        (
            "device-proxy",
            device_proxy::cli::Cli::command(),
            &["--echo", "--check-config"][..],
        ),
        (
            "service-proxy",
            service_proxy::cli::Cli::command(),
            &["--check-config"],
        ),
        (
            "stream-hub",
            hub::cli::Cli::command(),
            &["serve", "--check-config"],
        ),
    ] {
        let mut variables = of_help(command);
        assert!(variables.len() > 3, "{program}: {variables:?}");
        variables.extend(of_documents(program));
        for variable in variables {
            // As with curl, what fits no host is no mistake there.
            if variable.to_lowercase().ends_with("no_proxy") {
                continue;
            }
            let of_command = OF_COMMANDS.iter().find(|(name, _)| *name == variable);
            let (code, text, is_read) = if let Some((name, line)) = of_command {
                missing.remove(name);
                let (code, text) = said_by_command(program, line, name);
                // That it is missing would be said in other words.
                let is_refused = ["is not", "has no"]
                    .iter()
                    .any(|words| text.contains(&format!("{name} {words} ")));
                (code, text, is_refused)
            } else {
                let (code, text) = said_of(program, line, &variable);
                let is_named = text.contains(&variable) || text.contains("/no such");
                (code, text, is_named)
            };
            assert_eq!(code, Some(2), "{program} {variable}: {text}");
            assert!(is_read, "{program} {variable}: {text}");
        }
    }
    assert!(missing.is_empty(), "documented nowhere: {missing:?}");
}
