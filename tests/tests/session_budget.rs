//! Limits of a device's detached sessions, in number and in bytes. The newest session of the
//! service with the most makes room; an attached session is never evicted.

use std::sync::Arc;
use std::time::Duration;

use common::session::run_connection;
use common::tunnel::{Pipes, Traffic};
use socket2::SockRef;
use tests::session_setup::{DEVICE, reset, talk};
use tests::{RawService, RawSession, TestDevice, TestHub, holdings, logs, soon, wait};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

struct Setup {
    hub: TestHub,
    device: TestDevice,
    service: Arc<RawService>,
    target: TcpListener,
}

/// A device with one target of this name, for the logs.
async fn setup(name: &str, options: &[&str]) -> Setup {
    logs::keep();
    holdings::allow_descriptors(12_000);
    let hub = TestHub::start().await;
    let connection = hub.create(DEVICE).await;
    // Small buffers, so that unsent bytes wait in the session and not in the system.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(8 << 10).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let target = socket.listen(128).unwrap();
    let option = format!("{name}={}", target.local_addr().unwrap());
    let options = [&["--target", &option], options].concat();
    Setup {
        device: TestDevice::start(&hub, &connection, &options).await,
        service: Arc::new(RawService::new(&hub).await),
        hub,
        target,
    }
}

impl Setup {
    /// A session with one connection: the session, the client's end and the target's.
    async fn session(&self, name: &str) -> (RawSession, TcpStream, TcpStream) {
        let session = RawSession::begin(&self.service, DEVICE, name).await;
        let (here, _) = session.connect().await;
        let (there, _) = soon("the target", self.target.accept()).await.unwrap();
        (session, here, there)
    }
}

/// Whether the connection is still open: nothing has arrived, not even an end.
fn is_open(socket: &TcpStream) -> bool {
    let mut byte = [0];
    matches!(socket.try_read(&mut byte), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

#[tokio::test]
async fn a_service_that_drops_sessions_evicts_only_its_own() {
    const SESSIONS: usize = 64;
    const OPENED: usize = SESSIONS + 8;
    let name = "count";
    let few = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(few.path(), format!("[limits]\nsessions = {SESSIONS}\n")).unwrap();
    let setup = setup(name, &["--config", few.path().to_str().unwrap()]).await;
    let (_attached, mut here, mut there) = setup.session(name).await;
    talk(&mut here, &mut there).await;
    // An interrupted shell, whose service the device knows by another policy.
    let other = Setup {
        service: Arc::new(RawService::with_policy(&setup.hub, "iothubowner").await),
        ..setup
    };
    let (mut shell, mut shell_here, mut shell_there) = other.session(name).await;
    talk(&mut shell_here, &mut shell_there).await;
    shell.lose().await;
    logs::line(&["session detached", &format!("session={}", shell.id)]).await;
    let setup = Setup {
        service: Arc::new(RawService::new(&other.hub).await),
        ..other
    };
    let mut opened = Vec::new();
    for _ in 0..OPENED {
        let (mut session, here, there) = setup.session(name).await;
        session.lose().await;
        opened.push((session, here, there));
    }
    // Two places are taken by the attached session and the shell.
    let evicted = ["session evicted", "name=count"];
    let expected = OPENED + 2 - SESSIONS;
    assert_eq!(logs::lines(&evicted).len(), expected);
    assert!(is_open(&shell_there), "the shell was evicted");
    // An evicted session is unknown, and no old one was evicted.
    let is_evicted = |session: &RawSession| {
        let id = format!("session={}", session.id);
        !logs::lines(&["session evicted", &id]).is_empty()
    };
    let first = opened.iter().position(|(session, ..)| is_evicted(session));
    let first = first.expect("none of its own was evicted");
    assert!(first > SESSIONS / 2, "number {first} was evicted");
    let (session, _, its_target) = &mut opened[first];
    reset(its_target).await;
    let unknown = session.resume(&setup.service, DEVICE, name).await;
    let unknown = unknown.unwrap_err().to_string();
    assert!(unknown.contains("not known there any more"), "{unknown}");
    shell.resume(&setup.service, DEVICE, name).await.unwrap();
    talk(&mut shell_here, &mut shell_there).await;
    talk(&mut here, &mut there).await;
    soon("the device-proxy's end", setup.device.shut_down())
        .await
        .unwrap();
}

/// The number of bytes in this line.
fn held(line: &str) -> u64 {
    let (_, rest) = line.split_once("held=").unwrap();
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next();
    digits.unwrap().parse().unwrap()
}

/// The session of this line.
fn session_of(line: &str) -> &str {
    let (_, rest) = line.split_once("session=").unwrap();
    rest.split(' ').next().unwrap()
}

/// The bytes of the sessions that were detached and not evicted.
fn left(name: &str) -> u64 {
    let name = format!("name={name}");
    let evicted = logs::lines(&["session evicted", &name]);
    let is_evicted = |line: &str| evicted.iter().any(|it| session_of(it) == session_of(line));
    let detached = logs::lines(&["session detached", &name]);
    let kept = detached.iter().filter(|line| !is_evicted(line));
    kept.map(|line| held(line)).sum()
}

#[tokio::test]
async fn too_many_bytes_cost_the_newest_detached() {
    const BYTES: u64 = 8 << 20;
    let name = "bytes";
    let few = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(few.path(), format!("[limits]\ndetached-bytes = {BYTES}\n")).unwrap();
    let setup = setup(name, &["--config", few.path().to_str().unwrap()]).await;
    let (_attached, mut here, mut there) = setup.session(name).await;
    talk(&mut here, &mut there).await;
    // Endless uploads to targets that read nothing; then their streams are lost. Without the small
    // buffer the system would take some hundred MiB for the targets first.
    SockRef::from(&setup.target)
        .set_recv_buffer_size(16 << 10)
        .unwrap();
    let mut kept = Vec::new();
    let evicted = ["session evicted", "name=bytes"];
    let mut gone = 0;
    while gone < 2 {
        assert!(kept.len() < 16, "{} sessions and no end", kept.len());
        let mut session = RawSession::begin(&setup.service, DEVICE, name).await;
        let mut uploads = JoinSet::new();
        let mut targets = Vec::new();
        // At least the initial credit of each waits: 1 MiB in total, on slow machines too.
        for _ in 0..16 {
            let live = session.live.clone();
            let id = live.open().unwrap();
            uploads.spawn(async move {
                let endless = Pipes::half_closing(tokio::io::repeat(0x5a), tokio::io::sink());
                let traffic = Traffic::default();
                run_connection(&live, id, endless, &traffic).await
            });
            let accepted = soon("the target", setup.target.accept()).await;
            targets.push(accepted.unwrap().0);
        }
        let (mut before, mut still) = (u64::MAX, 0);
        let resting = tokio::time::timeout(Duration::from_secs(90), async {
            // A single check may fall into a pause of a busy machine.
            while still < 5 {
                tokio::time::sleep(Duration::from_millis(60)).await;
                let now = session.live.progress();
                still = if std::mem::replace(&mut before, now) == now {
                    still + 1
                } else {
                    0
                };
            }
        });
        resting.await.expect("the uploads to come to rest");
        session.lose().await;
        let id = format!("session={}", session.id);
        logs::line(&["session detached", &id]).await;
        wait("the budget to be kept", || left(name) <= BYTES).await;
        // All are of the same service: the newest, which exceeds the limit, is evicted.
        if let Some(line) = logs::lines(&evicted).get(gone) {
            assert!(line.contains(&id), "{line}");
            reset(&mut targets[0]).await;
            gone += 1;
        }
        kept.push((session, uploads, targets));
    }
    let detached = logs::lines(&["session detached", "name=bytes"]);
    let evicted = logs::lines(&evicted);
    let bytes: u64 = detached.iter().map(|line| held(line)).sum();
    assert!(bytes > BYTES);
    let left: Vec<u64> = logs::lines(&["are kept to the budget"])
        .iter()
        .map(|line| held(line))
        .collect();
    println!(
        "{} sessions held {} KiB, and {} were evicted: {left:?} bytes were left",
        detached.len(),
        bytes >> 10,
        evicted.len(),
    );
    assert_eq!((evicted.len(), left.len()), (gone, gone));
    assert!(left.iter().all(|left| *left <= BYTES));
    let (session, _, _) = kept.first_mut().unwrap();
    session.resume(&setup.service, DEVICE, name).await.unwrap();
    talk(&mut here, &mut there).await;
    soon("the device-proxy's end", setup.device.shut_down())
        .await
        .unwrap();
}

#[tokio::test]
async fn expired_sessions_are_closed() {
    let name = "expired";
    let setup = setup(name, &["--session-grace", "1"]).await;
    let (_attached, mut here, mut there) = setup.session(name).await;
    let mut sessions = Vec::new();
    for _ in 0..10 {
        let (mut session, here, there) = setup.session(name).await;
        session.lose().await;
        sessions.push((session, here, there));
    }
    for (_, _, there) in &mut sessions {
        reset(there).await;
    }
    let expected = [
        "keep: session ended: the session was without a stream for too long",
        "name=expired",
    ];
    wait("ten lines", || logs::lines(&expected).len() == 10).await;
    let expired = sessions[0].0.resume(&setup.service, DEVICE, name).await;
    let expired = expired.unwrap_err().to_string();
    assert!(expired.contains("not known there any more"), "{expired}");
    tokio::time::timeout(Duration::from_secs(5), talk(&mut here, &mut there))
        .await
        .unwrap();
}
