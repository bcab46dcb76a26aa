//! Input as people and their tools write it: files from Windows, quotes, line ends, values in the
//! wrong place. Harmless variations are accepted, and no error message contains a secret.

use std::path::Path;

use hub::registry::{Authentication, IdentitySettings, IfMatch};
use tests::program_hub::ProgramHub;
use tests::programs::{Program, run};
use tests::target::Behaviour;
use tests::{Target, TestDevice, TestHub, soon};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

fn utf16(text: &str) -> Vec<u8> {
    std::iter::once('\u{feff}')
        .chain(text.chars())
        .collect::<String>()
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect()
}

/// Variations of a text that tools produce.
fn variations(text: &str) -> Vec<Vec<u8>> {
    vec![
        format!("\u{feff}{text}\r\n").into_bytes(),
        utf16(&format!("{text}\r\n")),
        format!("\"{text}\"\n").into_bytes(),
        format!("'{text}'\r\n").into_bytes(),
        format!("{{\n  \"connectionString\": \"{text}\"\n}}\n").into_bytes(),
    ]
}

#[tokio::test]
async fn files_from_other_tools_are_read_by_both_proxies() {
    let hub = ProgramHub::start().await;
    let device = hub.admin(&["device", "create", "MyDevice"]);
    let service = hub.admin(&["policy", "connection-string", "service"]);
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let ca = std::fs::read_to_string(hub.ca_file()).unwrap();
    let ca_file = file("ca.pem", &utf16(&ca.replace('\n', "\r\n")));
    for (of_device, of_service) in variations(&device).into_iter().zip(variations(&service)) {
        let of_device = file("device.cs", &of_device);
        let of_service = file("service.cs", &of_service);
        let options = [
            "--connection-string-file",
            &of_device,
            "--echo",
            "--ca-file",
            &ca_file,
        ];
        // An empty variable counts as unset, for the log level too.
        let nothing = [("DEVICE_PROXY_LOG", ""), ("DEVICE_PROXY_SESSION", "")];
        let mut device = Program::start("device-proxy", &options, &nothing);
        device.line("connected").await;
        let line = [
            "echo",
            "MyDevice",
            "--count",
            "1",
            "--connection-string-file",
            &of_service,
            "--ca-file",
            &ca_file,
        ];
        let (ok, out, err) = run("service-proxy", &line);
        assert!(ok && out.contains("1 sent, 1 received"), "{out}{err}");
        device.kill().await;
    }
}

#[tokio::test]
async fn a_variable_with_quotes_and_line_ends_is_read() {
    let hub = ProgramHub::start().await;
    let device = hub.admin(&["device", "create", "MyDevice"]);
    let quoted = format!("\"{device}\"\r");
    let options = ["--echo", "--ca-file", &hub.ca_file()];
    let variables = [("IOTHUB_DEVICE_CONNECTION_STRING", quoted.as_str())];
    let device = Program::start("device-proxy", &options, &variables);
    device.line("connected").await;
}

const KEY: &str = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";

#[test]
fn no_usage_error_repeats_a_secret() {
    let whole = format!("HostName=h.example;SharedAccessKeyName=service;SharedAccessKey={KEY}");
    let of_device = format!("HostName=h.example;DeviceId=d;SharedAccessKey={KEY}");
    let named = format!("SharedAccessKey={KEY}");
    let token = format!(
        "SharedAccessSignature sr=h&sig={}&se=1",
        KEY.replace('=', "%3D")
    );
    let sig = format!("sr=h&sig={}&se=1", KEY.replace('=', "%3D"));
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data").to_str().unwrap().to_owned();
    let mut tried = 0;
    for secret in [&whole, &of_device, &named, &KEY.to_owned(), &token, &sig] {
        let lines: Vec<(&str, Vec<&str>)> = vec![
            ("service-proxy", vec!["connect", secret]),
            ("service-proxy", vec!["connect", "d", secret]),
            ("service-proxy", vec!["listen", secret, "2222"]),
            ("service-proxy", vec!["listen", "d", secret]),
            ("service-proxy", vec!["echo", secret]),
            ("service-proxy", vec!["--stream", secret, "d", "22"]),
            ("service-proxy", vec!["d", secret]),
            ("service-proxy", vec!["x", "y", "22", secret]),
            ("service-proxy", vec!["--session", secret]),
            ("device-proxy", vec!["--target", secret]),
            ("device-proxy", vec!["--session", secret]),
            ("device-proxy", vec!["x", secret, "22"]),
            ("device-proxy", vec!["x", "localhost", secret]),
            ("device-proxy", vec!["x", "localhost", "22", secret]),
            ("device-proxy", vec!["--mqtts-port", secret]),
            (
                "stream-hub",
                vec!["device", "create", secret, "--data-dir", &data],
            ),
            (
                "stream-hub",
                vec!["device", "show", secret, "--data-dir", &data],
            ),
            (
                "stream-hub",
                vec!["module", "create", "d", secret, "--data-dir", &data],
            ),
            (
                "stream-hub",
                vec!["policy", "connection-string", secret, "--data-dir", &data],
            ),
            (
                "stream-hub",
                vec!["serve", "--hostname", secret, "--data-dir", &data],
            ),
            (
                "stream-hub",
                vec!["serve", "--https", secret, "--data-dir", &data],
            ),
            ("stream-hub", vec![secret]),
        ];
        for (program, line) in lines {
            let (ok, out, err) = run(program, &line);
            assert!(!ok, "{program} {line:?}: {out}");
            for piece in [KEY.trim_end_matches('='), "Ozw9Pj8"] {
                assert!(
                    !out.contains(piece) && !err.contains(piece),
                    "{program} {line:?}: {err}"
                );
            }
            tried += 1;
        }
    }
    assert_eq!(tried, 6 * 22);
}

#[test]
fn mistakes_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let none = folder.path().join("hub-dta");
    let none_text = none.to_str().unwrap();
    let cs = format!("HostName=h.example;DeviceId=d;SharedAccessKey={KEY}");
    let service = format!("HostName=h.example;SharedAccessKeyName=s;SharedAccessKey={KEY}");
    let long = "n".repeat(125);
    let cases: Vec<(&str, Vec<&str>, &str)> = vec![
        (
            "stream-hub",
            vec!["device", "list", "--data-dir", none_text],
            "--data-dir",
        ),
        (
            "stream-hub",
            vec!["device", "show", "d", "--data-dir", none_text],
            "--data-dir",
        ),
        (
            "stream-hub",
            vec!["module", "list", "d", "--data-dir", none_text],
            "--data-dir",
        ),
        (
            "stream-hub",
            vec!["policy", "list", "--data-dir", none_text],
            "--data-dir",
        ),
        (
            "stream-hub",
            vec!["endpoints", "--data-dir", none_text],
            "--data-dir",
        ),
        (
            "device-proxy",
            vec![&cs, "localhost", "22", "--max-streams", "0"],
            "max-streams",
        ),
        (
            "device-proxy",
            vec![&cs, "--target", "user@localhost:22"],
            "names a user",
        ),
        (
            "device-proxy",
            vec![&cs, " localhost", "22"],
            "not the name or address",
        ),
        (
            "device-proxy",
            vec![&cs, "localhost:22", "22"],
            "already has a port",
        ),
        (
            "device-proxy",
            vec![&cs, "localhost\r", "22"],
            "not the name or address",
        ),
        (
            "device-proxy",
            vec!["HostName=h.example", "localhost", "22"],
            "unquoted `;`",
        ),
        (
            "service-proxy",
            vec!["HostName=h.example", "d", "22"],
            "unquoted `;`",
        ),
        (
            "service-proxy",
            vec!["--session", "always", &service, "listen", "d", &long],
            "not",
        ),
    ];
    for (program, line, part) in cases {
        let (ok, out, err) = run(program, &line);
        assert!(!ok, "{program} {line:?}: {out}");
        assert!(err.contains(part), "{program} {line:?}: {err}");
    }
    let forward = format!("2222:{long}");
    let line = ["--session", "always", &service, "listen", "d", &forward];
    let (ok, _, err) = run("service-proxy", &line);
    assert!(
        !ok && err.contains("too long a name for session mode"),
        "{err}"
    );
    assert!(!Path::new(none_text).exists(), "nothing was made");
}

/// A policy's key is rotated while service-proxy runs.
#[tokio::test]
async fn a_changed_connection_string_is_read_again() {
    let hub = ProgramHub::start().await;
    let connection = hub.admin(&["device", "create", "MyDevice"]);
    let target = Target::start(Behaviour::Echo).await;
    let device = hub.device(&connection, &target.address.to_string());
    device.line("connected").await;
    let old = hub.admin(&["policy", "connection-string", "service"]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("service.cs");
    // With a key that the hub does not accept, as after a rotation.
    let (rest, _) = old.rsplit_once("SharedAccessKey=").unwrap();
    std::fs::write(&file, format!("{rest}SharedAccessKey={KEY}")).unwrap();
    let options = [
        "listen",
        "MyDevice",
        "0",
        "--session",
        "never",
        "--connection-string-file",
        file.to_str().unwrap(),
        "--ca-file",
        &hub.ca_file(),
    ];
    let service = Program::start("service-proxy", &options, &[]);
    let line = service.line("listening on 127.0.0.1:").await;
    let rest = line.split("127.0.0.1:").nth(1).unwrap();
    let port: u16 = rest.split(' ').next().unwrap().parse().unwrap();
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let refused = soon("a refusal", socket.read(&mut [0; 1])).await;
    assert!(!matches!(refused, Ok(count) if count > 0));
    std::fs::write(&file, format!("\u{feff}{old}\r\n")).unwrap();
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    socket.write_all(b"hello").await.unwrap();
    let mut back = [0; 5];
    soon("the echo", socket.read_exact(&mut back))
        .await
        .unwrap();
    service.line("read a changed connection string").await;
}

/// The trailing dot of a fully qualified name is not part of the name in certificates and tokens.
#[tokio::test]
async fn a_host_name_may_end_with_a_dot() {
    let hub = TestHub::start().await;
    let mut connection = hub.create("d").await;
    let address = format!("localhost.:{}", hub.https.port());
    connection.host = common::hub_address::HubAddress::parse(&address).unwrap();
    let _device = TestDevice::start(&hub, &connection, &["--echo"]).await;
    let settings = IdentitySettings::new(Authentication::random_keys());
    let id = tests::hub::identity("d");
    let changed = hub.state.registry.update(&id, settings, IfMatch::Any).await;
    assert!(changed.is_ok());
}
