//! How plain streams end with peers that use another WebSocket library, and with slow readers: what
//! has arrived is delivered, and no loss looks like an orderly end.

use std::io::ErrorKind;
use std::time::Duration;

use common::net::{Dialer, TlsHostStream};
use common::secret::Secret;
use common::wire::stream::StreamRequest;
use futures_util::{SinkExt as _, StreamExt as _};
use tests::raw_service::accepted;
use tests::{RawDevice, RawService, TestDevice, TestHub, TestService, soon};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::CloseFrame as RawClose;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

type Leg = WebSocketStream<TlsHostStream>;

/// More than the socket buffers in between hold: most of it waits when the peer ends.
const BYTES: usize = 3_000_000;

/// How a peer ends after it has sent everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// As the official Node samples do.
    CloseWithoutCode,
    /// As a program that is stopped does.
    CloseAway,
    /// As the official C# samples do.
    TlsEnd,
    /// As the official C samples do.
    TcpEnd,
}

impl Ending {
    const ALL: [Self; 4] = [
        Self::CloseWithoutCode,
        Self::CloseAway,
        Self::TlsEnd,
        Self::TcpEnd,
    ];

    fn is_normal(self) -> bool {
        self == Self::CloseWithoutCode
    }

    /// Sends everything and ends.
    async fn play(self, mut leg: Leg) {
        for piece in pattern().chunks(20_000) {
            let message = Message::binary(piece.to_vec());
            leg.send(message).await.unwrap();
        }
        match self {
            Self::CloseWithoutCode => leg.close(None).await.unwrap(),
            Self::CloseAway => {
                let away = RawClose {
                    code: CloseCode::Away,
                    reason: "".into(),
                };
                leg.close(Some(away)).await.unwrap();
            }
            Self::TlsEnd => leg.get_mut().shutdown().await.unwrap(),
            Self::TcpEnd => leg.get_mut().get_mut().shutdown().await.unwrap(),
        }
        // Reads, because a socket that is closed with unread bytes sends RST.
        while let Some(Ok(_)) = leg.next().await {}
    }
}

fn pattern() -> Vec<u8> {
    (0..BYTES).map(|place| (place % 249) as u8).collect()
}

/// A leg with a WebSocket library other than ours.
async fn foreign_leg(hub: &TestHub, url: &str, token: &Secret) -> Leg {
    let stream = Dialer::new(&hub.tls())
        .tls("localhost", hub.https.port())
        .await
        .unwrap();
    let mut request = url.into_client_request().unwrap();
    let bearer = format!("Bearer {}", token.expose()).parse().unwrap();
    request.headers_mut().insert("Authorization", bearer);
    let (leg, _) = tokio_tungstenite::client_async(request, stream)
        .await
        .unwrap();
    leg
}

/// Reads little at a time, with a small receive buffer.
async fn read_slowly(mut socket: TcpStream) -> (Vec<u8>, Result<(), ErrorKind>) {
    let mut all = Vec::new();
    let mut piece = vec![0; 32 << 10];
    loop {
        match socket.read(&mut piece).await {
            Ok(0) => return (all, Ok(())),
            Ok(count) => all.extend_from_slice(&piece[..count]),
            Err(error) => return (all, Err(error.kind())),
        }
        // The rate of a slow reader, not a wait for a condition.
        tokio::time::sleep(Duration::from_millis(8)).await;
    }
}

fn small_socket() -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    socket
}

fn check(ending: Ending, all: &[u8], end: Result<(), ErrorKind>) {
    assert_eq!(all.len(), BYTES, "{ending:?}");
    assert!(all == pattern(), "{ending:?}");
    let expected = if ending.is_normal() {
        Ok(())
    } else {
        Err(ErrorKind::ConnectionReset)
    };
    assert_eq!(end, expected, "{ending:?}");
}

#[tokio::test]
async fn a_slow_target_gets_all_that_a_foreign_service_sent() {
    let hub = TestHub::start().await;
    let connection = hub.create("d").await;
    let listening = small_socket();
    listening.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = listening.listen(8).unwrap();
    let target = listener.local_addr().unwrap().to_string();
    let _device = TestDevice::start(&hub, &connection, &["--target", &target]).await;
    let service = RawService::new(&hub).await;
    for ending in Ending::ALL {
        let (url, token) = accepted(&service.initiate("d", "s", 5.0, 5.0).await);
        let leg = foreign_leg(&hub, &url, &token).await;
        let (socket, _) = listener.accept().await.unwrap();
        let playing = tokio::spawn(ending.play(leg));
        let (all, end) = soon("all bytes and the end", read_slowly(socket)).await;
        check(ending, &all, end);
        soon("the service's end", playing).await.unwrap();
    }
}

#[tokio::test]
async fn a_slow_local_reader_gets_all_that_a_foreign_device_sent() {
    let hub = TestHub::start().await;
    let connection = hub.create("d").await;
    let mut device = RawDevice::connect(&hub, &connection).await;
    let service = TestService::listen(&hub, &["--session", "never", "d", "0"]).await;
    for ending in Ending::ALL {
        let reader = small_socket().connect(service.addresses[0]).await.unwrap();
        let request = accept(&mut device).await;
        let leg = foreign_leg(&hub, &request.url, &request.token).await;
        let playing = tokio::spawn(ending.play(leg));
        let (all, end) = soon("all bytes and the end", read_slowly(reader)).await;
        check(ending, &all, end);
        soon("the device's end", playing).await.unwrap();
    }
}

async fn accept(device: &mut RawDevice) -> StreamRequest {
    let request = device.request().await;
    device.answer(&request, true).await;
    request
}

/// The local side has sent everything and waits for the end of its connection.
async fn end_of(mut socket: TcpStream) -> Result<(), ErrorKind> {
    socket.write_all(b"all of it").await.unwrap();
    socket.shutdown().await.unwrap();
    let mut rest = Vec::new();
    let read = socket.read_to_end(&mut rest).await;
    read.map(|_| ()).map_err(|error| error.kind())
}

#[tokio::test]
async fn an_upload_is_complete_only_when_its_close_is_answered() {
    let hub = TestHub::start().await;
    let connection = hub.create("d").await;
    let mut device = RawDevice::connect(&hub, &connection).await;
    let service = TestService::listen(&hub, &["--session", "never", "d", "0"]).await;

    // An official device: it reads everything, sends nothing, and ends TLS in an orderly way.
    let local = tokio::spawn(end_of(service.connect().await));
    let request = accept(&mut device).await;
    let mut leg = foreign_leg(&hub, &request.url, &request.token).await;
    let message = soon("the upload", leg.next()).await.unwrap().unwrap();
    assert_eq!(&message.into_data()[..], b"all of it");
    let (mut stream, mut scrap) = (leg.into_inner(), [0; 64]);
    assert!(soon("a Close", stream.read(&mut scrap)).await.unwrap() > 0);
    stream.shutdown().await.unwrap();
    drop(stream);
    assert_eq!(soon("the local end", local).await.unwrap(), Ok(()));

    // A device that is lost before it has read anything.
    let local = tokio::spawn(end_of(service.connect().await));
    let request = accept(&mut device).await;
    let leg = foreign_leg(&hub, &request.url, &request.token).await;
    leg.get_ref()
        .get_ref()
        .0
        .socket()
        .set_zero_linger()
        .unwrap();
    drop(leg);
    let end = soon("the local end", local).await.unwrap();
    assert_eq!(end, Err(ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn a_stream_whose_device_never_comes_is_no_upload() {
    let hub = TestHub::start().await;
    let connection = hub.create("d").await;
    let mut device = RawDevice::connect(&hub, &connection).await;
    let service = TestService::listen(&hub, &["--session", "never", "d", "0"]).await;
    // Nothing is sent, so that the Close is the first message that the hub receives.
    let mut socket = service.connect().await;
    let _request = accept(&mut device).await;
    socket.shutdown().await.unwrap();
    let ended = soon("the local end", socket.read(&mut [0; 8])).await;
    assert_eq!(
        ended.map_err(|error| error.kind()),
        Err(ErrorKind::ConnectionReset)
    );
}

/// A target that reads only when it can write, and a service that does not read and disconnects.
#[tokio::test]
async fn a_vanished_service_frees_a_target_that_waits_to_be_read() {
    let hub = TestHub::start().await;
    let connection = hub.create("d").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap().to_string();
    let _device = TestDevice::start(&hub, &connection, &["--target", &target]).await;
    let service = RawService::new(&hub).await;
    let (url, token) = accepted(&service.initiate("d", "s", 5.0, 5.0).await);
    let mut leg = foreign_leg(&hub, &url, &token).await;
    let (mut socket, _) = listener.accept().await.unwrap();
    let echo = tokio::spawn(async move {
        let (mut reader, mut writer) = socket.split();
        tokio::io::copy(&mut reader, &mut writer).await
    });
    // Until no more bytes move in either direction.
    let piece = Message::binary(vec![7; 60_000]);
    while tokio::time::timeout(Duration::from_millis(500), leg.send(piece.clone()))
        .await
        .is_ok()
    {}
    assert!(!echo.is_finished());
    leg.get_ref()
        .get_ref()
        .0
        .socket()
        .set_zero_linger()
        .unwrap();

    drop(leg);
    let ended = soon("the target's end", echo).await.unwrap();
    assert!(ended.is_err(), "a vanished peer is no orderly end");
    soon("the hub to forget the stream", async {
        while hub.state.legs.count() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}
