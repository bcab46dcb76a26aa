//! All three programs have the same exit code for the same kind of fault: 2 for wrong input, 1 for
//! a failure at run time, 0 for success, 130 after a second signal.

use std::process::{Command, Stdio};

use tests::program_hub::ProgramHub;
use tests::programs::{DIRECT, Program, binary};
use tests::target::Behaviour;
use tests::{Target, soon};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
/// A CA certificate, so that no test needs the root certificates of its machine.
const CA: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../device-proxy/testdata/ca.pem"
);
const DEVICE: &str = "device-proxy";
const SERVICE: &str = "service-proxy";
const HUB: &str = "stream-hub";

/// The exit code of a short run, and its output.
fn run(program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> (i32, String) {
    let output = Command::new(binary(program))
        .args(arguments)
        .envs(DIRECT)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    (output.status.code().unwrap(), text)
}

/// A fault: its name, and how each program is brought to it.
type Fault<'a> = (&'a str, Vec<(&'a str, Vec<&'a str>)>);

#[test]
fn wrong_input_exits_with_2() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (none, data) = (path("none"), path("data"));
    let unknown = path("unknown.toml");
    std::fs::write(&unknown, "no-such-setting = 1\n").unwrap();
    let broken = path("broken.toml");
    std::fs::write(&broken, "this is no TOML\n").unwrap();
    let device = format!("HostName=h.example;DeviceId=d;SharedAccessKey={KEY}");
    let service = format!("HostName=h.example;SharedAccessKeyName=s;SharedAccessKey={KEY}");
    let (d, s) = (device.as_str(), service.as_str());
    let serve = ["serve", "--data-dir", &data];
    let with = |rest: &[&'static str]| [&serve[..], rest].concat();
    let faults: Vec<Fault<'_>> = vec![
        (
            "an option that there is not",
            vec![
                (DEVICE, vec!["--no-such"]),
                (SERVICE, vec!["--no-such"]),
                (HUB, vec!["--no-such"]),
                (HUB, with(&["--no-such"])),
            ],
        ),
        (
            "a value out of range",
            vec![
                (DEVICE, vec![d, "h", "1", "--max-streams", "0"]),
                (SERVICE, vec![s, "d", "1", "--max-connections", "0"]),
                (HUB, with(&["--https", "99999"])),
            ],
        ),
        (
            "a word that there is not",
            vec![
                (DEVICE, vec![d, "h", "1", "--log-level", "loud"]),
                (SERVICE, vec![s, "d", "1", "--log-level", "loud"]),
                (HUB, with(&["--log-level", "loud"])),
            ],
        ),
        (
            "a configuration file that there is not",
            vec![
                (DEVICE, vec![d, "h", "1", "--config", &none]),
                (SERVICE, vec![s, "d", "1", "--config", &none]),
                (HUB, vec!["serve", "--config", &none]),
                (HUB, vec!["device", "list", "--config", &none]),
            ],
        ),
        (
            "a configuration file with an unknown setting",
            vec![
                (DEVICE, vec![d, "h", "1", "--config", &unknown]),
                (SERVICE, vec![s, "d", "1", "--config", &unknown]),
                (HUB, vec!["serve", "--config", &unknown]),
            ],
        ),
        (
            "a configuration file that is none",
            vec![
                (DEVICE, vec![d, "h", "1", "--config", &broken]),
                (SERVICE, vec![s, "d", "1", "--config", &broken]),
                (HUB, vec!["serve", "--config", &broken]),
            ],
        ),
        (
            "no credential",
            vec![(DEVICE, vec!["h", "1"]), (SERVICE, vec!["d", "1"])],
        ),
        (
            "a credential that is none",
            vec![
                (DEVICE, vec!["HostName=h", "h", "1"]),
                (SERVICE, vec!["HostName=h", "d", "1"]),
                (
                    HUB,
                    vec![
                        "device",
                        "create",
                        "d",
                        "--primary-key",
                        "x",
                        "--data-dir",
                        &data,
                    ],
                ),
            ],
        ),
        (
            "a credential's file that there is not",
            vec![
                (DEVICE, vec!["--connection-string-file", &none, "h", "1"]),
                (SERVICE, vec!["--connection-string-file", &none, "d", "1"]),
                (
                    HUB,
                    vec![
                        "device",
                        "create",
                        "d",
                        "--primary-key-file",
                        &none,
                        "--data-dir",
                        &data,
                    ],
                ),
            ],
        ),
        (
            "a certificate that cannot be read",
            vec![
                (DEVICE, vec![d, "h", "1", "--ca-file", &none]),
                (SERVICE, vec![s, "d", "0", "--ca-file", &none]),
                (SERVICE, vec![s, "connect", "d", "--ca-file", &none]),
                (SERVICE, vec![s, "echo", "d", "--ca-file", &none]),
                (
                    HUB,
                    [
                        &with(&["--https", "0", "--mqtts", "off"])[..],
                        &["--tls-cert", &none, "--tls-key", &none],
                    ]
                    .concat(),
                ),
            ],
        ),
        (
            "a certificate without its key",
            vec![
                (DEVICE, vec![d, "h", "1", "--cert", &none]),
                (HUB, [&serve[..], &["--tls-cert", &none]].concat()),
            ],
        ),
        (
            "a place that cannot be one",
            vec![
                (DEVICE, vec![d, "--target", "localhost"]),
                (SERVICE, vec![s, "d", "x"]),
                (SERVICE, vec![s, "listen", "d", "1.2.3:1"]),
                (HUB, with(&["--https", "localhost:1"])),
                (HUB, with(&["--hostname", "a b"])),
            ],
        ),
        (
            "nothing to reach",
            vec![(DEVICE, vec![d]), (SERVICE, vec![s]), (HUB, vec![])],
        ),
        (
            "a folder that there is not",
            vec![
                (HUB, vec!["device", "list", "--data-dir", &none]),
                (HUB, vec!["serve", "--data-dir", &unknown]),
            ],
        ),
    ];
    for (fault, lines) in &faults {
        for (program, line) in lines {
            let (code, text) = run(program, line, &[]);
            assert_eq!(code, 2, "{fault}: {program} {line:?}: {text}");
            assert!(!text.contains(KEY), "{fault}: {program} {line:?}: {text}");
        }
    }
    for (program, line, variable) in [
        (DEVICE, vec![d, "h", "1"], "DEVICE_PROXY_LOG"),
        (DEVICE, vec![d, "h", "1"], "DEVICE_PROXY_SESSION"),
        (DEVICE, vec![d, "h", "1"], "DEVICE_PROXY_CONFIG"),
        (SERVICE, vec![s, "d", "1"], "SERVICE_PROXY_LOG"),
        (SERVICE, vec![s, "d", "1"], "SERVICE_PROXY_MEMORY"),
        (SERVICE, vec![s, "d", "1"], "SERVICE_PROXY_CONFIG"),
        (HUB, with(&[]), "STREAM_HUB_LOG"),
        (HUB, with(&[]), "STREAM_HUB_HOSTNAME"),
        (HUB, with(&[]), "STREAM_HUB_CONFIG"),
    ] {
        let (code, text) = run(program, &line, &[(variable, "/no such/")]);
        assert_eq!(code, 2, "{program} {variable}: {text}");
    }
}

#[test]
fn checks_and_displays_exit_with_0() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let device = format!("HostName=h.example;DeviceId=d;SharedAccessKey={KEY}");
    let service = format!("HostName=h.example;SharedAccessKeyName=s;SharedAccessKey={KEY}");
    let files = [
        (
            DEVICE,
            "--check-config",
            format!("connection-string = '{device}'\nca-file = '{CA}'\necho = true\n"),
        ),
        (
            SERVICE,
            "--check-config",
            format!(
                "connection-string = '{service}'\nca-file = '{CA}'\ndevice = 'd'\nforward = '2:x'\n"
            ),
        ),
        (
            HUB,
            "serve",
            "hostname = 'h.example'\nhttps = 8443\n".to_owned(),
        ),
    ];
    for (program, word, text) in files {
        let file = path(program);
        std::fs::write(&file, text).unwrap();
        let line = [word, "--config", &file, "--check-config"];
        let line = if word == "serve" {
            &line[..]
        } else {
            &line[..3]
        };
        let (code, text) = run(program, line, &[]);
        assert_eq!((code, text.as_str()), (0, "the configuration is valid\n"));
        for shown in ["--help", "--version"] {
            assert_eq!(run(program, &[shown], &[]).0, 0, "{program} {shown}");
        }
    }
    assert!(!folder.path().join("hub-data").exists(), "nothing was made");
}

#[tokio::test]
async fn failures_at_run_time_exit_with_1() {
    let hub = ProgramHub::start().await;
    let good = hub.admin(&["device", "create", "MyDevice"]);
    let policy = hub.admin(&["policy", "connection-string", "service"]);
    let wrong = |text: &str| {
        let (rest, _) = text.rsplit_once("SharedAccessKey=").unwrap();
        format!("{rest}SharedAccessKey={KEY}")
    };
    let (device, service) = (wrong(&good), wrong(&policy));
    let (ca, data) = (hub.ca_file(), hub.data_dir());
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = taken.local_addr().unwrap();
    let (address, port) = (taken.to_string(), taken.port().to_string());
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("data").to_str().unwrap().to_owned();
    let faults: Vec<Fault<'_>> = vec![
        (
            "a credential that the hub refuses",
            vec![
                (DEVICE, vec![&device, "--echo", "--ca-file", &ca]),
                (
                    SERVICE,
                    vec![&service, "connect", "MyDevice", "--ca-file", &ca],
                ),
                (
                    SERVICE,
                    vec![
                        &service,
                        "echo",
                        "MyDevice",
                        "--count",
                        "1",
                        "--ca-file",
                        &ca,
                    ],
                ),
            ],
        ),
        (
            "a port that another program has",
            vec![
                (SERVICE, vec![&policy, "MyDevice", &port, "--ca-file", &ca]),
                (
                    HUB,
                    vec![
                        "serve",
                        "--data-dir",
                        &other,
                        "--https",
                        &address,
                        "--mqtts",
                        "off",
                    ],
                ),
            ],
        ),
        (
            "a folder that another hub serves",
            vec![(
                HUB,
                vec![
                    "serve",
                    "--data-dir",
                    &data,
                    "--https",
                    "127.0.0.1:0",
                    "--mqtts",
                    "off",
                ],
            )],
        ),
        (
            "a device that there is not",
            vec![
                (
                    SERVICE,
                    vec![&policy, "connect", "Nobody", "--ca-file", &ca],
                ),
                (HUB, vec!["device", "show", "Nobody", "--data-dir", &data]),
            ],
        ),
    ];
    for (fault, lines) in &faults {
        for (program, line) in lines {
            let (code, text) = run(program, line, &[]);
            assert_eq!(code, 1, "{fault}: {program} {line:?}: {text}");
        }
    }
}

/// The first signal asks a hub to drain its streams; the second does not wait for them.
#[cfg(unix)]
#[tokio::test]
async fn a_second_signal_ends_a_program_at_once() {
    let mut hub = ProgramHub::start().await;
    let connection = hub.admin(&["device", "create", "MyDevice"]);
    let target = Target::start(Behaviour::Echo).await;
    let device = hub.device(&connection, &target.address.to_string());
    device.line("connected").await;
    let (_service, port) = hub.service(&["--session", "never", "MyDevice", "0"]).await;
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    socket.write_all(b"x").await.unwrap();
    soon("the echo", socket.read_exact(&mut [0])).await.unwrap();
    hub.program.terminate();
    hub.program.line("stopping").await;
    let started = std::time::Instant::now();
    hub.program.terminate();
    assert_eq!(hub.program.exit_code().await, Some(130));
    assert!(
        started.elapsed() < common::limits::DRAIN / 2,
        "{:?}",
        started.elapsed()
    );
}

/// The proxies end at the first signal.
#[cfg(unix)]
#[tokio::test]
async fn a_signal_ends_a_program_with_success() {
    let mut hub = ProgramHub::start().await;
    let connection = hub.admin(&["device", "create", "MyDevice"]);
    let mut device = hub.device(&connection, "localhost:1");
    device.line("connected").await;
    let (mut service, _) = hub.service(&["MyDevice", "0"]).await;
    let ending: [&mut Program; 3] = [&mut service, &mut device, &mut hub.program];
    for program in ending {
        program.terminate();
        assert_eq!(program.exit_code().await, Some(0), "{}", program.output());
    }
}
