//! How long a small message and its echo take on the shaped link, alone and beside a bulk transfer.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Job, Link, begin, connect, percentile, send_pattern, serve};
use crate::engine::{Engine, Opener};

/// Length of one message, in bytes.
const MESSAGE: usize = 64;
/// The bulk transfer has filled every queue and grown every window by then.
const WARM_UP: Duration = Duration::from_secs(3);

#[derive(Clone, Copy, Debug, Serialize)]
pub struct Keystroke {
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    /// What the bulk transfer got meanwhile, at its receiver; 0 without one. The link carries 11.9.
    pub bulk_mib_per_second: f64,
}

/// Sends `echoes` messages, one each 50 ms or so whether or not the last one came back, and times their echoes from
/// when each was due. The link takes `backlog` bytes that have not left yet.
///
/// # Errors
/// When a stream fails.
pub async fn measure<E: Engine>(
    engine: E,
    bulk: bool,
    backlog: u64,
    echoes: u32,
) -> io::Result<Keystroke> {
    let (mut opener, acceptor) = connect(engine, Link::Shaped(backlog)).await?;
    let received = serve(acceptor);
    let mut small = opener.open().await?;
    begin(&mut small, Job::Echo, 0).await?;
    if bulk {
        let mut stream = opener.open().await?;
        tokio::spawn(async move {
            let progress = AtomicU64::new(0);
            begin(&mut stream, Job::Sink, 1).await?;
            send_pattern(&mut stream, 1, u64::MAX, &progress).await
        });
        sleep(WARM_UP).await;
    }
    let (before, start) = (received.load(Ordering::Relaxed), Instant::now());
    let mut delays = send_and_time(small, echoes).await?;
    let bytes = received.load(Ordering::Relaxed) - before;
    Ok(Keystroke {
        p50_ms: percentile(&mut delays, 50),
        p99_ms: percentile(&mut delays, 99),
        max_ms: percentile(&mut delays, 100),
        bulk_mib_per_second: bytes as f64 / 1024.0 / 1024.0 / start.elapsed().as_secs_f64(),
    })
}

async fn send_and_time(small: impl crate::engine::MuxStream, echoes: u32) -> io::Result<Vec<f64>> {
    let (mut reader, mut writer) = tokio::io::split(small);
    let (sent, mut due_times) = mpsc::unbounded_channel();
    let sender = tokio::spawn(async move {
        let mut due = Instant::now();
        for number in 0..echoes {
            // Not in step with anything that has a period of its own.
            due += Duration::from_millis(45 + u64::from(number) * 7 % 11);
            sleep_until(due).await;
            // The receiver is gone only when the reading below has failed.
            let _ = sent.send(due);
            let mut message = [0; MESSAGE];
            if let Some(start) = message.first_chunk_mut() {
                *start = number.to_be_bytes();
            }
            writer.write_all(&message).await?;
            writer.flush().await?;
        }
        // Kept until the end: a dropped half is not a closed one, but it need not be tested here.
        io::Result::Ok(writer)
    });
    let mut waiting = VecDeque::new();
    let mut delays = Vec::new();
    for number in 0..echoes {
        let mut echo = [0; MESSAGE];
        reader.read_exact(&mut echo).await?;
        if echo.first_chunk() != Some(&number.to_be_bytes()) {
            return Err(io::Error::other("an echo out of order"));
        }
        let now = Instant::now();
        while let Ok(due) = due_times.try_recv() {
            waiting.push_back(due);
        }
        if let Some(due) = waiting.pop_front() {
            delays.push(now.duration_since(due).as_secs_f64() * 1000.0);
        }
    }
    drop(sender.await??);
    Ok(delays)
}
