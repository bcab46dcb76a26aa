//! A session outlives its stream: whatever is cut, restarted or frozen between both proxies, the
//! connections continue.

use std::time::Duration;

use tests::session_setup::{break_off, pass, reset, rest, talk};
use tests::{SessionSetup, logs, noise, soon, wait};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// Passes a keystroke and its echo after the path was cut.
async fn recovers(here: &mut TcpStream, there: &mut TcpStream) {
    pass(here, there, b"k").await;
    pass(there, here, b"k").await;
}

#[tokio::test]
async fn a_cut_stream_is_opened_again_unnoticed() {
    let (setup, links) = SessionSetup::behind_links("cut").await;
    let (mut here, mut there) = setup.pair().await;
    talk(&mut here, &mut there).await;
    for _ in 0..5 {
        links.https.reset_all();
        recovers(&mut here, &mut there).await;
    }
    // The device's hub session is reset as well. One that has lasted for a second is opened again
    // at once, so bytes are passed for a while first.
    for _ in 0..3 {
        let identity = &setup.connection.identity;
        wait("the device's hub session", || {
            setup.hub.state.presence.is_subscribed(identity)
        })
        .await;
        let typing = Instant::now();
        while typing.elapsed() < Duration::from_millis(1_200) {
            talk(&mut here, &mut there).await;
        }
        links.https.reset_all();
        links.mqtts.reset_all();
        recovers(&mut here, &mut there).await;
    }
    assert_eq!(setup.hub.state.legs.count(), 1);
}

#[tokio::test]
async fn a_path_that_is_gone_for_a_while() {
    let (setup, links) = SessionSetup::behind_links("gone").await;
    let (mut here, mut there) = setup.pair().await;
    talk(&mut here, &mut there).await;
    for link in [&links.https, &links.mqtts] {
        link.refuse().await;
        link.reset_all();
    }
    wait("the path to be empty", || {
        links.https.counts().connections == 0 && links.mqtts.counts().connections == 0
    })
    .await;
    // Bytes sent meanwhile, in both directions, and a new connection.
    here.write_all(b"typed meanwhile").await.unwrap();
    there.write_all(b"printed meanwhile").await.unwrap();
    let mut newcomer = setup.service.connect().await;
    newcomer.write_all(b"hello").await.unwrap();
    for link in [&links.https, &links.mqtts] {
        link.allow().await;
    }
    let mut arrived = [0; 15];
    soon("what was typed", there.read_exact(&mut arrived))
        .await
        .unwrap();
    assert_eq!(&arrived, b"typed meanwhile");
    let mut arrived = [0; 17];
    here.read_exact(&mut arrived).await.unwrap();
    assert_eq!(&arrived, b"printed meanwhile");
    let (mut welcome, _) = soon("the newcomer", setup.target.accept()).await.unwrap();
    pass(&mut welcome, &mut newcomer, b"welcome").await;
}

#[tokio::test]
async fn a_hub_that_restarts_in_the_middle_of_a_copy() {
    let (mut setup, links) = SessionSetup::behind_links("restart").await;
    let (mut shell, mut shell_there) = setup.pair().await;
    talk(&mut shell, &mut shell_there).await;
    let (mut here, mut there) = setup.pair().await;
    // Nothing is read before the restart, so that the transfer cannot be complete by then.
    let bytes = 48 << 20;
    let sending = tokio::spawn(async move { (noise::send(&mut here, 1, bytes).await, here) });
    let begun = links.https.counts().bytes_forward + (1 << 20);
    wait("the copy to be under way", || {
        links.https.counts().bytes_forward > begun
    })
    .await;
    setup.hub = setup.hub.restart_behind(&links).await;
    assert!(!sending.is_finished(), "all of it was buffered");
    recovers(&mut shell, &mut shell_there).await;
    let copied = timeout(Duration::from_secs(60), noise::receive(&mut there)).await;
    let received = copied.expect("the copy in time");
    assert_eq!(received, (bytes, sending.await.unwrap().0));
}

#[tokio::test]
async fn a_frozen_path_is_detected_and_used_again_afterwards() {
    logs::keep();
    let (setup, links) = SessionSetup::behind_links("frozen").await;
    let (mut here, mut there) = setup.pair().await;
    talk(&mut here, &mut there).await;
    links.https.freeze();
    here.write_all(b"into the ice").await.unwrap();
    let noticed = async {
        for expected in [
            [
                "session interrupted: the other end was silent",
                "name=frozen",
            ],
            ["session detached: the other end was silent", "name=frozen"],
        ] {
            while logs::lines(&expected).is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    };
    // 20 s, and an allowance for a busy machine.
    timeout(Duration::from_secs(40), noticed)
        .await
        .expect("silence is noticed");
    links.https.thaw();
    let mut arrived = [0; 12];
    soon("the bytes after the thaw", there.read_exact(&mut arrived))
        .await
        .unwrap();
    assert_eq!(&arrived, b"into the ice");
    talk(&mut here, &mut there).await;
}

#[tokio::test]
async fn a_session_interrupted_under_way_closes_what_is_closed_meanwhile() {
    let (setup, links) = SessionSetup::behind_links("ends-in-the-dark").await;
    let (mut first, mut first_there) = setup.pair().await;
    let (second, mut second_there) = setup.pair().await;
    links.https.refuse().await;
    links.https.reset_all();
    links.https.is_empty().await;
    first.write_all(b"last words").await.unwrap();
    first.shutdown().await.unwrap();
    break_off(second);
    links.https.allow().await;
    assert_eq!(rest(&mut first_there).await, b"last words");
    reset(&mut second_there).await;
    pass(&mut first_there, &mut first, b"the Close").await;
}
