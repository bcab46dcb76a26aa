//! Connections in a session begin and end as TCP connections do: every kind of end arrives as the
//! same kind.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use common::limits;
use common::session::SessionId;
use common::session::frame::Frame;
use common::session::inner::{ConnectionId, Inner};
use common::session::proof::ResumeSecret;
use tests::messages::send;
use tests::session_setup::{DEVICE, break_off, pass, reset, rest, talk};
use tests::{
    RawService, SessionSetup, Target, TestDevice, TestHub, TestService, logs, noise, soon,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

#[tokio::test]
async fn a_half_close_of_the_client_arrives_as_one() {
    let setup = SessionSetup::start("half-close").await;
    let (mut here, mut there) = setup.pair().await;
    // As `printf … | nc -N` does.
    here.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    here.shutdown().await.unwrap();
    assert_eq!(rest(&mut there).await, b"GET / HTTP/1.0\r\n\r\n");
    // The other direction stays open until the target ends it.
    for _ in 0..3 {
        pass(&mut there, &mut here, b"a line of the answer").await;
    }
    drop(there);
    assert_eq!(rest(&mut here).await, b"");
}

#[tokio::test]
async fn a_half_close_of_the_target_arrives_as_one() {
    let setup = SessionSetup::start("half-close").await;
    let (mut here, mut there) = setup.pair().await;
    there.shutdown().await.unwrap();
    assert_eq!(rest(&mut here).await, b"");
    let (sent, received) = soon("the bytes after it", async {
        tokio::join!(
            noise::send(&mut here, 1, 3 << 20),
            noise::receive(&mut there)
        )
    })
    .await;
    assert_eq!(received, (3 << 20, sent));
}

#[tokio::test]
async fn a_reset_arrives_as_a_reset() {
    let setup = SessionSetup::start("reset").await;
    let (mut here, mut there) = setup.pair().await;
    talk(&mut here, &mut there).await;
    break_off(here);
    reset(&mut there).await;

    let (mut here, mut there) = setup.pair().await;
    talk(&mut here, &mut there).await;
    break_off(there);
    reset(&mut here).await;
    // Also after a half-close by the other side.
    let (mut here, mut there) = setup.pair().await;
    here.shutdown().await.unwrap();
    assert_eq!(rest(&mut there).await, b"");
    break_off(there);
    reset(&mut here).await;
    // The session continues.
    let (mut here, mut there) = setup.pair().await;
    talk(&mut here, &mut there).await;
}

#[tokio::test]
async fn a_connection_without_a_byte_ends_in_order() {
    let setup = SessionSetup::start("zero").await;
    let (here, mut there) = setup.pair().await;
    drop(here);
    assert_eq!(rest(&mut there).await, b"");
    let (mut here, there) = setup.pair().await;
    drop(there);
    assert_eq!(rest(&mut here).await, b"");
    // Closed before the connection can be open anywhere.
    drop(setup.service.connect().await);
    let (mut there, _) = soon("the target's connection", setup.target.accept())
        .await
        .unwrap();
    assert_eq!(rest(&mut there).await, b"");
}

#[tokio::test]
async fn either_side_may_send_first() {
    let setup = SessionSetup::start("first").await;
    let (mut here, mut there) = setup.pair().await;
    pass(&mut there, &mut here, b"220 ready\r\n").await;
    pass(&mut here, &mut there, b"EHLO\r\n").await;
    // Also with bytes sent before the connection is open.
    let mut here = setup.service.connect().await;
    here.write_all(b"early").await.unwrap();
    here.shutdown().await.unwrap();
    let (mut there, _) = soon("the target's connection", setup.target.accept())
        .await
        .unwrap();
    assert_eq!(rest(&mut there).await, b"early");
}

#[tokio::test]
async fn what_was_sent_before_a_close_arrives() {
    let setup = SessionSetup::start("linger").await;
    for number in 0..8 {
        let (mut here, mut there) = setup.pair().await;
        let send = async {
            let hash = noise::send(&mut here, number, 1 << 20).await;
            drop(here);
            hash
        };
        let (sent, received) = soon("the bytes", async {
            tokio::join!(send, noise::receive(&mut there))
        })
        .await;
        assert_eq!(received, (1 << 20, sent));
        // The client is gone, so writing fails in the end.
        while there.write_all(b"an answer").await.is_ok() {
            tokio::task::yield_now().await;
        }
    }
}

/// Opens a port to this target; the client of a connection to it must see a reset.
async fn refused(name: &str, target: &str) {
    logs::keep();
    let hub = TestHub::start().await;
    let connection = hub.create(DEVICE).await;
    let option = format!("{name}={target}");
    let _device = TestDevice::start(&hub, &connection, &["--target", &option]).await;
    let port = format!("0:{name}");
    let service = TestService::listen(&hub, &["--session", "always", DEVICE, &port]).await;
    reset(&mut service.connect().await).await;
}

#[tokio::test]
async fn a_target_that_refuses_is_named() {
    let nowhere = Target::nowhere().await.to_string();
    refused("nobody-listens", &nowhere).await;
    let why = logs::line(&[
        "WARN",
        "no connection to MyDevice (nobody-listens): nothing listens at the target",
    ]);
    assert!(why.await.contains(&nowhere));
    logs::line(&["WARN", "connection refused", "name=nobody-listens"]).await;
}

#[tokio::test]
async fn a_target_that_cannot_be_reached_is_named() {
    refused("unreachable", "255.255.255.255:9").await;
    logs::line(&[
        "no connection to MyDevice (unreachable): the target cannot be reached",
        "255.255.255.255:9",
    ])
    .await;
}

/// A port with a full queue: the system answers no further connection requests.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_target_that_does_not_answer_is_named() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let full: TcpListener = socket.listen(1).unwrap();
    let address = full.local_addr().unwrap();
    let mut queue = Vec::new();
    let short = Duration::from_millis(300);
    while let Ok(Ok(queued)) = tokio::time::timeout(short, TcpStream::connect(address)).await {
        queue.push(queued);
    }
    refused("silence", &address.to_string()).await;
    logs::line(&["no connection to MyDevice (silence): the target does not answer"]).await;
}

#[tokio::test]
async fn sixty_four_at_once_of_all_sizes() {
    let setup = SessionSetup::start("many").await;
    let target = async {
        let mut tasks = JoinSet::new();
        for _ in 0..64 {
            let (mut there, _) = setup.target.accept().await.unwrap();
            tasks.spawn(async move {
                let (mut reader, mut writer) = there.split();
                tokio::io::copy(&mut reader, &mut writer).await.unwrap();
                writer.shutdown().await.unwrap();
            });
        }
        tasks.join_all().await;
    };
    let mut clients = JoinSet::new();
    let address = setup.service.addresses[0];
    for number in 0..64_u64 {
        clients.spawn(async move {
            let mut here = TcpStream::connect(address).await.unwrap();
            let size = number * number * 91;
            let (mut reader, mut writer) = here.split();
            let (sent, received) = tokio::join!(
                noise::send(&mut writer, number, size),
                noise::receive(&mut reader)
            );
            assert_eq!(received, (size, sent), "{number}");
        });
    }
    let all = async { tokio::join!(target, clients.join_all()) };
    soon("all connections", all).await;
}

#[tokio::test]
async fn a_reader_that_stalls_stops_no_other() {
    let setup = SessionSetup::start("stall").await;
    let (mut stalled, mut flood) = setup.pair().await;
    let flooding = tokio::spawn(async move {
        let piece = vec![0; 64 << 10];
        let mut sent = 0;
        while sent < 64 << 20 && flood.write_all(&piece).await.is_ok() {
            sent += piece.len();
        }
        sent
    });
    // The flood stops when the buffers are full.
    let mut first = [0; 4096];
    soon("the flood", stalled.read_exact(&mut first))
        .await
        .unwrap();
    let (mut here, mut there) = setup.pair().await;
    for _ in 0..20 {
        talk(&mut here, &mut there).await;
    }
    let (sent, received) = soon("bulk beside it", async {
        tokio::join!(
            noise::send(&mut there, 2, 8 << 20),
            noise::receive(&mut here)
        )
    })
    .await;
    assert_eq!(received, (8 << 20, sent));
    assert!(!flooding.is_finished(), "64 MiB were buffered");
    break_off(stalled);
    let sent = soon("the flood's end", flooding).await.unwrap();
    assert!(sent < 64 << 20, "its writer was reset");
}

/// A service that ends a session with open connections: at the device all of them end as soon as
/// what had arrived is delivered, and their permits are free.
#[tokio::test]
async fn the_end_of_a_session_ends_its_connections() {
    let hub = TestHub::start().await;
    let connection = hub.create(DEVICE).await;
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let option = format!("ended={}", target.local_addr().unwrap());
    let _device = TestDevice::start(&hub, &connection, &["--target", &option]).await;
    let service = RawService::new(&hub).await;
    let mut opening = service.opening(DEVICE, "ended").await;
    opening.greeting(limits::SESSION_HANDSHAKE).await.unwrap();
    let (id, secret) = (SessionId::random(), ResumeSecret::random());
    let grace = Duration::from_secs(60);
    opening.hello(id, &secret, grace).await.unwrap();
    let (mut leg, _) = opening.into_parts();
    let mut bytes = BytesMut::new();
    for number in 1..=2 {
        Inner::Open.encode(ConnectionId(number), &mut bytes);
        Inner::Data(Bytes::from_static(b"last words")).encode(ConnectionId(number), &mut bytes);
    }
    // One of them has half-closed.
    Inner::Fin.encode(ConnectionId(1), &mut bytes);
    let frames = Frame::Data {
        offset: 0,
        bytes: bytes.freeze(),
        wants_ack: false,
    };
    send(&mut leg, frames.encode()).await;
    let mut targets = Vec::new();
    for _ in 0..2 {
        targets.push(soon("the target", target.accept()).await.unwrap().0);
    }
    for there in &mut targets {
        let mut text = [0; 10];
        soon("the text", there.read_exact(&mut text)).await.unwrap();
    }
    send(&mut leg, Frame::End.encode()).await;
    for mut there in targets {
        soon("the target to be cut off", async {
            // Reads what there is, perhaps an end, and keeps writing.
            while there.write_all(b"an answer").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }
}
