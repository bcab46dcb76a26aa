//! Echo tests against peers in memory.

use std::future::poll_fn;

use common::websocket::Data;
use tokio::io::{DuplexStream, duplex};
use tokio::time::Instant;

use super::*;

/// How a peer answers; the message, then whether to close after it.
type Answer = fn(u64, Bytes) -> (Vec<Bytes>, bool);

async fn peer(stream: DuplexStream, answer: Answer) {
    let mut leg = WebSocket::server(stream, &[]);
    for number in 1.. {
        let Ok(Incoming::Data(data)) = poll_fn(|cx| leg.poll_incoming(cx)).await else {
            let _ = poll_fn(|cx| leg.poll_flush(cx)).await;
            return;
        };
        let (pieces, close) = answer(number, data.into_bytes());
        for piece in pieces {
            poll_fn(|cx| leg.poll_ready(cx)).await.unwrap();
            leg.start_send(Data::binary(piece)).unwrap();
        }
        poll_fn(|cx| leg.poll_flush(cx)).await.unwrap();
        if close {
            return leg.close(CloseFrame::NORMAL, "", REPLY).await;
        }
    }
}

async fn tested(plan: EchoPlan, answer: Answer) -> EchoReport {
    let (near, far) = duplex(1 << 20);
    tokio::spawn(peer(far, answer));
    let stop = CancellationToken::new();
    let leg = WebSocket::client(near, &[]);
    run_on(leg, &plan, &stop, |_| {}).await
}

fn pings(count: u64, payload: Payload) -> EchoPlan {
    EchoPlan::Pings {
        count: Some(count),
        payload,
        interval: Duration::from_millis(1),
    }
}

fn same(_: u64, bytes: Bytes) -> (Vec<Bytes>, bool) {
    (vec![bytes], false)
}

#[tokio::test]
async fn everything_comes_back() {
    let report = tested(pings(4, Payload::Pattern(64)), same).await;
    assert!(report.is_success(), "{report:?}");
    assert_eq!((report.sent, report.received), (4, 4));
    assert!(report.times.min() <= report.times.average());
    assert!(report.times.average() <= report.times.max());
}

#[tokio::test]
async fn replies_may_come_in_pieces() {
    let report = tested(pings(3, Payload::Pattern(1000)), |_, bytes| {
        (vec![bytes.slice(..1), bytes.slice(1..)], false)
    })
    .await;
    assert!(report.is_success(), "{report:?}");
}

#[tokio::test]
async fn the_official_samples_close_after_one_message() {
    let once: Answer = |_, bytes| (vec![bytes], true);
    let report = tested(pings(1, Payload::Text("hello".into())), once).await;
    assert!(report.is_success(), "{report:?}");
    let report = tested(pings(2, Payload::Text("hello".into())), once).await;
    assert!(
        matches!(
            report.failure,
            Some(EchoFailure::Closed { code: 1000 } | EchoFailure::Lost(_))
        ),
        "{report:?}"
    );
    assert_eq!(report.received, 1);
}

#[tokio::test]
async fn wrong_bytes_and_too_many_are_failures() {
    let wrong: Answer = |_, bytes| {
        let mut bytes = bytes.to_vec();
        bytes[3] ^= 1;
        (vec![bytes.into()], false)
    };
    let report = tested(pings(2, Payload::Pattern(8)), wrong).await;
    assert!(
        matches!(report.failure, Some(EchoFailure::Mismatch { at: 3 })),
        "{report:?}"
    );
    let report = tested(pings(2, Payload::Text("ab".into())), |_, bytes| {
        (vec![bytes, Bytes::from_static(b"x")], false)
    })
    .await;
    assert!(
        matches!(
            report.failure,
            Some(EchoFailure::Surplus | EchoFailure::Mismatch { .. })
        ),
        "{report:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_has_a_deadline() {
    let started = Instant::now();
    let report = tested(pings(2, Payload::Pattern(8)), |number, bytes| {
        (if number == 1 { vec![bytes] } else { vec![] }, false)
    })
    .await;
    assert!(
        matches!(report.failure, Some(EchoFailure::NoReply)),
        "{report:?}"
    );
    assert_eq!((report.sent, report.received), (2, 1));
    assert!(started.elapsed() < REPLY + 2 * limits::CLOSE);
}

#[tokio::test]
async fn stopping_keeps_the_statistics() {
    let (near, far) = duplex(1 << 20);
    tokio::spawn(peer(far, same));
    let stop = CancellationToken::new();
    let plan = EchoPlan::Pings {
        count: None,
        payload: Payload::Pattern(8),
        interval: Duration::from_millis(1),
    };
    let leg = WebSocket::client(near, &[]);
    let report = run_on(leg, &plan, &stop, |event| {
        if matches!(event, EchoEvent::Reply { seq: 3, .. }) {
            stop.cancel();
        }
    })
    .await;
    assert!(report.is_success(), "{report:?}");
    assert_eq!(report.received, 3);
}

#[tokio::test]
async fn throughput_is_checked_byte_by_byte() {
    let total = 3 * limits::STREAM_MESSAGE as u64 + 5;
    let report = tested(EchoPlan::Throughput { total }, same).await;
    assert!(report.is_success(), "{report:?}");
    assert_eq!((report.bytes_sent, report.bytes_received), (total, total));
    // Another border of messages, and one byte less.
    let report = tested(EchoPlan::Throughput { total }, |number, bytes| {
        let at = bytes.len() / 3;
        let first = bytes.slice(..at);
        let second = bytes.slice(at + usize::from(number == 2)..);
        (vec![first, second], false)
    })
    .await;
    let missing = limits::STREAM_MESSAGE as u64 + limits::STREAM_MESSAGE as u64 / 3;
    assert!(
        matches!(report.failure, Some(EchoFailure::Mismatch { at }) if at == missing),
        "{report:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_stalled_throughput_test_ends() {
    let report = tested(EchoPlan::Throughput { total: 1 << 20 }, |number, bytes| {
        (if number < 3 { vec![bytes] } else { vec![] }, false)
    })
    .await;
    assert!(
        matches!(report.failure, Some(EchoFailure::NoReply)),
        "{report:?}"
    );
    assert_eq!(report.bytes_received, 2 * limits::STREAM_MESSAGE as u64);
}
