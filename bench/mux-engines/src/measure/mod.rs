//! What is measured, each in a file of its own, and the server that all of them talk to.

pub mod close;
pub mod keystroke;
pub mod memory;
pub mod small;
pub mod stall;
pub mod throughput;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::carrier;
use crate::engine::{Acceptor, Engine, MuxStream};
use crate::pattern::{PIECE, Pattern};

/// Nothing measured here takes longer.
const DEADLINE: Duration = Duration::from_secs(120);

/// A stream's first byte: what the server does with it. The second is the seed of its pattern.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Job {
    /// Check all, and answer with how much there was.
    Sink,
    /// Send back what comes.
    Echo,
    /// Acknowledge with one byte, and read no more.
    Hold,
}

/// What an engine is run on.
#[derive(Clone, Copy)]
pub enum Link {
    Loopback,
    /// With so many bytes that may wait to leave.
    Shaped(u64),
}

/// Both ends of an engine, connected.
async fn connect<E: Engine>(engine: E, link: Link) -> io::Result<(E::Opener, E::Acceptor)> {
    match link {
        Link::Loopback => {
            let (client, server) = carrier::loopback().await?;
            tokio::try_join!(engine.client(client), engine.server(server))
        }
        Link::Shaped(backlog) => {
            let (client, server) = carrier::shaped(backlog);
            tokio::try_join!(engine.client(client), engine.server(server))
        }
    }
}

/// Runs one measurement on a runtime of its own, which ends all that it started.
///
/// # Errors
/// The measurement's, or that it took too long.
pub fn run<T>(measurement: impl Future<Output = io::Result<T>> + Send + 'static) -> io::Result<T>
where
    T: Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    // On a worker: what runs on the caller's thread pays for every hand-over.
    let result = runtime.block_on(async {
        match tokio::time::timeout(DEADLINE, tokio::spawn(measurement)).await {
            Ok(joined) => joined.map_err(io::Error::other)?,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    });
    runtime.shutdown_background();
    result
}

/// Serves every stream of `acceptor`; the bytes that sinks received are added to the counter returned.
fn serve<A: Acceptor>(mut acceptor: A) -> Arc<AtomicU64> {
    let received = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&received);
    tokio::spawn(async move {
        while let Ok(Some(stream)) = acceptor.accept().await {
            let counter = Arc::clone(&counter);
            tokio::spawn(async move {
                if let Err(failure) = serve_stream(stream, &counter).await {
                    eprintln!("a stream at the server failed: {failure}");
                }
            });
        }
        // The acceptor may be what keeps the engine going.
        std::future::pending::<()>().await;
    });
    received
}

async fn serve_stream(mut stream: impl MuxStream, received: &AtomicU64) -> io::Result<()> {
    let job = stream.read_u8().await?;
    let seed = stream.read_u8().await?;
    let mut buffer = vec![0; PIECE];
    if job == Job::Hold as u8 {
        stream.write_u8(job).await?;
        stream.flush().await?;
        std::future::pending::<()>().await;
    }
    let mut pattern = Pattern::new(seed);
    let mut sum = 0;
    loop {
        let length = stream.read(&mut buffer).await?;
        let data = buffer.get(..length).unwrap_or_default();
        if data.is_empty() {
            break;
        }
        if job == Job::Echo as u8 {
            stream.write_all(data).await?;
            stream.flush().await?;
            continue;
        }
        pattern.check(data)?;
        sum += length as u64;
        received.fetch_add(length as u64, Ordering::Relaxed);
    }
    if job == Job::Sink as u8 {
        stream.write_u64(sum).await?;
    }
    stream.shutdown().await
}

/// Tells the server what to do with `stream`.
async fn begin(stream: &mut impl MuxStream, job: Job, seed: u8) -> io::Result<()> {
    stream.write_all(&[job as u8, seed]).await?;
    stream.flush().await
}

/// Writes `bytes` of the pattern, or for ever.
async fn send_pattern(
    stream: &mut (impl tokio::io::AsyncWrite + Unpin),
    seed: u8,
    bytes: u64,
    progress: &AtomicU64,
) -> io::Result<()> {
    let mut pattern = Pattern::new(seed);
    let mut left = bytes;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX);
        let written = stream.write(pattern.next(most)).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        pattern.advance(written);
        left -= written as u64;
        progress.fetch_add(written as u64, Ordering::Relaxed);
    }
    stream.flush().await
}

/// The value that a share of all values is not above. `share` is a percentage; `values` need not be sorted.
fn percentile(values: &mut [f64], share: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    let place = (values.len() * share).div_ceil(100).saturating_sub(1);
    values.get(place).copied().unwrap_or(f64::NAN)
}
