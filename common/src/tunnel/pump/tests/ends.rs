//! How a stream ends when one side is slow, silent or lost.

use super::*;

/// A socket with a slow flush, as tokio's stdout.
struct SlowFlush {
    local: Local,
    timer: Pin<Box<Sleep>>,
    unflushed: bool,
}

impl LocalSocket for SlowFlush {}

impl ConnectionSocket for SlowFlush {
    fn disarm(&self) {
        assert!(!self.unflushed, "a normal end before all was flushed");
        self.local.disarm();
    }
}

impl AsyncRead for SlowFlush {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.local).poll_read(cx, buffer)
    }
}

impl AsyncWrite for SlowFlush {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.unflushed = true;
        Pin::new(&mut self.local).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.timer.as_mut().poll(cx));
        self.unflushed = false;
        Pin::new(&mut self.local).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.local).poll_shutdown(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_is_normal_only_after_the_local_flush() {
    let (_client, pipe) = duplex(1024);
    let (near, far) = duplex(1024);
    let local = SlowFlush {
        local: Local {
            pipe,
            disarmed: AtomicBool::new(false),
            aborted: Arc::default(),
        },
        timer: Box::pin(sleep(10 * limits::CLOSE)),
        unflushed: false,
    };
    let mut peer = WebSocket::server(far, &[]);
    send(&mut peer, b"last words").await;
    peer.start_close(CloseFrame::NORMAL, "").unwrap();
    poll_fn(|cx| peer.poll_flush(cx)).await.unwrap();
    let stream = WebSocket::client(near, &[]);
    let stop = CancellationToken::new();
    let outcome = pump(local, stream, &Traffic::default(), stopped(&stop)).await;
    assert!(matches!(outcome.end, End::PeerClosed), "{:?}", outcome.end);
}

#[tokio::test(start_paused = true)]
async fn without_an_answer_to_the_close_the_stream_is_lost() {
    let Setup {
        mut client,
        mut peer,
        aborted,
        outcome,
        ..
    } = setup(1024).await;
    client.write_all(b"an upload").await.unwrap();
    client.shutdown().await.unwrap();
    assert!(matches!(receive(&mut peer).await, Incoming::Data(_)));
    // The peer reads it, but its answer is never flushed.
    assert!(matches!(receive(&mut peer).await, Incoming::Closed(_)));
    let outcome = outcome.await.unwrap();
    assert!(
        matches!(outcome.end, End::StreamLost(WebSocketError::Dead)),
        "{:?}",
        outcome.end
    );
    let bound = limits::HALF_CLOSE_LINGER + limits::LEG_DELIVER + Duration::from_secs(1);
    assert!(outcome.duration <= bound, "{:?}", outcome.duration);
    assert!(aborted.load(Relaxed));
    drop(peer);
}

#[tokio::test(start_paused = true)]
async fn after_the_close_an_orderly_end_is_normal_and_a_refusal_is_not() {
    for refused in [false, true] {
        let Setup {
            mut client,
            mut peer,
            aborted,
            outcome,
            ..
        } = setup(1024).await;
        client.shutdown().await.unwrap();
        assert!(matches!(receive(&mut peer).await, Incoming::Closed(_)));
        if refused {
            peer.answer_close(CloseFrame::ERROR, "the other leg is gone");
            poll_fn(|cx| peer.poll_flush(cx)).await.unwrap();
        }
        drop(peer);
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
        drop(client);
        let end = outcome.await.unwrap().end;
        assert_eq!(end.is_normal(), !refused, "{end:?}");
        assert_eq!(aborted.load(Relaxed), refused);
    }
}

/// The local side reads only after it has written everything, and the stream is lost meanwhile.
#[tokio::test]
async fn a_local_side_that_writes_first_gets_what_was_received_before_the_loss() {
    let (mut client, pipe) = duplex(1024);
    let (near, far) = duplex(1 << 20);
    let aborted = Arc::new(AtomicBool::new(false));
    let mut peer = WebSocket::server(far, &[]);
    for _ in 0..8 {
        send(&mut peer, &[1; limits::STREAM_MESSAGE]).await;
    }
    drop(peer);
    let local = Local {
        pipe,
        disarmed: AtomicBool::new(false),
        aborted: Arc::clone(&aborted),
    };
    let stream = WebSocket::client(near, &[]);
    let outcome = tokio::spawn(async move {
        let stop = CancellationToken::new();
        pump(local, stream, &Traffic::default(), stopped(&stop)).await
    });
    let exchange = async {
        client.write_all(&[2; 200_000]).await.unwrap();
        let mut all = Vec::new();
        client.read_to_end(&mut all).await.unwrap();
        assert_eq!(all.len(), 8 * limits::STREAM_MESSAGE);
    };
    let patience = Duration::from_secs(10);
    tokio::time::timeout(patience, exchange).await.unwrap();
    let end = outcome.await.unwrap().end;
    assert!(matches!(end, End::StreamLost(_)), "{end:?}");
    assert!(aborted.load(Relaxed));
}
