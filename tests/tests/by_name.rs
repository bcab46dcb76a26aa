//! `service-proxy ssh-config`, `ssh` and `rdp`, with other programs in the place of ssh and of the RDP
//! client. `tests/realworld/by_name.py` has the real ones.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tests::commands::{Ran, command, ran};
use tests::session_setup::rest;
use tests::target::Behaviour;
use tests::{Target, TestDevice, TestHub, soon, wait};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

/// Runs service-proxy with this home.
async fn at_home(hub: &TestHub, home: &Path, words: &[&str]) -> Ran {
    let mut command = command(hub, words).await;
    command.env("HOME", home);
    ran(command, "").await
}

fn program(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[tokio::test]
async fn the_configuration_of_ssh_is_printed_installed_and_removed() {
    let hub = TestHub::start().await;
    let home = tempfile::tempdir().unwrap();
    let printed = at_home(&hub, home.path(), &["ssh-config"]).await.ok();
    assert!(printed.contains("\nHost *.device\n"), "{printed}");
    assert!(printed.contains(" connect --ca-file "), "{printed}");
    assert!(
        printed.contains(" --suffix device -- %n ssh\n"),
        "{printed}"
    );
    assert!(!printed.contains("SharedAccessKey"), "{printed}");
    let ssh = home.path().join(".ssh");
    assert!(!ssh.exists());

    fs::create_dir(&ssh).unwrap();
    fs::write(ssh.join("config"), "Host a\n    User b\n").unwrap();
    let install = ["ssh-config", "--install", "--suffix", "lab"];
    for _ in 0..2 {
        at_home(&hub, home.path(), &install).await.ok();
        let config = fs::read_to_string(ssh.join("config")).unwrap();
        let lines: Vec<_> = config.lines().collect();
        let include = format!("Include \"{}/device-streams.conf\"", ssh.display());
        assert_eq!(lines, [include.as_str(), "Host a", "    User b"]);
        let ours = fs::read_to_string(ssh.join("device-streams.conf")).unwrap();
        assert!(ours.contains("\nHost *.lab\n"), "{ours}");
    }
    let removed = at_home(&hub, home.path(), &["ssh-config", "--uninstall"]).await;
    removed.ok();
    let config = fs::read_to_string(ssh.join("config")).unwrap();
    assert_eq!(config, "Host a\n    User b\n");
    assert!(!ssh.join("device-streams.conf").exists());

    // A connection string of the command line would be in the file.
    let secret = hub.policy("service").await.to_secret_text();
    let words = ["--connection-string", secret.expose(), "ssh-config"];
    let refused = at_home(&hub, home.path(), &words).await;
    refused.fails(2, &["--connection-string-file"]);
    let both = ["ssh-config", "--install", "--uninstall"];
    at_home(&hub, home.path(), &both).await.fails(2, &[]);
}

#[tokio::test]
async fn ssh_gets_its_arguments_and_gives_its_exit_code() {
    let hub = TestHub::start().await;
    let folder = tempfile::tempdir().unwrap();
    program(folder.path(), "ssh", r#"printf '%s\n' "$@"; cat; exit 7"#);
    let words = ["ssh", "MyDevice", "--user", "ada", "--", "-v", "a command"];
    let mut command = command(&hub, &words).await;
    command.env("PATH", format!("{}:/usr/bin:/bin", folder.path().display()));
    let ran = ran(command, "its input").await;
    ran.fails(7, &[]);
    let lines: Vec<_> = ran.out.lines().collect();
    assert!(lines[1].ends_with(" -- MyDevice ssh"), "{lines:?}");
    let rest = [
        "-o",
        "HostKeyAlias=MyDevice",
        "-l",
        "ada",
        "MyDevice",
        "-v",
        "a command",
        "its input",
    ];
    assert_eq!(lines[2..], rest);

    let empty = tempfile::tempdir().unwrap();
    let mut command = tests::commands::command(&hub, &["ssh", "MyDevice"]).await;
    command.env("PATH", empty.path());
    tests::commands::ran(command, "")
        .await
        .fails(127, &["ssh cannot be started"]);
}

#[tokio::test]
async fn an_rdp_client_gets_a_port_for_as_long_as_it_runs() {
    let hub = TestHub::start().await;
    let target = Target::start(Behaviour::Echo).await;
    let connection = hub.create("MyDevice").await;
    let option = format!("rdp={}", target.address);
    let _device = TestDevice::start(&hub, &connection, &["--target", &option]).await;
    let folder = tempfile::tempdir().unwrap();
    let (copy, done) = (folder.path().join("copy"), folder.path().join("done"));
    let text = format!(
        "cp \"$1\" {0}.new && mv {0}.new {0}; echo \"$1\" $2; while [ ! -e {1} ]; do sleep 0.05; done; exit 9",
        copy.display(),
        done.display()
    );
    let client = program(folder.path(), "client", &text);
    let words = [
        "rdp",
        "MyDevice",
        "--user",
        "ada",
        "--client",
        client.to_str().unwrap(),
        "--",
        "/f",
    ];
    let running = tokio::spawn(ran(command(&hub, &words).await, ""));
    wait("the client's file", || copy.exists()).await;
    let settings = fs::read_to_string(&copy).unwrap();
    let address = settings
        .lines()
        .find_map(|line| line.strip_prefix("full address:s:"));
    let address = address.unwrap().to_owned();
    assert!(settings.contains("username:s:ada"), "{settings}");
    let mut socket = TcpStream::connect(&address).await.unwrap();
    socket.write_all(b"hello").await.unwrap();
    socket.shutdown().await.unwrap();
    assert_eq!(rest(&mut socket).await, b"hello");
    fs::write(&done, "").unwrap();
    let ran = soon("service-proxy's end", running).await.unwrap();
    ran.fails(9, &[]);
    let (file, argument) = ran.out.lines().last().unwrap().split_once(' ').unwrap();
    assert_eq!(argument, "/f");
    assert!(!Path::new(file).exists(), "{file}");
    assert!(TcpStream::connect(&address).await.is_err());

    // Without any, a person is told.
    let empty = tempfile::tempdir().unwrap();
    let mut command = command(&hub, &["rdp", "MyDevice"]).await;
    command.env("PATH", empty.path());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    let out = child.stdout.take().unwrap();
    let mut out = tokio::io::BufReader::new(out);
    let reading = tokio::io::AsyncBufReadExt::read_line(&mut out, &mut line);
    soon("a line", reading).await.unwrap();
    assert!(line.starts_with("no RDP client was found"), "{line}");
    child.kill().await.unwrap();
}
