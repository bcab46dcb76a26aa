//! Programs whose output is not read, as with a full pipe or a terminal stopped by Ctrl-S: they
//! continue to serve, and end when asked to.

#![cfg(unix)]

use std::process::Stdio;

use rustix::process::Signal;
use tests::program_hub::free_port;
use tests::programs::{DIRECT, binary, run, signal};
use tests::target::Behaviour;
use tests::{Target, soon};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// Starts a program with output pipes that are not read: each holds 64 KiB.
fn unread(name: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Child {
    Command::new(binary(name))
        .args(arguments)
        .args(["--log-level", "trace"])
        .envs(DIRECT)
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

async fn terminated(name: &str, child: &mut Child) {
    signal(child, Signal::TERM);
    soon(&format!("the end of {name}"), child.wait())
        .await
        .unwrap();
}

#[tokio::test]
async fn programs_serve_while_nothing_reads_their_log() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let data = data.to_str().unwrap();
    let (https, mqtts, port) = (free_port().await, free_port().await, free_port().await);
    let (https_at, mqtts_at) = (format!("127.0.0.1:{https}"), format!("127.0.0.1:{mqtts}"));
    let hostname = format!("localhost:{https}");
    let serve = [
        "serve",
        "--data-dir",
        data,
        "--hostname",
        &hostname,
        "--https",
        &https_at,
        "--mqtts",
        &mqtts_at,
    ];
    let mut hub = unread("stream-hub", &serve, &[]);
    soon("the hub's port", async {
        while TcpStream::connect(&https_at).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
    let ca_file = format!("{data}/tls/ca.pem");
    let policy = ["policy", "connection-string", "service", "--data-dir", data];
    // The port opens a moment before the hub's name is stored.
    let service = soon("the hub's name", async {
        loop {
            let (ok, service, _) = run("stream-hub", &policy);
            if ok && service.contains(&hostname) {
                return service;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
    let (ok, connection, talk) = run("stream-hub", &["device", "create", "d", "--data-dir", data]);
    assert!(ok, "{talk}");
    let target = Target::start(Behaviour::Echo).await;
    let address = target.address.to_string();
    let mut device = unread(
        "device-proxy",
        &[
            "--target",
            &address,
            "--ca-file",
            &ca_file,
            "--sample-output",
        ],
        &[("IOTHUB_DEVICE_CONNECTION_STRING", &connection)],
    );
    let port_text = port.to_string();
    let log = device.stderr.as_mut().unwrap();
    let mut begun = Vec::new();
    soon("the device's hub session", async {
        while !String::from_utf8_lossy(&begun).contains("connected") {
            begun.push(log.read_u8().await.unwrap());
        }
    })
    .await;
    let mut service = unread(
        "service-proxy",
        &[
            "listen",
            "d",
            &port_text,
            "--ca-file",
            &ca_file,
            "--session",
            "never",
        ],
        &[("IOTHUB_CONNECTION_STRING", &service)],
    );
    // Each writes some lines about each connection: far more than the pipes hold.
    for number in 0..400 {
        let mut socket = soon("the local port", async {
            loop {
                match TcpStream::connect(("127.0.0.1", port)).await {
                    Ok(socket) => return socket,
                    Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
                }
            }
        })
        .await;
        socket.write_all(b"hello").await.unwrap();
        let mut back = [0; 5];
        soon(&format!("echo {number}"), socket.read_exact(&mut back))
            .await
            .unwrap();
        socket.set_zero_linger().unwrap();
    }
    terminated("service-proxy", &mut service).await;
    terminated("device-proxy", &mut device).await;
    terminated("stream-hub", &mut hub).await;
    // Writing had blocked: the output up to then is still there, at most what a pipe holds.
    let mut all = Vec::new();
    hub.stderr
        .take()
        .unwrap()
        .read_to_end(&mut all)
        .await
        .unwrap();
    assert!(
        all.len() > 32 << 10,
        "the pipe was not full: {} bytes",
        all.len()
    );
}
