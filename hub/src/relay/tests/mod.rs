use bytes::Bytes;
use common::websocket::{CloseFrame, Incoming, Kind};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame as RawClose;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::*;
use crate::events::Meters;
use crate::limits;

mod floods;
mod metered;

type Socket = WebSocket<DuplexStream>;

struct Story {
    service: Socket,
    device: Socket,
    cancel: CancellationToken,
    outcome: JoinHandle<RelayOutcome>,
}

/// Of a stream alone.
fn meter() -> Meter {
    Meters::default().open()
}

async fn story(pipe: usize) -> Story {
    let (pipe, story) = raw_story(pipe).await;
    let (device, cancel, outcome) = story;
    Story {
        service: WebSocket::client(pipe, &[]),
        device,
        cancel,
        outcome,
    }
}

/// A service that speaks through another library than ours, with limits of its own.
type RawService = tokio_tungstenite::WebSocketStream<DuplexStream>;

async fn foreign_story(pipe: usize) -> (RawService, Socket, JoinHandle<RelayOutcome>) {
    let (pipe, (device, _, outcome)) = raw_story(pipe).await;
    let role = tokio_tungstenite::tungstenite::protocol::Role::Client;
    let service = RawService::from_raw_socket(pipe, role, None).await;
    (service, device, outcome)
}

type Rest = (Socket, CancellationToken, JoinHandle<RelayOutcome>);

async fn raw_story(pipe: usize) -> (DuplexStream, Rest) {
    let (service, service_leg) = duplex(pipe);
    let (device, device_leg) = duplex(pipe);
    let cancel = CancellationToken::new();
    let token = cancel.clone();
    let first = WebSocket::server(service_leg, &[]);
    let second = WebSocket::server(device_leg, &[]);
    let outcome = tokio::spawn(async move {
        relay(Leg::Service, first, None, second, &meter(), None, &token).await
    });
    let device = WebSocket::client(device, &[]);
    (service, (device, cancel, outcome))
}

async fn send(socket: &mut Socket, data: Data) {
    poll_fn(|cx| socket.poll_ready(cx)).await.unwrap();
    socket.start_send(data).unwrap();
    poll_fn(|cx| socket.poll_flush(cx)).await.unwrap();
}

async fn receive(socket: &mut Socket) -> Incoming {
    poll_fn(|cx| socket.poll_incoming(cx)).await.unwrap()
}

async fn data(socket: &mut Socket) -> Data {
    match receive(socket).await {
        Incoming::Data(data) => data,
        other => panic!("{other:?}"),
    }
}

async fn closed(socket: &mut Socket) -> CloseFrame {
    match receive(socket).await {
        Incoming::Closed(close_frame) => close_frame,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn messages_keep_type_and_border_up_to_64_kib() {
    let Story {
        mut service,
        mut device,
        ..
    } = story(1 << 20).await;
    for length in [1, 1000, limits::STREAM_MESSAGE] {
        let message = Data::binary(Bytes::from(vec![5; length]));
        send(&mut service, message.clone()).await;
        assert_eq!(data(&mut device).await, message);
    }
    send(&mut device, Data::text("grüß".into())).await;
    assert_eq!(data(&mut service).await, Data::text("grüß".into()));
}

#[tokio::test]
async fn empty_messages_are_dropped_and_end_nothing() {
    let Story {
        mut service,
        mut device,
        ..
    } = story(1 << 16).await;
    for _ in 0..100 {
        send(&mut service, Data::binary(Bytes::new())).await;
        send(&mut service, Data::text(String::new())).await;
    }
    send(&mut service, Data::binary(Bytes::from_static(b"x"))).await;
    assert_eq!(data(&mut device).await.into_bytes(), "x");
}

#[tokio::test]
async fn sixteen_mebibytes_go_on_in_pieces() {
    let (mut service, mut device, outcome) = foreign_story(1 << 16).await;
    let mut message = vec![0u8; limits::STREAM_MESSAGE_ACCEPTED];
    for (place, byte) in message.iter_mut().enumerate() {
        *byte = (place % 253) as u8;
    }
    let text = "ä".repeat(100_000);
    let (sent, sent_text) = (Bytes::from(message.clone()), text.clone());
    let sender = tokio::spawn(async move {
        service.send(Message::Binary(sent)).await.unwrap();
        service.send(Message::text(sent_text)).await.unwrap();
        let normal = RawClose {
            code: CloseCode::Normal,
            reason: "".into(),
        };
        service.close(Some(normal)).await.unwrap();
        service
    });
    let (mut binary, mut words) = (Vec::new(), Vec::new());
    loop {
        match receive(&mut device).await {
            Incoming::Data(piece) => {
                assert!(piece.len() <= limits::STREAM_MESSAGE);
                match piece.kind() {
                    Kind::Binary => binary.extend_from_slice(&piece.into_bytes()),
                    Kind::Text => words.extend_from_slice(&piece.into_bytes()),
                }
            }
            Incoming::Closed(close_frame) => {
                assert!(close_frame.is_normal());
                break;
            }
        }
    }
    assert!(binary == message);
    assert_eq!(String::from_utf8(words).unwrap(), text);
    poll_fn(|cx| device.poll_flush(cx)).await.unwrap();
    drop(device);
    sender.await.unwrap();
    let outcome = outcome.await.unwrap();
    assert!(
        matches!(outcome.end, RelayEnd::Closed(Leg::Service)),
        "{:?}",
        outcome.end
    );
    assert_eq!(outcome.to_device, (message.len() + text.len()) as u64);
}

#[tokio::test]
async fn a_larger_message_ends_the_stream() {
    let (mut service, mut device, outcome) = foreign_story(1 << 20).await;
    let huge = Bytes::from(vec![0; limits::STREAM_MESSAGE_ACCEPTED + 1]);
    let sender = tokio::spawn(async move {
        service.send(Message::Binary(huge)).await.unwrap();
        service.next().await.unwrap().unwrap()
    });
    assert_eq!(closed(&mut device).await.code, CloseFrame::ERROR);
    drop(device);
    // Its sender learns why.
    let told = sender.await.unwrap();
    assert!(
        matches!(&told, Message::Close(Some(frame)) if frame.code == CloseCode::Size),
        "{told:?}"
    );
    let outcome = outcome.await.unwrap();
    assert!(
        matches!(
            outcome.end,
            RelayEnd::Lost(Leg::Service, WebSocketError::TooLarge { .. })
        ),
        "{:?}",
        outcome.end
    );
}

#[tokio::test]
async fn a_normal_close_is_passed_on_after_the_data() {
    let Story {
        mut service,
        mut device,
        ..
    } = story(1 << 16).await;
    send(&mut device, Data::binary(Bytes::from_static(b"last"))).await;
    tokio::spawn(device.close(CloseFrame::NORMAL, "", limits::CLOSE));
    assert_eq!(data(&mut service).await.into_bytes(), "last");
    assert_eq!(closed(&mut service).await.code, CloseFrame::NORMAL);
}

#[tokio::test]
async fn any_other_end_becomes_1011() {
    let Story {
        service,
        mut device,
        ..
    } = story(1 << 16).await;
    service.close(CloseFrame::AWAY, "bye", limits::CLOSE).await;
    let close_frame = closed(&mut device).await;
    assert_eq!(
        (close_frame.code, close_frame.reason.as_str()),
        (1011, DISCONNECTED)
    );

    let Story {
        mut service,
        device,
        ..
    } = story(1 << 16).await;
    drop(device);
    assert_eq!(closed(&mut service).await.code, CloseFrame::ERROR);

    let Story {
        mut service,
        mut device,
        cancel,
        outcome,
    } = story(1 << 16).await;
    cancel.cancel();
    assert_eq!(closed(&mut service).await.code, CloseFrame::ERROR);
    assert_eq!(closed(&mut device).await.code, CloseFrame::ERROR);
    drop((service, device));
    assert!(matches!(outcome.await.unwrap().end, RelayEnd::Cancelled));
}

#[tokio::test]
async fn a_reader_that_stops_stops_the_writer() {
    let Story {
        mut service,
        mut device,
        ..
    } = story(1 << 10).await;
    let sender = tokio::spawn(async move {
        let piece = Bytes::from(vec![1u8; limits::STREAM_MESSAGE]);
        for _ in 0..64 {
            send(&mut service, Data::binary(piece.clone())).await;
        }
        service
    });
    let stuck = tokio::time::timeout(Duration::from_millis(200), async {
        while !sender.is_finished() {
            tokio::task::yield_now().await;
        }
    });
    stuck.await.unwrap_err();
    let mut total = 0;
    while total < 64 * limits::STREAM_MESSAGE {
        total += data(&mut device).await.len();
    }
    sender.await.unwrap();
}

/// A leg that has sent all, its Close included, may be gone for writing long before the
/// other has read it.
#[tokio::test]
async fn what_a_leg_said_before_it_went_is_delivered() {
    let total = 64 * limits::STREAM_MESSAGE;
    let (service, service_leg) = duplex(2 * total);
    let (device, device_leg) = duplex(1 << 10);
    let mut service = WebSocket::client(service, &[]);
    let mut device = WebSocket::client(device, &[]);
    let piece = Bytes::from(vec![3u8; limits::STREAM_MESSAGE]);
    for _ in 0..64 {
        send(&mut service, Data::binary(piece.clone())).await;
    }
    service.start_close(CloseFrame::NORMAL, "").unwrap();
    poll_fn(|cx| service.poll_flush(cx)).await.unwrap();
    drop(service);
    // Words for a leg that takes none any more.
    send(&mut device, Data::binary(Bytes::from_static(b"hi"))).await;
    let first = WebSocket::server(service_leg, &[]);
    let second = WebSocket::server(device_leg, &[]);
    let outcome = tokio::spawn(async move {
        relay(
            Leg::Service,
            first,
            None,
            second,
            &meter(),
            None,
            &CancellationToken::new(),
        )
        .await
    });
    let mut received = 0;
    let close_frame = loop {
        match receive(&mut device).await {
            Incoming::Data(data) => received += data.len(),
            Incoming::Closed(close_frame) => break close_frame,
        }
    };
    assert_eq!((received, close_frame.code), (total, CloseFrame::NORMAL));
    drop(device);
    let outcome = outcome.await.unwrap();
    assert!(
        matches!(outcome.end, RelayEnd::Closed(Leg::Service)),
        "{:?}",
        outcome.end
    );
}

/// A service that has sent something and its Close.
async fn closing(service: &mut Socket) {
    send(service, Data::binary(Bytes::from_static(b"all of it"))).await;
    service.start_close(CloseFrame::NORMAL, "").unwrap();
    poll_fn(|cx| service.poll_flush(cx)).await.unwrap();
}

#[tokio::test]
async fn a_close_is_answered_when_the_other_leg_has_all() {
    let Story {
        mut service,
        mut device,
        outcome,
        ..
    } = story(1 << 16).await;
    closing(&mut service).await;
    let answer = tokio::spawn(async move { closed(&mut service).await });
    assert_eq!(data(&mut device).await.len(), 9);
    assert!(!answer.is_finished());
    assert!(closed(&mut device).await.is_normal());
    poll_fn(|cx| device.poll_flush(cx)).await.unwrap();
    assert_eq!(answer.await.unwrap().code, CloseFrame::NORMAL);
    assert!(matches!(
        outcome.await.unwrap().end,
        RelayEnd::Closed(Leg::Service)
    ));
}

#[tokio::test]
async fn a_close_whose_bytes_were_lost_is_answered_with_1011() {
    let Story {
        mut service,
        device,
        outcome,
        ..
    } = story(10).await;
    let answer = tokio::spawn(async move {
        closing(&mut service).await;
        closed(&mut service).await
    });
    // More than the pipe's ten bytes wait for it when it goes.
    tokio::task::yield_now().await;
    drop(device);
    assert_eq!(answer.await.unwrap().code, CloseFrame::ERROR);
    let end = outcome.await.unwrap().end;
    assert!(
        matches!(
            end,
            RelayEnd::Undelivered(Leg::Device, _) | RelayEnd::Lost(Leg::Device, _)
        ),
        "{end:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_slow_leg_does_not_keep_the_answer_back_for_ever() {
    let Story {
        mut service,
        device,
        outcome,
        ..
    } = story(10).await;
    let started = Instant::now();
    let answer = tokio::spawn(async move {
        closing(&mut service).await;
        closed(&mut service).await
    });
    assert_eq!(answer.await.unwrap().code, CloseFrame::NORMAL);
    assert_eq!(started.elapsed().as_secs(), limits::LEG_CONFIRM.as_secs());
    // It takes nothing at all, and is given up.
    let end = outcome.await.unwrap().end;
    assert!(
        matches!(
            end,
            RelayEnd::Undelivered(Leg::Device, WebSocketError::Dead)
        ),
        "{end:?}"
    );
    assert!(started.elapsed() <= limits::LEG_DELIVER + Duration::from_secs(2));
    drop(device);
}

/// It reads nothing before it has written all, and whom it writes to is gone.
#[tokio::test]
async fn a_leg_that_writes_first_gets_what_a_lost_one_had_sent() {
    let total = 8 * limits::STREAM_MESSAGE;
    let (service, service_leg) = duplex(2 * total);
    let (device, device_leg) = duplex(1 << 10);
    let mut service = WebSocket::client(service, &[]);
    let mut device = WebSocket::client(device, &[]);
    let piece = Bytes::from(vec![3u8; limits::STREAM_MESSAGE]);
    for _ in 0..8 {
        send(&mut service, Data::binary(piece.clone())).await;
    }
    drop(service);
    let first = WebSocket::server(service_leg, &[]);
    let second = WebSocket::server(device_leg, &[]);
    let outcome = tokio::spawn(async move {
        relay(
            Leg::Service,
            first,
            None,
            second,
            &meter(),
            None,
            &CancellationToken::new(),
        )
        .await
    });
    let exchange = async {
        for _ in 0..8 {
            send(&mut device, Data::binary(piece.clone())).await;
        }
        let mut received = 0;
        loop {
            match receive(&mut device).await {
                Incoming::Data(data) => received += data.len(),
                Incoming::Closed(close_frame) => break (received, close_frame.code),
            }
        }
    };
    let ended = timeout(Duration::from_secs(10), exchange).await.unwrap();
    assert_eq!(ended, (total, CloseFrame::ERROR));
    drop(device);
    let end = outcome.await.unwrap().end;
    assert!(matches!(end, RelayEnd::Lost(Leg::Service, _)), "{end:?}");
}
