//! Programs with few file descriptors and many clients keep the connections they have accepted,
//! also through a restart of the hub: some descriptors are reserved for outgoing connections.

#![cfg(unix)]

use std::process::Stdio;
use std::time::Duration;

use tests::program_hub::{ProgramHub, free_port};
use tests::programs::binary;
use tests::target::Behaviour;
use tests::{Target, soon};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::timeout;

const DESCRIPTORS: u32 = 64;
const CLIENTS: usize = 100;

/// Starts a program with a low hard limit of descriptors and a still lower soft limit.
fn start(name: &str, arguments: &[&str], variable: (&str, &str)) -> Child {
    Command::new("sh")
        .args([
            "-c",
            &format!("ulimit -Sn 32 && ulimit -Hn {DESCRIPTORS} && exec \"$0\" \"$@\""),
        ])
        .arg(binary(name))
        .args(arguments)
        .env(variable.0, variable.1)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

async fn echoes(socket: &mut TcpStream) -> bool {
    let exchange = async {
        socket.write_all(b"hello").await?;
        let mut back = [0; 5];
        socket.read_exact(&mut back).await
    };
    matches!(timeout(Duration::from_secs(5), exchange).await, Ok(Ok(_)))
}

#[tokio::test]
async fn accepted_connections_survive_a_restart_of_the_hub() {
    let mut hub = ProgramHub::start().await;
    let connection = hub.admin(&["device", "create", "d"]);
    let service = hub.admin(&["policy", "connection-string", "service"]);
    let target = Target::start(Behaviour::Echo).await;
    let address = target.address.to_string();
    let ca_file = hub.ca_file();
    let _device = start(
        "device-proxy",
        &["--target", &address, "--ca-file", &ca_file],
        ("IOTHUB_DEVICE_CONNECTION_STRING", &connection),
    );
    hub.program.line("device connected").await;
    let port = free_port().await;
    let port_text = port.to_string();
    let _service = start(
        "service-proxy",
        &[
            "listen",
            "d",
            &port_text,
            "--session",
            "always",
            "--ca-file",
            &ca_file,
        ],
        ("IOTHUB_CONNECTION_STRING", &service),
    );
    let connect = || async move {
        loop {
            match TcpStream::connect(("127.0.0.1", port)).await {
                Ok(socket) => return socket,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    let mut first = soon("the local port", connect()).await;
    assert!(echoes(&mut first).await, "the soft limit was not raised");
    let mut trying = JoinSet::new();
    for _ in 1..CLIENTS {
        let connecting = connect();
        trying.spawn(async move {
            let mut socket = connecting.await;
            echoes(&mut socket).await.then_some(socket)
        });
    }
    let mut served: Vec<TcpStream> = trying.join_all().await.into_iter().flatten().collect();
    served.push(first);
    assert!(
        served.len() >= 15,
        "only {} of {CLIENTS} were served",
        served.len()
    );

    hub.program.kill().await;
    hub.start_again().await;
    for (number, socket) in served.iter_mut().enumerate() {
        let back = async {
            while !echoes(socket).await {
                // Requests sent before the hub was back are answered later, in order.
            }
        };
        soon(&format!("echo {number} after the restart"), back).await;
    }
}
