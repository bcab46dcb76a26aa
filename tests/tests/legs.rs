//! The streaming endpoint: tokens, legs that never connect, legs that are lost.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use common::identity::Leg;
use common::limits;
use common::net::ConnectError;
use common::net::Dialer;
use common::secret::Secret;
use common::websocket::{CloseFrame, Incoming, WebSocket};
use common::wire::stream::StreamRequest;
use rustls::{ClientConfig, HandshakeKind};
use tests::raw_service::accepted;
use tests::{RawDevice, RawService, TestHub, soon, wait};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::Instant;

struct Setup {
    hub: TestHub,
    device: RawDevice,
    service: RawService,
    request: StreamRequest,
    url: String,
    token: Secret,
}

/// An accepted stream without legs.
async fn setup() -> Setup {
    let hub = TestHub::start().await;
    let connection = hub.create("d").await;
    let mut device = RawDevice::connect(&hub, &connection).await;
    let service = RawService::new(&hub).await;
    let (response, request) = tokio::join!(service.initiate("d", "s", 5.0, 5.0), async {
        let request = device.request().await;
        device.answer(&request, true).await;
        request
    });
    let (url, token) = accepted(&response);
    Setup {
        hub,
        device,
        service,
        request,
        url,
        token,
    }
}

fn unauthorised<T>(result: Result<T, ConnectError>) -> bool {
    matches!(result, Err(ConnectError::Refused { status, .. }) if status == 401)
}

async fn close_frame<S: AsyncRead + AsyncWrite + Unpin>(leg: &mut WebSocket<S>) -> CloseFrame {
    match soon("the end of a leg", poll_fn(|cx| leg.poll_incoming(cx))).await {
        Ok(Incoming::Closed(close_frame)) => close_frame,
        other => panic!("{other:?} instead of a Close"),
    }
}

#[tokio::test]
async fn a_token_works_once_and_only_for_its_leg() {
    let Setup {
        hub,
        device,
        service,
        request,
        url,
        token,
    } = setup().await;
    assert!(
        unauthorised(service.try_leg(&url, &request.token).await),
        "the device's token"
    );
    assert!(
        unauthorised(service.try_leg(&request.url, &token).await),
        "the service's token"
    );
    assert!(unauthorised(
        service.try_leg(&url, &Secret::new("malformed")).await
    ));
    let other = url.replace("/sid/", "/sid/0");
    assert!(
        service.try_leg(&other, &token).await.is_err(),
        "no such stream"
    );

    let _ours = device.leg(&request).await;
    let _theirs = service.leg(&url, &token).await;
    assert!(unauthorised(service.try_leg(&url, &token).await), "used");
    assert!(
        unauthorised(service.try_leg(&request.url, &request.token).await),
        "used"
    );
    // And the stream is not disturbed.
    assert_eq!(hub.state.legs.count(), 1);
}

#[tokio::test]
async fn a_token_of_another_hub_is_refused() {
    let Setup {
        hub: _hub,
        service,
        url,
        ..
    } = setup().await;
    let other = setup().await;
    assert!(unauthorised(service.try_leg(&url, &other.token).await));
}

#[tokio::test]
async fn a_leg_whose_partner_never_comes_is_closed() {
    let Setup {
        hub,
        device,
        request,
        ..
    } = setup().await;
    let mut leg = device.leg(&request).await;
    let in_time = Instant::now() + hub::limits::LEG_ARRIVAL - Duration::from_secs(5);
    hub.state.legs.expire(in_time);
    assert_eq!(hub.state.legs.count(), 1);
    hub.state
        .legs
        .expire(Instant::now() + hub::limits::LEG_ARRIVAL);
    assert_eq!(close_frame(&mut leg).await.code, CloseFrame::ERROR);
    assert_eq!(hub.state.legs.count(), 0);
}

#[tokio::test]
async fn a_stream_without_any_leg_expires() {
    let Setup {
        hub,
        service,
        url,
        token,
        ..
    } = setup().await;
    hub.state
        .legs
        .expire(Instant::now() + hub::limits::LEG_ARRIVAL);
    assert_eq!(hub.state.legs.count(), 0);
    assert!(unauthorised(service.try_leg(&url, &token).await));
}

#[tokio::test]
async fn the_end_of_one_leg_reaches_the_other_and_leaves_nothing() {
    for normal in [true, false] {
        let Setup {
            hub,
            device,
            service,
            request,
            url,
            token,
        } = setup().await;
        let mut ours = device.leg(&request).await;
        let theirs = service.leg(&url, &token).await;
        let code = if normal {
            CloseFrame::NORMAL
        } else {
            CloseFrame::AWAY
        };
        let closing = tokio::spawn(theirs.close(code, "", limits::CLOSE));
        let expected = if normal {
            CloseFrame::NORMAL
        } else {
            CloseFrame::ERROR
        };
        assert_eq!(close_frame(&mut ours).await.code, expected);
        poll_fn(|cx| ours.poll_flush(cx)).await.unwrap();
        drop(ours);
        closing.await.unwrap();
        wait("the stream to be forgotten", || hub.state.legs.count() == 0).await;
    }
}

#[tokio::test]
async fn a_lost_leg_reaches_the_other() {
    let Setup {
        hub: _hub,
        device,
        service,
        request,
        url,
        token,
    } = setup().await;
    let ours = device.leg(&request).await;
    let mut theirs = service.leg(&url, &token).await;
    drop(ours);
    assert_eq!(close_frame(&mut theirs).await.code, CloseFrame::ERROR);
}

#[tokio::test]
async fn urls_name_leg_and_port_and_no_secret() {
    let Setup {
        hub,
        request,
        url,
        token,
        ..
    } = setup().await;
    for (url, leg) in [(&url, Leg::Service), (&request.url, Leg::Device)] {
        assert!(url.starts_with(&format!("wss://localhost:{}/bridges/", hub.https.port())));
        assert!(url.ends_with(&format!("/r/{leg}")) && !url.contains('?'));
    }
    for token in [&token, &request.token] {
        assert!(token.expose().len() <= hub::limits::STREAM_TOKEN_LENGTH);
    }
}

/// Opens connections of one program to its hub at the same time; returns how many did a full TLS
/// handshake. Each has received data afterwards, and with it its session tickets.
async fn full_handshakes(hub: &TestHub, tls: &Arc<ClientConfig>, count: usize) -> usize {
    let mut connecting = JoinSet::new();
    // No connection reads its tickets before the last one has offered those of earlier bursts.
    let connected = Arc::new(Barrier::new(count));
    for _ in 0..count {
        let (tls, port, connected) = (Arc::clone(tls), hub.https.port(), Arc::clone(&connected));
        connecting.spawn(async move {
            let mut stream = Dialer::new(&tls).tls("localhost", port).await.unwrap();
            soon("the other connections", connected.wait()).await;
            let request = b"GET /nothing HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
            stream.write_all(request).await.unwrap();
            let mut answer = Vec::new();
            soon("an answer", stream.read_to_end(&mut answer))
                .await
                .unwrap();
            stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Full)
        });
    }
    let kinds = connecting.join_all().await;
    kinds.into_iter().filter(|full| *full).count()
}

#[tokio::test]
async fn a_burst_goes_on_with_the_tls_sessions_of_the_last() {
    let hub = TestHub::start().await;
    let tls = hub.tls();
    assert_eq!(full_handshakes(&hub, &tls, 32).await, 32);
    assert_eq!(full_handshakes(&hub, &tls, 32).await, 0);
}
