//! Bytes a second over loopback TCP, and what they cost.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Job, Link, begin, connect, send_pattern, serve};
use crate::engine::{Engine, Opener};

const MIB: f64 = 1024.0 * 1024.0;

#[derive(Clone, Copy, Debug, Serialize)]
pub struct Throughput {
    pub mib_per_second: f64,
    /// Of both ends, user and system, with making and checking the bytes.
    pub cpu_seconds_per_gib: f64,
}

/// Sends `bytes` from the client to the server, shared evenly among `streams`, each in its own task.
///
/// # Errors
/// When a stream fails or a byte is wrong.
pub async fn measure<E: Engine>(engine: E, streams: u8, bytes: u64) -> io::Result<Throughput> {
    let (mut opener, acceptor) = connect(engine, Link::Loopback).await?;
    serve(acceptor);
    let share = bytes / u64::from(streams);
    let progress = Arc::new(AtomicU64::new(0));
    let mut senders = Vec::new();
    let (start, cpu) = (Instant::now(), cpu_seconds());
    for seed in 0..streams {
        let mut stream = opener.open().await?;
        let progress = Arc::clone(&progress);
        senders.push(tokio::spawn(async move {
            begin(&mut stream, Job::Sink, seed).await?;
            send_pattern(&mut stream, seed, share, &progress).await?;
            stream.shutdown().await?;
            stream.read_u64().await
        }));
    }
    for sender in senders {
        if sender.await?? != share {
            return Err(io::Error::other("not all bytes arrived"));
        }
    }
    let mib = bytes as f64 / MIB;
    Ok(Throughput {
        mib_per_second: mib / start.elapsed().as_secs_f64(),
        cpu_seconds_per_gib: (cpu_seconds() - cpu) / (mib / 1024.0),
    })
}

/// Processor time of this process so far, user and system.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
