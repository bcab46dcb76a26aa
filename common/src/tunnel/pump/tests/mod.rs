use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use device_stream_session::ConnectionSocket;
use tokio::io::{DuplexStream, duplex};
use tokio::task::JoinHandle;

use super::*;

mod ends;
mod floods;

/// A local socket in memory that records whether it was aborted.
struct Local {
    pipe: DuplexStream,
    disarmed: AtomicBool,
    aborted: Arc<AtomicBool>,
}

impl LocalSocket for Local {}

impl ConnectionSocket for Local {
    fn disarm(&self) {
        self.disarmed.store(true, Relaxed);
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.aborted.store(!self.disarmed.load(Relaxed), Relaxed);
    }
}

impl AsyncRead for Local {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Local {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

struct Setup {
    /// The far end of the local socket.
    client: DuplexStream,
    /// The far end of the stream.
    peer: WebSocket<DuplexStream>,
    aborted: Arc<AtomicBool>,
    stop: CancellationToken,
    outcome: JoinHandle<Outcome>,
}

/// A pump with pipes of `size` bytes on both sides.
async fn setup(size: usize) -> Setup {
    let (client, pipe) = duplex(size);
    let (near, far) = duplex(size);
    let aborted = Arc::new(AtomicBool::new(false));
    let local = Local {
        pipe,
        disarmed: AtomicBool::new(false),
        aborted: Arc::clone(&aborted),
    };
    let stop = CancellationToken::new();
    let stopper = stop.clone();
    let stream = WebSocket::client(near, &[]);
    let outcome =
        tokio::spawn(
            async move { pump(local, stream, &Traffic::default(), stopped(&stopper)).await },
        );
    Setup {
        client,
        peer: WebSocket::server(far, &[]),
        aborted,
        stop,
        outcome,
    }
}

async fn send(peer: &mut WebSocket<DuplexStream>, bytes: &[u8]) {
    poll_fn(|cx| peer.poll_ready(cx)).await.unwrap();
    peer.start_send(Data::binary(Bytes::copy_from_slice(bytes)))
        .unwrap();
    poll_fn(|cx| peer.poll_flush(cx)).await.unwrap();
}

async fn receive(peer: &mut WebSocket<DuplexStream>) -> Incoming {
    poll_fn(|cx| peer.poll_incoming(cx)).await.unwrap()
}

#[tokio::test]
async fn bytes_are_copied_through_pipes_of_seven_bytes() {
    let Setup {
        mut client,
        mut peer,
        outcome,
        ..
    } = setup(7).await;
    let data: Vec<u8> = (0..100_000u32).map(|n| (n % 251) as u8).collect();
    let expected = data.clone();
    let echo = tokio::spawn(async move {
        loop {
            match receive(&mut peer).await {
                Incoming::Data(data) => {
                    assert!(data.len() <= limits::STREAM_MESSAGE);
                    send(&mut peer, &data.into_bytes()).await;
                }
                Incoming::Closed(close_frame) => return close_frame,
            }
        }
    });
    let (mut reader, mut writer) = tokio::io::split(&mut client);
    let write = async {
        writer.write_all(&data).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let mut received = Vec::new();
    let read = async { reader.read_to_end(&mut received).await.unwrap() };
    tokio::join!(write, read);
    assert_eq!(received, expected);
    assert!(echo.await.unwrap().is_normal());
    let outcome = outcome.await.unwrap();
    assert!(outcome.end.is_normal(), "{:?}", outcome.end);
    assert_eq!((outcome.sent, outcome.received), (100_000, 100_000));
}

#[tokio::test(start_paused = true)]
async fn an_answer_after_the_end_of_local_input_arrives() {
    let Setup {
        mut client,
        mut peer,
        ..
    } = setup(1024).await;
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    assert!(matches!(receive(&mut peer).await, Incoming::Data(_)));
    // Longer than the linger time in total, but never silent for that long.
    for _ in 0..3 {
        tokio::time::advance(limits::HALF_CLOSE_LINGER - Duration::from_millis(10)).await;
        send(&mut peer, b"answer").await;
        let mut buffer = [0u8; 6];
        client.read_exact(&mut buffer).await.unwrap();
    }
    match receive(&mut peer).await {
        Incoming::Closed(close_frame) => assert!(close_frame.is_normal()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_normal_close_ends_the_local_socket_in_order() {
    let Setup {
        mut client,
        mut peer,
        aborted,
        outcome,
        ..
    } = setup(1024).await;
    send(&mut peer, b"last words").await;
    tokio::spawn(peer.close(CloseFrame::NORMAL, "", limits::CLOSE));
    let mut received = String::new();
    client.read_to_string(&mut received).await.unwrap();
    assert_eq!(received, "last words");
    drop(client);
    assert!(matches!(outcome.await.unwrap().end, End::PeerClosed));
    assert!(!aborted.load(Relaxed));
}

#[tokio::test]
async fn other_closes_and_losses_reset_the_local_socket() {
    let Setup {
        client,
        peer,
        aborted,
        outcome,
        ..
    } = setup(1024).await;
    peer.close(CloseFrame::ERROR, "WS disconnected", limits::CLOSE)
        .await;
    assert!(matches!(outcome.await.unwrap().end, End::PeerAborted(g) if g.code == 1011));
    assert!(aborted.load(Relaxed));
    drop(client);

    let Setup {
        client,
        peer,
        aborted,
        outcome,
        ..
    } = setup(1024).await;
    drop(peer);
    assert!(matches!(outcome.await.unwrap().end, End::StreamLost(_)));
    assert!(aborted.load(Relaxed));
    drop(client);
}

#[tokio::test]
async fn a_stopped_reader_stops_the_writer() {
    let Setup {
        mut client,
        mut peer,
        ..
    } = setup(1024).await;
    let writer = tokio::spawn(async move {
        let piece = vec![1u8; limits::STREAM_MESSAGE];
        for _ in 0..64 {
            send(&mut peer, &piece).await;
        }
        peer
    });
    // Without a reader, the writer can only fill the buffers in between.
    tokio::time::timeout(Duration::from_millis(200), async {
        while !writer.is_finished() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap_err();
    let mut received = vec![0u8; 64 * limits::STREAM_MESSAGE];
    client.read_exact(&mut received).await.unwrap();
    writer.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_answer_pings_is_lost() {
    let Setup {
        client,
        peer,
        aborted,
        outcome,
        ..
    } = setup(1024).await;
    // The peer is never polled: it answers no ping.
    let outcome = outcome.await.unwrap();
    assert!(
        matches!(outcome.end, End::StreamLost(WebSocketError::Dead)),
        "{:?}",
        outcome.end
    );
    assert!(
        outcome.duration
            <= device_stream_websocket::limits::PING + device_stream_websocket::limits::PONG
    );
    assert!(aborted.load(Relaxed));
    drop((client, peer));
}

#[tokio::test]
async fn a_stop_closes_both_sides() {
    let Setup {
        client,
        mut peer,
        aborted,
        stop,
        outcome,
    } = setup(1024).await;
    stop.cancel();
    match receive(&mut peer).await {
        Incoming::Closed(close_frame) => assert_eq!(close_frame.code, CloseFrame::AWAY),
        other => panic!("{other:?}"),
    }
    poll_fn(|cx| peer.poll_flush(cx)).await.unwrap();
    assert!(matches!(outcome.await.unwrap().end, End::Stopped));
    assert!(aborted.load(Relaxed));
    drop(client);
}

#[tokio::test]
async fn bytes_from_before_the_close_are_delivered() {
    let total = 64 * limits::STREAM_MESSAGE;
    let (mut client, pipe) = duplex(1024);
    let (near, far) = duplex(2 * total);
    let aborted = Arc::new(AtomicBool::new(false));
    let mut peer = WebSocket::server(far, &[]);
    for _ in 0..64 {
        send(&mut peer, &[1; limits::STREAM_MESSAGE]).await;
    }
    peer.start_close(CloseFrame::NORMAL, "").unwrap();
    poll_fn(|cx| peer.poll_flush(cx)).await.unwrap();
    drop(peer);
    // Local input for a peer that is gone.
    client.write_all(b"hi").await.unwrap();
    let local = Local {
        pipe,
        disarmed: AtomicBool::new(false),
        aborted: Arc::clone(&aborted),
    };
    let stream = WebSocket::client(near, &[]);
    let outcome = tokio::spawn(async move {
        pump(
            local,
            stream,
            &Traffic::default(),
            stopped(&CancellationToken::new()),
        )
        .await
    });
    let mut all = Vec::new();
    client.read_to_end(&mut all).await.unwrap();
    assert_eq!(all.len(), total);
    drop(client);
    let outcome = outcome.await.unwrap();
    assert!(matches!(outcome.end, End::PeerClosed), "{:?}", outcome.end);
    assert!(!aborted.load(Relaxed));
}
