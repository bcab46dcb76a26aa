//! How a stream ends when one side is slow, silent or lost.

use super::*;

/// A socket whose flush takes its time, as tokio's stdout has it.
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
async fn an_end_is_normal_when_the_local_side_has_all_however_slow_it_is() {
    let (_person, pipe) = duplex(1024);
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
    let outcome = pump(local, stream, &Traffic::default(), &stop).await;
    assert!(matches!(outcome.end, End::PeerClosed), "{:?}", outcome.end);
}

#[tokio::test(start_paused = true)]
async fn a_close_that_is_not_answered_is_no_end() {
    let Story {
        mut person,
        mut peer,
        aborted,
        outcome,
        ..
    } = story(1024).await;
    person.write_all(b"an upload").await.unwrap();
    person.shutdown().await.unwrap();
    assert!(matches!(receive(&mut peer).await, Incoming::Data(_)));
    // It is read, and its answer never leaves: the peer is frozen.
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
async fn a_close_is_answered_by_an_orderly_end_or_by_its_refusal() {
    for refused in [false, true] {
        let Story {
            mut person,
            mut peer,
            aborted,
            outcome,
            ..
        } = story(1024).await;
        person.shutdown().await.unwrap();
        assert!(matches!(receive(&mut peer).await, Incoming::Closed(_)));
        if refused {
            peer.answer_close(CloseFrame::ERROR, "the other leg is gone");
            poll_fn(|cx| peer.poll_flush(cx)).await.unwrap();
        }
        drop(peer);
        let mut rest = Vec::new();
        person.read_to_end(&mut rest).await.unwrap();
        drop(person);
        let end = outcome.await.unwrap().end;
        assert_eq!(end.is_normal(), !refused, "{end:?}");
        assert_eq!(aborted.load(Relaxed), refused);
    }
}

/// It reads nothing before it has written all, as an echo does; and the stream is lost.
#[tokio::test]
async fn a_local_side_that_writes_first_gets_what_came_before_the_loss() {
    let (mut person, pipe) = duplex(1024);
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
        pump(local, stream, &Traffic::default(), &stop).await
    });
    let exchange = async {
        person.write_all(&[2; 200_000]).await.unwrap();
        let mut all = Vec::new();
        person.read_to_end(&mut all).await.unwrap();
        assert_eq!(all.len(), 8 * limits::STREAM_MESSAGE);
    };
    let patience = Duration::from_secs(10);
    tokio::time::timeout(patience, exchange).await.unwrap();
    let end = outcome.await.unwrap().end;
    assert!(matches!(end, End::StreamLost(_)), "{end:?}");
    assert!(aborted.load(Relaxed));
}
