//! The loops that handle every byte and every message, each measured alone, in memory: no sockets,
//! no TLS, one thread. `bench/README.md` describes each of them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "not part of any program: a panic is a finding"
)]

mod pump;
mod session;
mod text;
mod websocket;

use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use tokio::runtime::{Builder, Runtime};

/// Size of a pipe in bytes: about what a socket takes at once.
const PIPE: usize = 256 << 10;
/// Bytes that go through a WebSocket or a session in one iteration.
const VOLUME: usize = 1 << 20;

/// Bytes in which a wrong mask would show.
fn payload(size: usize) -> Bytes {
    (0..size).map(|place| (place % 251) as u8).collect()
}

/// One thread, as on a small device.
fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

fn criterion() -> Criterion {
    Criterion::default()
        .without_plots()
        .sample_size(20)
        .nresamples(10_000)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
}

criterion_group! {
    name = inner_loops;
    config = criterion();
    targets =
        websocket::mask,
        websocket::frame_encode,
        websocket::frame_decode,
        websocket::websocket,
        pump::pump_pipes,
        session::session_frames,
        session::session,
        text::tokens,
        text::topics
}
criterion_main!(inner_loops);
