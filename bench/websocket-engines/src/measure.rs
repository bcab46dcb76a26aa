//! One run of one engine, alone and in a relay.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use rustix::time::{ClockId, clock_gettime};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;

use crate::allocations;
use crate::fake::Fake;
use crate::hand;
use crate::socket::{BATCH, Socket};
use crate::tls::{Ends, Tls};

const GIB: f64 = (1u64 << 30) as f64;
/// The payload repeats after so many bytes.
const PERIOD: usize = 256 << 10;

/// An engine as it is measured.
pub struct Case {
    pub name: &'static str,
    pub tls: Tls,
    pub relay: fn(&Arc<Ends>, Tls, usize, usize) -> io::Result<Run>,
    pub codec: fn(usize, bool) -> io::Result<Codec>,
}

/// A run of the relay.
pub struct Run {
    /// MiB a second.
    pub rate: f64,
    /// Processor seconds of the whole process for each GiB.
    pub cpu: f64,
}

/// An engine alone.
pub struct Codec {
    /// GiB a second.
    pub encode: f64,
    pub decode: f64,
    /// For one message, both ends together.
    pub allocations: f64,
}

pub fn case<S: Socket>(name: &'static str, tls: Tls) -> Case {
    Case {
        name,
        tls,
        relay: relay::<S>,
        codec: codec::<S>,
    }
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

pub fn spread(values: &[f64]) -> (f64, f64) {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    (low, values.iter().copied().fold(0.0, f64::max))
}

/// Bytes that repeat only after `PERIOD`, and enough of them to see any piece whole.
fn pattern() -> Arc<[u8]> {
    let mut state = 1u32;
    let period: Vec<u8> = (0..PERIOD)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect();
    [&period[..], &period[..]].concat().into()
}

fn codec<S: Socket>(frame: usize, client: bool) -> io::Result<Codec> {
    let pattern = pattern();
    let total = if frame < 1024 { 64 << 20 } else { 1 << 30 };
    let mut frames = Vec::new();
    for at in (0..PERIOD).step_by(frame) {
        let mask = client.then_some([1, 20, 33, 4]);
        frames.extend(hand::frame(&pattern[at..at + frame], mask));
    }
    let runtime = Builder::new_current_thread().build()?;
    runtime.block_on(async {
        let before = allocations::count();
        let mut from = S::new(Box::new(Fake::new(Vec::new())), client).await;
        let start = Instant::now();
        for at in (0..total).step_by(frame) {
            from.send(&pattern[at % PERIOD..][..frame]).await?;
            if (at + frame).is_multiple_of(BATCH) {
                from.flush().await?;
            }
        }
        let encode = total as f64 / GIB / start.elapsed().as_secs_f64();
        let mut to = S::new(Box::new(Fake::new(frames)), !client).await;
        let start = Instant::now();
        let mut at = 0;
        while at < total {
            let piece = to.receive().await?;
            let piece = piece.as_ref();
            at += piece.len();
            if piece.last() != Some(&pattern[(at - 1) % PERIOD]) {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        let decode = total as f64 / GIB / start.elapsed().as_secs_f64();
        let messages = (total / frame) as f64;
        let allocations = (allocations::count() - before) as f64 / messages;
        Ok(Codec {
            encode,
            decode,
            allocations,
        })
    })
}

fn processor() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Load, relay and sink in one process, two TLS legs on loopback; every byte is checked.
fn relay<S: Socket>(ends: &Arc<Ends>, tls: Tls, frame: usize, total: usize) -> io::Result<Run> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_io()
        .build()?;
    runtime.block_on(async {
        let pattern = pattern();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let mut sockets = Vec::new();
        for _ in 0..2 {
            let outer = TcpStream::connect(listener.local_addr()?).await?;
            let (inner, _) = listener.accept().await?;
            let (outer, inner) =
                tokio::try_join!(ends.shake(tls, outer, true), ends.shake(tls, inner, false))?;
            sockets.push((S::new(outer, true).await, S::new(inner, false).await));
        }
        let (Some((mut sink, out)), Some((mut load, back))) = (sockets.pop(), sockets.pop()) else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let cpu = processor();
        let start = Instant::now();
        let relay = tokio::spawn(S::relay(back, out));
        let source = Arc::clone(&pattern);
        let load = tokio::spawn(async move {
            for at in (0..total).step_by(frame) {
                load.send(&source[at % PERIOD..][..frame]).await?;
            }
            load.flush().await?;
            io::Result::Ok(load)
        });
        let sink = tokio::spawn(async move {
            let mut at = 0;
            while at < total {
                let piece = sink.receive().await?;
                let piece = piece.as_ref();
                if piece != &pattern[at % PERIOD..][..piece.len()] {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                at += piece.len();
            }
            io::Result::Ok(sink)
        });
        let _sink = sink.await.map_err(io::Error::other)??;
        let seconds = start.elapsed().as_secs_f64();
        let cpu = processor() - cpu;
        let _load = load.await.map_err(io::Error::other)??;
        relay.abort();
        let total = total as f64;
        Ok(Run {
            rate: total / f64::from(1 << 20) / seconds,
            cpu: cpu / (total / GIB),
        })
    })
}
