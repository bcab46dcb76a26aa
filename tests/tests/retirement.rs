//! SIGUSR1, as an upgrade of the packages sends it: the proxies end when nothing is open any more.
#![cfg(unix)]

use std::time::Duration;

use tests::program_hub::ProgramHub;
use tests::programs::Program;
use tests::target::Behaviour;
use tests::{Target, soon, wait};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::sleep;

async fn opened(port: u16) -> TcpStream {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    echoes(&mut socket).await;
    socket
}

async fn echoes(socket: &mut TcpStream) {
    socket.write_all(b"x").await.unwrap();
    let mut byte = [0];
    soon("the echo", socket.read_exact(&mut byte))
        .await
        .unwrap();
}

#[tokio::test]
async fn proxies_end_after_their_last_connection_when_they_are_retired() {
    let hub = ProgramHub::start().await;
    let connection = hub.admin(&["device", "create", "MyDevice"]);
    let target = Target::start(Behaviour::Echo).await;
    let mut device = hub.device(&connection, &target.address.to_string());
    device.line("connected").await;
    // One in sessions, one without: for the device both are connections.
    let (mut service, port) = hub.service(&["--session", "always", "MyDevice", "0"]).await;
    let (mut plain, plain_port) = hub.service(&["--session", "never", "MyDevice", "0"]).await;
    let mut first = opened(port).await;
    let mut second = opened(plain_port).await;

    for program in [&device, &service, &plain] {
        program.retire();
        program.line("SIGUSR1").await;
    }
    // Longer than what has to be quiet before a program ends.
    sleep(common::retirement::QUIET + Duration::from_secs(1)).await;
    echoes(&mut first).await;
    echoes(&mut second).await;
    // New ones are served, too.
    drop(opened(port).await);

    drop((first, second));
    for program in [&mut plain, &mut service, &mut device] {
        assert_eq!(program.exit_code().await, Some(0));
    }
}

#[tokio::test]
async fn what_waits_for_an_approval_is_served_by_a_retired_device() {
    let hub = ProgramHub::start().await;
    let connection = hub.admin(&["device", "create", "MyDevice"]);
    let target = Target::start(Behaviour::Echo).await;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (asked, yes) = (path("asked"), path("yes"));
    let script = format!(
        "echo x >> {}; while ! test -e {}; do sleep 0.1; done",
        asked.display(),
        yes.display()
    );
    let config = format!(
        "connection-string = {connection:?}\nca-file = {:?}\ntarget = \"{}\"\n\
         [access]\napprove-command = [\"/bin/sh\", \"-c\", {script:?}]\n",
        hub.ca_file(),
        target.address
    );
    let file = path("device-proxy.toml");
    std::fs::write(&file, config).unwrap();
    let arguments = ["--config", file.to_str().unwrap()];
    let mut device = Program::start("device-proxy", &arguments, &[]);
    device.line("connected").await;
    let (_service, port) = hub.service(&["--session", "always", "MyDevice", "0"]).await;
    let (_plain, plain_port) = hub.service(&["--session", "never", "MyDevice", "0"]).await;
    let both = [port, plain_port].map(|port| tokio::spawn(opened(port)));
    let asked_for = || {
        let lines = std::fs::read_to_string(&asked).unwrap_or_default();
        lines.lines().count()
    };
    wait("both questions", || asked_for() == 2).await;
    device.retire();
    device.line("SIGUSR1").await;
    // Longer than what has to be quiet before a program ends.
    sleep(common::retirement::QUIET + Duration::from_secs(1)).await;
    std::fs::write(&yes, "").unwrap();
    let mut open = Vec::new();
    for opening in both {
        open.push(opening.await.unwrap());
    }
    drop(open);
    assert_eq!(device.exit_code().await, Some(0));
}
