//! The session report: device-proxy tells in its twin whether it takes streams in session mode, and
//! service-proxy reads that there.

use hub::registry::{Authentication, Status};
use service_proxy::hub_api::{HubApi, InitiateError, TwinError};
use tests::hub::identity;
use tests::service::{hub_api, wait_for_report};
use tests::{TestDevice, TestHub, wait};

#[tokio::test]
async fn device_proxies_report_while_they_run() {
    let hub = TestHub::start().await;
    for id in ["a+b@c%d", "a+b@c%d/m#1"] {
        let connection = hub.create(id).await;
        let api = hub_api(&hub, "service").await;
        let report = async || api.session_report(&identity(id)).await.unwrap();
        assert_eq!(report().await, None);
        let device = TestDevice::start(&hub, &connection, &["--echo"]).await;
        wait_for_report(&hub, id, |report| report.is_some_and(|s| s.version == 1)).await;
        let first = report().await.unwrap();
        device.shut_down().await.unwrap();
        assert_eq!(report().await, None, "taken back before the end");
        let options = ["--echo", "--transport", "mqtt", "--session", "always"];
        let device = TestDevice::start(&hub, &connection, &options).await;
        wait_for_report(&hub, id, |report| report.is_some()).await;
        assert_ne!(report().await.unwrap().boot_id, first.boot_id);
        device.shut_down().await.unwrap();
        assert_eq!(report().await, None);
    }
}

#[tokio::test]
async fn a_report_stays_when_the_session_is_cut_and_never_takes_it_back() {
    let hub = TestHub::start().await;
    let connection = hub.create("d").await;
    let api = hub_api(&hub, "service").await;
    let report = async || api.session_report(&identity("d")).await.unwrap();
    let device = TestDevice::start(&hub, &connection, &["--echo"]).await;
    wait_for_report(&hub, "d", |report| report.is_some()).await;
    let first = report().await;
    hub.set_status("d", Status::Disabled).await;
    wait("the session's end", || {
        !hub.state.presence.is_connected(&connection.identity)
    })
    .await;
    assert_eq!(report().await, first, "its sessions may live");
    // It cannot connect to withdraw the report.
    device.shut_down().await.unwrap();
    assert_eq!(report().await, first);

    hub.set_status("d", Status::Enabled).await;
    let options = ["--echo", "--session", "never"];
    let device = TestDevice::start(&hub, &connection, &options).await;
    wait_for_report(&hub, "d", |report| report.is_none()).await;
    device.shut_down().await.unwrap();
    assert_eq!(report().await, None);
}

#[tokio::test]
async fn why_a_report_cannot_be_read() {
    let hub = TestHub::start().await;
    hub.create_with("d", Authentication::None).await;
    let why = async |api: &HubApi, id: &str| api.session_report(&identity(id)).await.unwrap_err();
    let service = hub_api(&hub, "service").await;
    assert_eq!(
        why(&service, "x").await,
        TwinError::Hub(InitiateError::UnknownDevice("x".to_owned()))
    );
    assert_eq!(
        why(&service, "d/x").await,
        TwinError::Hub(InitiateError::UnknownModule("d/x".to_owned()))
    );
    let reader = hub_api(&hub, "registryRead").await;
    assert!(matches!(
        why(&reader, "d").await,
        TwinError::Hub(InitiateError::Unauthorised { .. })
    ));
    hub.shut_down().await;
    assert!(matches!(
        why(&service, "d").await,
        TwinError::Hub(InitiateError::Unreachable { .. })
    ));
}
