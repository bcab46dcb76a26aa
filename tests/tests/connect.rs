//! `service-proxy connect` as other programs use it: uploads, pipes without a reader, and signals
//! that are ignored at its start.

use std::process::Stdio;
use std::time::Duration;

use tests::program_hub::ProgramHub as Hub;
use tests::programs::Program;
use tests::target::Behaviour;
use tests::{Target, soon};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::process::Child;

const MODES: [&str; 2] = ["always", "never"];

/// A hub and a device-proxy with this target.
async fn setup(target: &str) -> (Hub, Program) {
    let hub = Hub::start().await;
    let connection = hub.admin(&["device", "create", "MyDevice"]);
    let device = hub.device(&connection, target);
    device.line("connected").await;
    (hub, device)
}

async fn succeeded(child: &mut Child) -> bool {
    soon("the end of connect", child.wait())
        .await
        .unwrap()
        .success()
}

#[tokio::test]
async fn an_upload_goes_on_after_the_target_has_ended_its_side() {
    const BYTES: usize = 20_000_000;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (hub, _device) = setup(&listener.local_addr().unwrap().to_string()).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("upload");
    std::fs::write(&path, vec![0x5a; BYTES]).unwrap();
    for mode in MODES {
        let mut connect = hub
            .service_command("connect", &["MyDevice", "--session", mode])
            .stdin(std::fs::File::open(&path).unwrap())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let (mut socket, _) = soon("the connection", listener.accept()).await.unwrap();
        // As `ncat --recv-only` does.
        socket.shutdown().await.unwrap();
        let mut all = Vec::new();
        soon("the upload", socket.read_to_end(&mut all))
            .await
            .unwrap();
        assert_eq!(all.len(), BYTES, "{mode}");
        assert!(succeeded(&mut connect).await, "{mode}");
    }
}

/// A target that reads only the first bytes, so that the upload is incomplete.
#[tokio::test]
async fn input_that_was_not_sent_is_a_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (hub, _device) = setup(&listener.local_addr().unwrap().to_string()).await;
    for mode in MODES {
        let mut connect = hub
            .service_command("connect", &["MyDevice", "--session", mode])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = connect.stdin.take().unwrap();
        let writing =
            tokio::spawn(async move { while input.write_all(&[0x5a; 64 << 10]).await.is_ok() {} });
        let (mut socket, _) = soon("the connection", listener.accept()).await.unwrap();
        let mut some = [0; 1000];
        soon("bytes", socket.read_exact(&mut some)).await.unwrap();
        drop(socket);
        assert!(!succeeded(&mut connect).await, "{mode}");
        soon("the end of the pipe", writing).await.unwrap();
    }
}

#[cfg(unix)]
#[tokio::test]
async fn the_reader_of_the_output_sees_its_end_while_the_input_goes_on() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (hub, _device) = setup(&listener.local_addr().unwrap().to_string()).await;
    let mut connect = hub
        .service_command("connect", &["MyDevice", "--session", "always"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut socket, _) = soon("the connection", listener.accept()).await.unwrap();
    socket.write_all(b"banner").await.unwrap();
    socket.shutdown().await.unwrap();
    let mut output = String::new();
    let mut pipe = connect.stdout.take().unwrap();
    soon("the end of the output", pipe.read_to_string(&mut output))
        .await
        .unwrap();
    assert_eq!(output, "banner");
    drop(pipe);
    let mut input = connect.stdin.take().unwrap();
    input.write_all(b"later").await.unwrap();
    drop(input);
    let mut rest = String::new();
    soon("what came later", socket.read_to_string(&mut rest))
        .await
        .unwrap();
    assert_eq!(rest, "later");
    drop(socket);
    assert!(succeeded(&mut connect).await);
}

#[cfg(unix)]
#[tokio::test]
async fn connect_ends_when_nothing_reads_its_output() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (hub, _device) = setup(&listener.local_addr().unwrap().to_string()).await;
    for mode in MODES {
        let mut connect = hub
            .service_command("connect", &["MyDevice", "--session", mode])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut socket, _) = soon("the connection", listener.accept()).await.unwrap();
        // As when the parent process closes the pipes or is killed. The target does not end.
        drop((connect.stdin.take(), connect.stdout.take()));
        let status = soon("the end of connect", connect.wait()).await.unwrap();
        assert_eq!(status.code(), Some(128 + 13), "{mode}");
        let reset = async {
            while socket.write_all(b"anyone?").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        soon("the end at the target", reset).await;
        let mut text = String::new();
        let mut stderr = connect.stderr.take().unwrap();
        stderr.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "", "nothing may be written to stderr");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn an_echo_test_ends_when_nothing_reads_its_output() {
    let (hub, _device) = setup("127.0.0.1:9").await;
    let mut echo = hub.service_command("echo", &["MyDevice", "--interval", "1000"]);
    let mut echo = echo.stdout(Stdio::piped()).spawn().unwrap();
    let mut output = echo.stdout.take().unwrap();
    let mut first = [0; 8];
    soon("a reply", output.read_exact(&mut first))
        .await
        .unwrap();
    drop(output);
    assert!(!succeeded(&mut echo).await);
}

/// The signals that `nohup`, and a shell that starts a background job, ignore.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn signals_that_were_ignored_at_the_start_stay_ignored() {
    use rustix::process::{Pid, Signal, kill_process};
    let target = Target::start(Behaviour::Echo).await;
    let (hub, _device) = setup(&target.address.to_string()).await;
    let plain = hub.service_command("connect", &["MyDevice", "--session", "always"]);
    let mut shell = tokio::process::Command::new("sh");
    shell
        .args(["-c", "trap '' HUP INT; exec \"$0\" \"$@\""])
        .arg(plain.as_std().get_program())
        .args(plain.as_std().get_args())
        .envs(
            plain
                .as_std()
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .kill_on_drop(true);
    let mut connect = shell
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut input, mut output) = (
        connect.stdin.take().unwrap(),
        connect.stdout.take().unwrap(),
    );
    let id = connect.id().and_then(|id| i32::try_from(id).ok());
    let id = id.and_then(Pid::from_raw).unwrap();
    for signal in [Signal::HUP, Signal::INT] {
        let mut line = [0; 4];
        input.write_all(b"line").await.unwrap();
        soon("the echo", output.read_exact(&mut line))
            .await
            .unwrap();
        kill_process(id, signal).unwrap();
        input.write_all(b"more").await.unwrap();
        soon("the echo", output.read_exact(&mut line))
            .await
            .unwrap();
    }
    kill_process(id, Signal::TERM).unwrap();
    assert!(!succeeded(&mut connect).await);
}
