//! Whether a stream whose receiver does not read stops the others.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

use super::{Job, Link, begin, connect, percentile, send_pattern, serve};
use crate::carrier::{LINK_QUEUE, SOCKET_BUFFER};
use crate::engine::{Engine, MuxStream, Opener};

/// A request without an answer for this long gets none.
const PATIENCE: Duration = Duration::from_secs(5);
/// An answer later than this, ten round trips, does not count as going on: an engine may be left with a few bytes of
/// window, which let a message trickle through.
const PROMPT_MS: f64 = 500.0;
/// How long the other bulk transfer is measured.
const BULK_TIME: Duration = Duration::from_secs(2);
/// No engine should take more than this of a stream that nobody reads, in bytes.
const MOST: u64 = 1024 * 1024 * 1024;

#[derive(Clone, Copy, Debug, Serialize)]
pub struct Stall {
    /// A stream that was open before goes on: 99 % of its requests are answered promptly.
    pub goes_on: bool,
    /// So does one that is opened only then.
    pub new_stream: bool,
    /// Of the stream that was open before; nothing when a request got no answer at all.
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    /// What a bulk transfer on another stream gets. The link carries 11.9.
    pub other_mib_per_second: f64,
    /// What the engine took of the unread stream before its writer had to wait.
    pub taken_kib: u64,
}

/// Fills a stream that nobody reads until its writer waits, then makes `requests` of 64 bytes on another, one after
/// the other, then one on a new stream, then a bulk transfer on yet another, on the shaped link.
///
/// # Errors
/// When a stream fails; a stalled one is a result.
pub async fn measure<E: Engine>(engine: E, requests: u32) -> io::Result<Stall> {
    let (mut opener, acceptor) = connect(engine, Link::Shaped(SOCKET_BUFFER + LINK_QUEUE)).await?;
    let received = serve(acceptor);
    let mut other = opener.open().await?;
    begin(&mut other, Job::Echo, 0).await?;
    let mut unread = opener.open().await?;
    begin(&mut unread, Job::Hold, 1).await?;
    unread.read_u8().await?;

    let progress = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&progress);
    tokio::spawn(async move { send_pattern(&mut unread, 1, MOST, &counter).await });
    let taken = until_still(&progress).await;

    let mut delays = Vec::new();
    for _ in 0..requests {
        let start = Instant::now();
        match timeout(PATIENCE, request(&mut other)).await {
            Ok(answered) => answered?,
            Err(_) => break,
        }
        delays.push(start.elapsed().as_secs_f64() * 1000.0);
    }
    let answered = delays.len() == requests as usize;
    let p99_ms = answered.then(|| percentile(&mut delays, 99));
    let start = Instant::now();
    let new_stream = timeout(PATIENCE, async {
        let mut new = opener.open().await?;
        begin(&mut new, Job::Echo, 0).await?;
        request(&mut new).await
    });
    let new_stream = matches!(new_stream.await, Ok(Ok(())))
        && start.elapsed().as_secs_f64() * 1000.0 < PROMPT_MS;
    let bulk = tokio::spawn(async move {
        let mut stream = opener.open().await?;
        begin(&mut stream, Job::Sink, 2).await?;
        send_pattern(&mut stream, 2, MOST, &AtomicU64::new(0)).await
    });
    // Windows grow at first.
    sleep(BULK_TIME / 2).await;
    let before = received.load(Ordering::Relaxed);
    sleep(BULK_TIME).await;
    let bytes = received.load(Ordering::Relaxed) - before;
    bulk.abort();
    Ok(Stall {
        goes_on: p99_ms.is_some_and(|p99| p99 < PROMPT_MS),
        new_stream,
        p50_ms: answered.then(|| percentile(&mut delays, 50)),
        p99_ms,
        other_mib_per_second: bytes as f64 / 1024.0 / 1024.0 / BULK_TIME.as_secs_f64(),
        taken_kib: taken / 1024,
    })
}

/// One message of 64 bytes and its echo.
pub async fn request(stream: &mut impl MuxStream) -> io::Result<()> {
    stream.write_all(&[1; 64]).await?;
    stream.flush().await?;
    let mut answer = [0; 64];
    stream.read_exact(&mut answer).await?;
    Ok(())
}

/// Waits until a transfer has stopped; how far it came.
async fn until_still(progress: &AtomicU64) -> u64 {
    loop {
        let before = progress.load(Ordering::Relaxed);
        sleep(Duration::from_millis(500)).await;
        if progress.load(Ordering::Relaxed) == before {
            return before;
        }
    }
}
