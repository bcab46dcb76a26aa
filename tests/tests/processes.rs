//! The real binaries: kills without a Close, restarts, first and last lines of output, and no
//! secret in any of them.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tests::program_hub::ProgramHub as Hub;
use tests::programs::Program;
use tests::target::Behaviour;
use tests::{Target, soon, wait};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Whether a byte is echoed through this port.
async fn echoes(port: u16) -> bool {
    let Ok(mut socket) = TcpStream::connect(("127.0.0.1", port)).await else {
        return false;
    };
    let mut byte = [0];
    socket.write_all(b"x").await.is_ok() && socket.read_exact(&mut byte).await.is_ok()
}

#[tokio::test]
async fn both_proxies_recover_when_the_hub_is_killed_and_started_again() {
    let mut hub = Hub::start().await;
    let connection = hub.admin(&["device", "create", "MyDevice"]);
    let target = Target::start(Behaviour::Echo).await;
    let device = hub.device(&connection, &target.address.to_string());
    device.line("connected").await;
    let (service, port) = hub.service(&["--session", "never", "MyDevice", "0"]).await;
    assert!(soon("the first echo", echoes(port)).await);

    hub.program.kill().await;
    device.line("connecting again").await;
    assert!(!soon("a refusal", echoes(port)).await, "there is no hub");
    // What was acknowledged before the kill is stored.
    hub.start_again().await;
    soon("the proxies to recover", async {
        while !echoes(port).await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(
        hub.admin(&["device", "connection-string", "MyDevice"]),
        connection
    );
    assert_eq!(
        device.count(" connected; streams reach"),
        2,
        "{}",
        device.output()
    );
    drop(service);
}

/// In session mode the connection itself continues.
#[tokio::test]
async fn a_connection_outlives_the_hub_that_carried_it() {
    let mut hub = Hub::start().await;
    let connection = hub.admin(&["device", "create", "MyDevice"]);
    let target = Target::start(Behaviour::Echo).await;
    let device = hub.device(&connection, &target.address.to_string());
    device.line("connected").await;
    let options = ["--session", "always", "MyDevice", "0"];
    let (service, port) = hub.service(&options).await;
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let mut line = [0; 6];
    socket.write_all(b"before").await.unwrap();
    soon("the echo", socket.read_exact(&mut line))
        .await
        .unwrap();
    hub.program.kill().await;
    service.line("session interrupted").await;
    device.line("connecting again").await;
    socket.write_all(b"during").await.unwrap();
    hub.start_again().await;
    soon("the echo after the kill", socket.read_exact(&mut line))
        .await
        .unwrap();
    assert_eq!(&line, b"during");
    assert_eq!(target.counters.connections(), 1);
}

/// As when the user closes ssh's terminal: the device and its target learn of it.
#[cfg(unix)]
#[tokio::test]
async fn a_hangup_ends_connect_and_its_connection_at_the_device() {
    if tests::programs::ignores_hangups() {
        return println!("skipped: this process was started with SIGHUP ignored");
    }
    let hub = Hub::start().await;
    let connection = hub.admin(&["device", "create", "MyDevice"]);
    let target = Target::start(Behaviour::Echo).await;
    let device = hub.device(&connection, &target.address.to_string());
    device.line("connected").await;
    let mut connect = hub.connect(&["--session", "always", "MyDevice"]);
    connect.write("a line\n").await;
    connect.line("a line").await;
    assert_eq!(target.counters.connections(), 1);
    assert_eq!(device.count("connection broken: "), 0);
    let _open = connect.hang_up();
    let (success, output) = connect.ended().await;
    assert!(!success, "{output}");
    device.line("connection broken: ").await;
    let gone = || target.counters.connections() == 0;
    wait("the end at the target", gone).await;
}

/// A kill of any of the three programs while data flows aborts a plain stream at both ends: neither
/// a hang nor an orderly end.
#[tokio::test]
async fn a_kill_while_data_flows_aborts_both_ends() {
    for victim in ["hub", "device-proxy", "service-proxy"] {
        let mut hub = Hub::start().await;
        let connection = hub.admin(&["device", "create", "MyDevice"]);
        let target = Target::start(Behaviour::Flood).await;
        let mut device = hub.device(&connection, &target.address.to_string());
        device.line("connected").await;
        let (mut service, port) = hub.service(&["--session", "never", "MyDevice", "0"]).await;
        let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let mut some = vec![0; 1 << 20];
        soon("data", socket.read_exact(&mut some)).await.unwrap();
        match victim {
            "hub" => hub.program.kill().await,
            "device-proxy" => device.kill().await,
            _ => service.kill().await,
        }
        let client = soon("the client's end", async {
            loop {
                match socket.read(&mut some).await {
                    Ok(0) => break Ok(()),
                    Ok(_) => {}
                    Err(error) => break Err(error),
                }
            }
        })
        .await;
        assert!(
            client.is_err(),
            "{victim}: a truncated transfer looks complete"
        );
        let gone = || target.counters.connections() == 0;
        wait(&format!("the target's end after the {victim}'s kill"), gone).await;
    }
}

/// As above for an upload: the target of a truncated upload sees a failure, not an end.
#[tokio::test]
async fn a_kill_during_an_upload_is_no_end_of_input() {
    for victim in ["hub", "device-proxy", "service-proxy"] {
        let mut hub = Hub::start().await;
        let connection = hub.admin(&["device", "create", "MyDevice"]);
        let target = Target::start(Behaviour::Sink).await;
        let mut device = hub.device(&connection, &target.address.to_string());
        device.line("connected").await;
        let (mut service, port) = hub.service(&["--session", "never", "MyDevice", "0"]).await;
        let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        socket.write_all(&[1; 4096]).await.unwrap();
        let arrived = || target.counters.received.load(Relaxed) == 4096;
        wait("the upload to begin", arrived).await;
        match victim {
            "hub" => hub.program.kill().await,
            "device-proxy" => device.kill().await,
            _ => service.kill().await,
        }
        let gone = || target.counters.connections() == 0;
        wait(&format!("the target's end after the {victim}'s kill"), gone).await;
        assert_eq!(target.counters.ends.load(Relaxed), 0, "{victim}");
    }
}

#[tokio::test]
async fn refused_starts_end_with_one_sentence() {
    let hub = Hub::start().await;
    let good = hub.admin(&["device", "create", "MyDevice"]);
    hub.admin(&["device", "create", "Disabled", "--disabled"]);
    let other = hub.admin(&["device", "create", "Other"]);
    let key = |text: &str| text.split("SharedAccessKey=").nth(1).unwrap().to_owned();
    let service = hub.admin(&["policy", "connection-string", "service"]);
    let ca = hub.ca_file();

    let wrong_key = good.replace(&key(&good), &key(&other));
    let unknown = good.replace("MyDevice", "Nobody");
    let disabled = hub.admin(&["device", "connection-string", "Disabled"]);
    for (connection, ca_file, message) in [
        (wrong_key, Some(&ca), "the clocks agree"),
        (unknown, Some(&ca), "does not exist"),
        (disabled, Some(&ca), "disabled"),
        (good.clone(), None, "--ca-file"),
        (service, Some(&ca), "service's connection string"),
        ("malformed".to_owned(), Some(&ca), "connection string"),
    ] {
        let mut arguments = vec!["localhost", "22"];
        if let Some(ca_file) = ca_file {
            arguments.extend(["--ca-file", ca_file]);
        }
        let environment = [("IOTHUB_DEVICE_CONNECTION_STRING", connection.as_str())];
        let (success, output) = Program::start("device-proxy", &arguments, &environment)
            .ended()
            .await;
        assert!(!success, "{output}");
        let sentences: Vec<&str> = output
            .lines()
            .filter(|line| line.starts_with("error: "))
            .collect();
        assert!(
            sentences.len() == 1 && sentences[0].contains(message),
            "{message}: {output}"
        );
    }

    // The right CA, but a certificate for another name.
    let elsewhere = Hub::start_as("hub.example.net").await;
    let named = elsewhere.admin(&["device", "create", "MyDevice"]);
    assert!(named.starts_with("HostName=hub.example.net:"), "{named}");
    let by_another_name = named.replace("hub.example.net", "localhost");
    let (success, output) = elsewhere
        .device(&by_another_name, "localhost:1")
        .ended()
        .await;
    assert!(!success && output.contains("another host name"), "{output}");

    // Wrong input to a service-proxy.
    let device_for_service = Program::start(
        "service-proxy",
        &["MyDevice", "0"],
        &[("IOTHUB_CONNECTION_STRING", &good)],
    );
    let (success, output) = { device_for_service }.ended().await;
    assert!(
        !success && output.contains("device's connection string"),
        "{output}"
    );
}

#[tokio::test]
async fn a_taken_port_or_folder_is_reported() {
    let hub = Hub::start().await;
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = folder.path().join("d");
    let taken = format!("127.0.0.1:{}", hub.https);
    let arguments = [
        "serve",
        "--data-dir",
        elsewhere.to_str().unwrap(),
        "--https",
        &taken,
        "--mqtts",
        "off",
    ];
    let (success, output) = Program::start("stream-hub", &arguments, &[]).ended().await;
    assert!(
        !success && output.contains(&taken) && output.contains("--https"),
        "{output}"
    );

    let data_dir = hub.data_dir();
    let arguments = [
        "serve",
        "--data-dir",
        &data_dir,
        "--https",
        "127.0.0.1:0",
        "--mqtts",
        "off",
    ];
    let (success, output) = Program::start("stream-hub", &arguments, &[]).ended().await;
    assert!(!success && output.contains(&data_dir), "{output}");
}

#[tokio::test]
async fn admin_commands_work_on_a_running_hub() {
    let hub = Hub::start().await;
    let connection = hub.admin(&["device", "create", "MyDevice"]);
    let address = format!("HostName=localhost:{};DeviceId=MyDevice;", hub.https);
    assert!(connection.starts_with(&address), "{connection}");
    let target = Target::start(Behaviour::Echo).await;
    let device = hub.device(&connection, &target.address.to_string());
    device.line("connected").await;
    let (_service, port) = hub.service(&["--session", "never", "MyDevice", "0"]).await;
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    socket.write_all(b"x").await.unwrap();
    let mut byte = [0];
    soon("the echo", socket.read_exact(&mut byte))
        .await
        .unwrap();

    hub.admin(&["device", "disable", "MyDevice"]);
    let cut = soon("the tunnel's end", socket.read(&mut byte)).await;
    assert!(cut.is_err());
    device.line("it is disabled").await;
    // It keeps running and reconnects by itself.
    hub.admin(&["device", "enable", "MyDevice"]);
    wait("the device to come back", || {
        device.count(" connected; streams reach") == 2
    })
    .await;
    let endpoints = hub.admin(&["endpoints"]);
    assert_eq!(
        endpoints,
        format!(
            r#"{{"streamingEndpoints":["https://localhost:{}"]}}"#,
            hub.https
        )
    );
}

#[tokio::test]
async fn no_secret_is_printed_at_any_level() {
    for mode in ["never", "always"] {
        no_secret_is_printed_in_mode(mode).await;
    }
}

async fn no_secret_is_printed_in_mode(mode: &str) {
    let hub = Hub::start().await;
    let connection = hub.admin(&["device", "create", "MyDevice"]);
    let policy = hub.admin(&["policy", "connection-string", "service"]);
    let target = Target::start(Behaviour::Echo).await;
    let device = hub.device(&connection, &target.address.to_string());
    device.line("connected").await;
    let options = ["--session", mode, "MyDevice", "0"];
    let (mut service, port) = hub.service(&options).await;
    assert!(soon("the echo", echoes(port)).await);
    // A refusal too.
    let wrong = connection.replace("MyDevice", "Nobody");
    let (_, refused) = hub.device(&wrong, "localhost:1").ended().await;
    service.kill().await;
    wait("the stream's end", || {
        hub.program.count("stream closed") > 0
    })
    .await;

    let all = [
        hub.program.output(),
        device.output(),
        service.output(),
        refused,
    ]
    .join("\n");
    assert!(
        all.contains("DEBUG") && all.contains("stream"),
        "the logs are there"
    );
    for connection in [&connection, &policy] {
        let key = connection.split("SharedAccessKey=").nth(1).unwrap();
        assert!(!all.contains(key), "a key is in the logs");
    }
    // SAS tokens, JWTs and the headers and parameters that carry them.
    for trace in [
        "sig=",
        "SharedAccessSignature",
        "eyJ",
        "Bearer",
        "$auth",
        "SharedAccessKey=",
    ] {
        assert!(!all.contains(trace), "{trace} is in the logs:\n{all}");
    }
}
