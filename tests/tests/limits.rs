//! Limits that an operator configures take effect.

use std::time::{Duration, Instant};

use hub::limits::Limits;
use reqwest::Method;
use tests::raw_service::refusal;
use tests::{RawService, TestDevice, TestHub, soon};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

/// A device's stream with the echo target, which stays open as long as the answer is kept.
async fn initiate(service: &RawService) -> u16 {
    let response = service.initiate("d", "echo", 5.0, 5.0).await;
    match response.status().as_u16() {
        200 => 200,
        _ => refusal(response).await.0,
    }
}

#[tokio::test]
async fn a_hub_keeps_to_its_number_of_streams() {
    let hub = TestHub::start_with(Limits {
        streams: 2,
        ..Limits::default()
    })
    .await;
    let connection = hub.create("d").await;
    let _device = TestDevice::start(&hub, &connection, &["--echo"]).await;
    let service = RawService::new(&hub).await;
    // The service's legs never connect: the streams are held until they expire.
    assert_eq!(initiate(&service).await, 200);
    assert_eq!(initiate(&service).await, 200);
    assert_eq!(initiate(&service).await, 429);
}

#[tokio::test]
async fn a_hub_keeps_to_its_number_of_requests_for_one_device() {
    let hub = TestHub::start_with(Limits {
        pending_per_device: 1,
        ..Limits::default()
    })
    .await;
    hub.create("d").await;
    let service = RawService::new(&hub).await;
    // The device is not connected: the first request waits for it, the second finds no room.
    let first = service.initiate("d", "x", 3.0, 1.0);
    let second = async {
        tests::wait("the first request", || hub.state.legs.count() == 1).await;
        initiate(&service).await
    };
    let (first, second) = tokio::join!(first, second);
    assert_eq!(second, 429);
    assert_eq!(refusal(first).await.0, 404);
}

#[tokio::test]
async fn a_hub_keeps_to_the_size_of_a_body() {
    let hub = TestHub::start_with(Limits {
        body: 1000,
        ..Limits::default()
    })
    .await;
    let service = RawService::with_policy(&hub, "iothubowner").await;
    let put = |length: usize| {
        service
            .call(Method::PUT, "/devices/d?api-version=2020-09-30")
            .header("content-type", "application/json")
            .body(vec![b' '; length])
            .send()
    };
    assert_eq!(refusal(put(1001).await.unwrap()).await.0, 413);
    assert_eq!(refusal(put(1000).await.unwrap()).await.0, 400);
}

#[tokio::test]
async fn a_hub_keeps_to_the_time_of_a_handshake() {
    let time = Duration::from_millis(300);
    let hub = TestHub::start_with(Limits {
        handshake: time,
        ..Limits::default()
    })
    .await;
    for port in [hub.https, hub.mqtts, hub.amqps] {
        let started = Instant::now();
        let mut silent = TcpStream::connect(port).await.unwrap();
        let end = soon("the hub's end", silent.read(&mut [0])).await;
        assert!(!matches!(end, Ok(1..)));
        let waited = started.elapsed();
        assert!(waited >= time, "{waited:?}");
    }
}
