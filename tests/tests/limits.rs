//! Limits that an operator configures take effect.

use std::future::poll_fn;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::websocket::Incoming;
use hub::limits::Limits;
use reqwest::Method;
use tests::raw_service::{Leg, accepted, refusal};
use tests::{RawService, TestDevice, TestHub, messages, soon};
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

/// Opens a stream of device `id` whose both legs are there.
async fn join(service: &RawService, id: &str) -> Leg {
    let response = service.initiate(id, "echo", 5.0, 5.0).await;
    let (url, token) = accepted(&response);
    let mut leg = service.leg(&url, &token).await;
    messages::send(&mut leg, Bytes::from_static(b"x")).await;
    let back = soon("the echo", poll_fn(|cx| leg.poll_incoming(cx))).await;
    assert!(matches!(back, Ok(Incoming::Data(_))), "{back:?}");
    leg
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
    let _first = join(&service, "d").await;
    // The service's leg of the second never comes: that stream makes room,
    assert_eq!(initiate(&service).await, 200);
    let _second = join(&service, "d").await;
    assert_eq!(hub.state.legs.count(), 2);
    // and one that is in use does not.
    let response = service.initiate("d", "echo", 5.0, 5.0).await;
    assert_eq!(refusal(response).await, (429, 429_001));
}

/// Streams that are initiated and never joined shut out nobody: neither another device, nor
/// another policy, nor the newest of their own.
#[tokio::test]
async fn streams_that_are_never_joined_shut_out_nobody() {
    for limits in [
        Limits {
            unjoined_per_device: 3,
            ..Limits::default()
        },
        Limits {
            unjoined_per_policy: 3,
            ..Limits::default()
        },
        Limits {
            unjoined: 3,
            ..Limits::default()
        },
        Limits {
            streams: 5,
            ..Limits::default()
        },
    ] {
        let described = format!("{limits:?}");
        let hub = TestHub::start_with(limits).await;
        let (junk, other) = (hub.create("junk").await, hub.create("other").await);
        let _junk = TestDevice::start(&hub, &junk, &["--echo"]).await;
        let _other = TestDevice::start(&hub, &other, &["--echo"]).await;
        let service = RawService::new(&hub).await;
        let owner = RawService::with_policy(&hub, "iothubowner").await;
        let early = owner.initiate("other", "echo", 5.0, 5.0).await;
        let mut open = join(&service, "junk").await;
        let mut endpoints = Vec::new();
        for _ in 0..8 {
            let response = service.initiate("junk", "echo", 5.0, 5.0).await;
            endpoints.push(accepted(&response));
        }
        assert!(hub.state.legs.count() <= 5, "{described}");
        // The oldest of the flood has gone, and its newest can be joined.
        let (url, token) = &endpoints[0];
        assert!(service.try_leg(url, token).await.is_err(), "{described}");
        let (url, token) = &endpoints[7];
        service.leg(url, token).await;
        // What another one had initiated before can be joined as well, and more of it opens.
        let (url, token) = accepted(&early);
        owner.leg(&url, &token).await;
        join(&service, "other").await;
        join(&owner, "junk").await;
        // What was open stays so.
        messages::send(&mut open, Bytes::from_static(b"y")).await;
        let back = soon("the echo", poll_fn(|cx| open.poll_incoming(cx))).await;
        assert!(matches!(back, Ok(Incoming::Data(_))), "{described}");
    }
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
