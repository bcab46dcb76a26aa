//! Texts from other parties, on terminals and in logs: no character that changes how a line reads
//! is shown, whatever way it arrives.
#![cfg(unix)]

mod device_proxy;
mod hub;
mod service_proxy;
mod texts;

use std::io::Read as _;
use std::process::Stdio;

use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tests::programs::{Program, binary, run, signal};
use tests::{RawHub, raw_hub, soon};
use tokio::io::AsyncWriteExt as _;

use device_proxy::{device_arguments, device_string, request};
use texts::{KEY, answered, check, close, texts as hostile};

/// On a terminal the log is coloured, and contains no other escape sequences.
#[tokio::test]
async fn of_what_a_terminal_shows() {
    let hub = RawHub::start().await;
    let (terminal, theirs) = terminal();
    let mut program = tokio::process::Command::new(binary("device-proxy"))
        .args(device_arguments(&hub))
        .env("IOTHUB_DEVICE_CONNECTION_STRING", device_string(&hub))
        .env_remove("NO_COLOR")
        .stdin(Stdio::null())
        .stdout(theirs.try_clone().unwrap())
        .stderr(theirs)
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let shown = tokio::task::spawn_blocking(move || {
        let mut terminal = std::fs::File::from(terminal);
        let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
        // The end of a pseudo-terminal is an error on Linux.
        while let Ok(count @ 1..) = terminal.read(&mut buffer) {
            all.extend_from_slice(&buffer[..count]);
        }
        String::from_utf8_lossy(&all).into_owned()
    });
    let mut io = hub.device().await.unwrap();
    for text in hostile("way-name", usize::MAX, &[]) {
        let conceal = format!("\u{1b}[8m{text}");
        io.write(&raw_hub::publish(&request(&hub, &conceal, 1)))
            .await
            .unwrap();
    }
    let topic = raw_hub::publish(&request(&hub, "echo", 2));
    io.write(&topic).await.unwrap();
    let (mut stream, head) = soon("a leg", hub.request()).await;
    stream
        .write_all(raw_hub::switching(&head).as_bytes())
        .await
        .unwrap();
    stream
        .write_all(&close(1011, "way-close\u{1b}[8m\u{202e}\r"))
        .await
        .unwrap();
    answered(&mut stream).await;
    signal(&program, rustix::process::Signal::TERM);
    drop(io);
    soon("its end", program.wait()).await.unwrap();
    let shown = soon("all of it", shown).await.unwrap();
    // The terminal adds carriage returns.
    let shown = shown.replace("\r\n", "\n");
    assert!(!shown.contains("\u{1b}[8m"), "{shown:?}");
    let mut plain = String::new();
    let mut rest = shown.as_str();
    let mut colours = 0;
    while let Some((before, behind)) = rest.split_once("\u{1b}[") {
        plain.push_str(before);
        let (colour, behind) = behind.split_once('m').unwrap();
        assert!(
            colour.bytes().all(|b| b.is_ascii_digit() || b == b';'),
            "{colour:?}"
        );
        colours += 1;
        rest = behind;
    }
    plain.push_str(rest);
    assert!(colours > 0, "it was no terminal: {shown}");
    check(&plain, &["way-name", "way-close"]);
}

/// The two ends of a pseudo-terminal: our own, and the one for the program.
fn terminal() -> (std::os::fd::OwnedFd, std::fs::File) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap();
    let theirs = rustix::fs::open(
        &name,
        rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY,
        rustix::fs::Mode::empty(),
    );
    (ours, theirs.unwrap().into())
}

/// A certificate's names are shown where it is refused.
#[tokio::test]
async fn of_what_stands_in_a_certificate() {
    let key = KeyPair::generate().unwrap();
    for name in hostile("way-subject", 60, &[]) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params
            .distinguished_name
            .push(DnType::CommonName, name.as_str());
        params
            .distinguished_name
            .push(DnType::OrganizationName, name.as_str());
        let certificate = params.self_signed(&key).unwrap();
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let hub = RawHub::start_with(certificate.der().clone(), der).await;
        // A certificate to trust.
        let other = RawHub::start().await;
        let ca_file = other.ca_file();
        let service = format!(
            "HostName=localhost:{};SharedAccessKeyName=service;SharedAccessKey={KEY}",
            hub.https_port()
        );
        let connection = device_string(&hub);
        let ca_file = ca_file.to_str().unwrap();
        let programs: [(&str, &[&str], (&str, &str)); 2] = [
            (
                "device-proxy",
                &["--echo", "--ca-file", ca_file],
                ("IOTHUB_DEVICE_CONNECTION_STRING", &connection),
            ),
            (
                "service-proxy",
                &["connect", "MyDevice", "--ca-file", ca_file],
                ("IOTHUB_CONNECTION_STRING", &service),
            ),
        ];
        for (program, arguments, variable) in programs {
            let mut program = Program::start(program, arguments, &[variable]);
            let output = tokio::select! {
                (_, output) = program.ended() => output,
                _ = hub.request() => unreachable!("it is not trusted"),
            };
            check(&output, &["way-subject"]);
        }
    }
}

/// A user may have copied such a text, or a script may have received it.
#[test]
fn of_what_stands_on_a_command_line() {
    for words in hostile("way-argument", usize::MAX, &['\0']) {
        let words = words.as_str();
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().join("hub-data");
        let data_dir = data_dir.to_str().unwrap();
        let connection = format!("HostName={words};DeviceId={words};SharedAccessKey={KEY}");
        let target = format!("{words}=localhost:22");
        let host = format!("localhost\u{202e}{words}:22");
        let cases: &[(&str, &[&str])] = &[
            (
                "stream-hub",
                &["device", "create", words, "--data-dir", data_dir],
            ),
            (
                "stream-hub",
                &["device", "show", words, "--data-dir", data_dir],
            ),
            (
                "stream-hub",
                &["policy", "connection-string", words, "--data-dir", data_dir],
            ),
            ("stream-hub", &["device", "list", "--data-dir", words]),
            (
                "stream-hub",
                &["serve", "--hostname", words, "--data-dir", data_dir],
            ),
            ("stream-hub", &[words]),
            ("device-proxy", &[words]),
            ("device-proxy", &[&connection, "--echo"]),
            (
                "device-proxy",
                &["--connection-string-file", words, "--echo"],
            ),
            ("device-proxy", &["--target", &target]),
            ("device-proxy", &["--target", &host]),
            ("device-proxy", &["--echo", "--ca-file", words]),
            ("service-proxy", &["connect", words]),
            ("service-proxy", &["echo", "MyDevice", "--stream", words]),
            ("service-proxy", &["listen", "MyDevice", words]),
            (
                "service-proxy",
                &["--connection-string", &connection, "connect", "MyDevice"],
            ),
            (
                "service-proxy",
                &["--connection-string-file", words, "connect", "MyDevice"],
            ),
        ];
        for (program, arguments) in cases {
            let (ok, out, talk) = run(program, arguments);
            assert!(!ok, "{program} {arguments:?}");
            check(&out, &[]);
            check(&talk, &["error:"]);
        }
    }
}
