//! Streams whose bytes are limited.

use common::identity::{DeviceId, DeviceIdentity};

use super::*;
use crate::events::Events;
use crate::limits::{Limit, Limits, Share};
use crate::quotas::Quotas;

fn metered(limit: Limit, most: u64) -> Story {
    let limits = Limits {
        each_device: Share::NONE.with(limit, most),
        ..Limits::default()
    };
    let identity = DeviceIdentity::of_device(DeviceId::parse("d").unwrap());
    let meters = Quotas::new(&limits, Events::default()).meters("p", &identity);
    let (service, service_leg) = duplex(1 << 20);
    let (device, device_leg) = duplex(1 << 20);
    let cancel = CancellationToken::new();
    let token = cancel.clone();
    let first = WebSocket::server(service_leg, &[]);
    let second = WebSocket::server(device_leg, &[]);
    let outcome = tokio::spawn(async move {
        relay(Leg::Service, first, None, second, &meter(), meters, &token).await
    });
    Story {
        service: WebSocket::client(service, &[]),
        device: WebSocket::client(device, &[]),
        cancel,
        outcome,
    }
}

async fn send_all(service: &mut Socket) {
    for _ in 0..50 {
        send(service, Data::binary(Bytes::from(vec![5; 1_000]))).await;
    }
    service.start_close(CloseFrame::NORMAL, "").unwrap();
    poll_fn(|cx| service.poll_flush(cx)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_slowed_arrives_whole_and_so_does_its_end() {
    let Story {
        mut service,
        mut device,
        outcome,
        ..
    } = metered(Limit::BytesPerSecond, 10_000);
    let started = Instant::now();
    send_all(&mut service).await;
    for _ in 0..50 {
        assert_eq!(data(&mut device).await.len(), 1_000);
    }
    // A second's worth comes at once.
    let took = started.elapsed();
    let expected = Duration::from_millis(3_500)..Duration::from_millis(4_500);
    assert!(expected.contains(&took), "{took:?}");
    assert_eq!(closed(&mut device).await.code, CloseFrame::NORMAL);
    poll_fn(|cx| device.poll_flush(cx)).await.unwrap();
    let outcome = outcome.await.unwrap();
    assert_eq!(outcome.to_device, 50_000);
    assert!(matches!(outcome.end, RelayEnd::Closed(Leg::Service)));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_leaves_while_it_is_slowed_is_not_waited_for() {
    let Story {
        mut service,
        device,
        outcome,
        ..
    } = metered(Limit::BytesPerSecond, 1_000);
    for _ in 0..50 {
        send(&mut service, Data::binary(Bytes::from(vec![5; 1_000]))).await;
    }
    drop(device);
    let ended = timeout(Duration::from_secs(30), outcome).await;
    assert!(matches!(
        ended.unwrap().unwrap().end,
        RelayEnd::Lost(Leg::Device, _)
    ));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_days_bytes_is_said_to_both_sides() {
    let Story {
        mut service,
        mut device,
        outcome,
        ..
    } = metered(Limit::BytesPerDay, 20_000);
    send_all(&mut service).await;
    let mut received = 0;
    let close = loop {
        match receive(&mut device).await {
            Incoming::Data(data) => received += data.len(),
            Incoming::Closed(close) => break close,
        }
    };
    assert!((20_000..50_000).contains(&received), "{received}");
    assert_eq!(close.code, CloseFrame::POLICY);
    assert_eq!(close.reason, "limit bytes-per-day of the device");
    assert_eq!(closed(&mut service).await, close);
    let end = outcome.await.unwrap().end;
    assert!(matches!(end, RelayEnd::Over(over) if over.limit == Limit::BytesPerDay));
}
