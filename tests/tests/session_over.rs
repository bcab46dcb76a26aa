//! How sessions end when they cannot, or must not, be resumed: their connections are reset at both
//! ends at once, and the reason is logged.

use std::time::Duration;

use hub::registry::Status;
use tests::device::KillableDevice;
use tests::session_setup::{DEVICE, reset, talk};
use tests::{SessionSetup, TestDevice, TestHub, TestService, logs, slow_link, soon, wait};
use tokio::net::TcpListener;
use tokio::time::Instant;

#[tokio::test]
async fn an_unreachable_session_expires_at_both_ends() {
    logs::keep();
    let (hub, links) = TestHub::start_behind(slow_link::Settings::default()).await;
    let options = ["--session-grace", "1"];
    let setup = SessionSetup::on(hub, "expires", &options, &options).await;
    let (mut here, mut there) = setup.pair().await;
    talk(&mut here, &mut there).await;
    links.https.refuse().await;
    links.https.reset_all();
    let cut = Instant::now();
    reset(&mut here).await;
    reset(&mut there).await;
    let took = cut.elapsed();
    assert!(took > Duration::from_millis(900), "{took:?}");
    logs::line(&[
        "session lost: no way to the device was found for 1 s",
        "name=expires",
    ])
    .await;
    logs::line(&[
        "session ended: the session was without a stream for too long",
        "name=expires",
    ])
    .await;
    // The next connection begins a new session.
    links.https.allow().await;
    let (mut here, mut there) = setup.pair().await;
    talk(&mut here, &mut there).await;
}

#[tokio::test]
async fn a_device_proxy_that_was_killed_and_started_anew_is_known_at_once() {
    logs::keep();
    let hub = TestHub::start().await;
    let connection = hub.create(DEVICE).await;
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let option = format!("anew={}", target.local_addr().unwrap());
    let options = ["--target", &option];
    let first = KillableDevice::start(&hub, &connection, &options).await;
    let service = TestService::listen(&hub, &["--session", "always", DEVICE, "0:anew"]).await;
    let pair = async || {
        let here = service.connect().await;
        let (there, _) = soon("the target", target.accept()).await.unwrap();
        (here, there)
    };
    let (mut here, mut there) = pair().await;
    talk(&mut here, &mut there).await;
    first.kill();
    reset(&mut there).await;
    // Until a peer that does not know the session answers, it may still exist.
    let waiting = logs::line(&["session interrupted", "name=anew"]).await;
    assert!(waiting.contains("connections=1"), "{waiting}");
    let _second = TestDevice::start(&hub, &connection, &options).await;
    reset(&mut here).await;
    let why = logs::line(&["session lost:", "name=anew"]).await;
    assert!(why.contains("the device-proxy was started anew"), "{why}");
    let (mut here, mut there) = pair().await;
    talk(&mut here, &mut there).await;
}

#[tokio::test]
async fn a_device_proxy_that_stops_resets_its_clients_at_once() {
    logs::keep();
    let setup = SessionSetup::start("device-stops").await;
    let (mut here, mut there) = setup.pair().await;
    talk(&mut here, &mut there).await;
    let stopping = tokio::spawn(setup.device.shut_down());
    reset(&mut here).await;
    reset(&mut there).await;
    stopping.await.unwrap().unwrap();
    logs::line(&[
        "session ended by the device: the program there stops",
        "name=device-stops",
    ])
    .await;
    wait("no stream", || setup.hub.state.legs.count() == 0).await;
}

#[tokio::test]
async fn a_service_proxy_that_stops_resets_its_targets_at_once() {
    logs::keep();
    let setup = SessionSetup::start("service-stops").await;
    let (mut here, mut there) = setup.pair().await;
    talk(&mut here, &mut there).await;
    let stopping = tokio::spawn(setup.service.shut_down());
    reset(&mut there).await;
    reset(&mut here).await;
    stopping.await.unwrap();
    // First one with connections, then one without any.
    logs::line(&["session closed", "connections=", "name=service-stops"]).await;
    wait("no stream", || setup.hub.state.legs.count() == 0).await;
}

#[tokio::test]
async fn each_program_stops_while_its_session_is_interrupted() {
    for device_first in [true, false] {
        let name = if device_first {
            "dark-device"
        } else {
            "dark-service"
        };
        let (hub, links) = TestHub::start_behind(slow_link::Settings::default()).await;
        let setup = SessionSetup::on(hub, name, &[], &[]).await;
        let (mut here, mut there) = setup.pair().await;
        talk(&mut here, &mut there).await;
        links.https.refuse().await;
        links.https.reset_all();
        links.https.is_empty().await;
        if device_first {
            let stopping = tokio::spawn(setup.device.shut_down());
            reset(&mut there).await;
            soon("its end", stopping).await.unwrap().unwrap();
        } else {
            let stopping = tokio::spawn(setup.service.shut_down());
            reset(&mut here).await;
            soon("its end", stopping).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_device_that_is_disabled_ends_the_session() {
    logs::keep();
    let setup = SessionSetup::start("disabled").await;
    let (mut here, mut there) = setup.pair().await;
    talk(&mut here, &mut there).await;
    // Its streams end with it.
    setup.hub.set_status(DEVICE, Status::Disabled).await;
    logs::line(&["session interrupted", "name=disabled"]).await;
    // The hub holds the first request for a while, and then reports only that the device is not
    // connected.
    reset(&mut here).await;
    let why = logs::line(&["session lost:", "name=disabled"]).await;
    assert!(why.contains("the device MyDevice is disabled"), "{why}");
    // The device does not learn why it is refused, so it keeps its end of the session.
    let kept = there.try_read(&mut [0]).unwrap_err();
    assert_eq!(kept.kind(), std::io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn a_device_that_is_deleted_ends_the_session() {
    logs::keep();
    let setup = SessionSetup::start("deleted").await;
    let (mut here, mut there) = setup.pair().await;
    talk(&mut here, &mut there).await;
    setup.hub.delete(DEVICE).await;
    reset(&mut here).await;
    let why = logs::line(&["session lost:", "name=deleted"]).await;
    assert!(why.contains("the hub knows no device `MyDevice`"), "{why}");
}

#[tokio::test]
async fn the_end_of_one_service_proxy_is_not_the_others() {
    let setup = SessionSetup::start("two-ports").await;
    let port = format!("0:{}", setup.name);
    let options = ["--session", "always", DEVICE, &port];
    let other = TestService::listen(&setup.hub, &options).await;
    let (mut here, mut there) = setup.pair().await;
    let mut here_too = other.connect().await;
    let (mut there_too, _) = soon("the target", setup.target.accept()).await.unwrap();
    talk(&mut here, &mut there).await;
    talk(&mut here_too, &mut there_too).await;
    assert_eq!(setup.hub.state.legs.count(), 2);
    other.shut_down().await;
    reset(&mut there_too).await;
    talk(&mut here, &mut there).await;
}
