//! What an open, idle stream costs in memory.

use std::io;
use std::process::Command;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Link, connect};
use crate::engine::{Acceptor, Engine, Opener};

/// The option under which this program measures itself: followed by the engine's name and the number of streams.
pub const CHILD: &str = "--measure-memory-of";

/// Bytes a stream, both ends together, measured in a fresh process: an allocator does not give everything back.
///
/// # Errors
/// When the process cannot be run or fails.
pub fn measure(name: &str, streams: usize) -> io::Result<f64> {
    let output = Command::new(std::env::current_exe()?)
        .args([CHILD, name, "--streams", &streams.to_string()])
        .stderr(std::process::Stdio::inherit())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().map_err(io::Error::other)
}

/// In that process: how much the resident memory grows for each of `streams` streams that were opened, have carried
/// one byte each way, and are idle. There are no tasks or buffers of the application's: only the engine's.
///
/// # Errors
/// When a stream fails or the system does not tell.
pub fn in_this_process<E: Engine>(engine: E, streams: usize) -> io::Result<f64> {
    let engine = engine.for_streams(streams + 16);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let (mut opener, mut acceptor) = connect(engine, Link::Loopback).await?;
        let mut all = Vec::with_capacity(streams + 16);
        // The first ones pay for what is needed once.
        open(&mut opener, &mut acceptor, &mut all, 8).await?;
        let before = resident()?;
        open(&mut opener, &mut acceptor, &mut all, streams).await?;
        tokio::time::sleep(Duration::from_millis(200)).await;
        let grown = resident()?.saturating_sub(before);
        drop(all);
        Ok(grown as f64 / streams as f64)
    })
}

type Pair<O, A> = (<O as Opener>::Stream, <A as Acceptor>::Stream);

async fn open<O: Opener, A: Acceptor>(
    opener: &mut O,
    acceptor: &mut A,
    all: &mut Vec<Pair<O, A>>,
    streams: usize,
) -> io::Result<()> {
    for _ in 0..streams {
        let mut client = opener.open().await?;
        client.write_u8(1).await?;
        client.flush().await?;
        let accepted = acceptor.accept().await?;
        let mut server = accepted.ok_or(io::ErrorKind::UnexpectedEof)?;
        server.read_u8().await?;
        server.write_u8(1).await?;
        server.flush().await?;
        client.read_u8().await?;
        all.push((client, server));
    }
    Ok(())
}

/// Resident memory of this process, in bytes.
fn resident() -> io::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kib: Option<u64> = kib.and_then(|kib| kib.parse().ok());
    Ok(kib.ok_or_else(|| io::Error::other("no VmRSS"))? * 1024)
}
