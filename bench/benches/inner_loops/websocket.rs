//! WebSocket: masks, frames, and messages from one end to the other.

use std::future::poll_fn;
use std::hint::black_box;

use bytes::{Buf as _, Bytes};
use common::limits;
use common::websocket::{self, Data, Decoder, Event, Incoming, Opcode, Outbox, WebSocket};
use criterion::{BatchSize, BenchmarkId, Criterion, SamplingMode, Throughput};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};

use crate::{PIPE, VOLUME, payload, runtime};

/// Payloads: a message under load, a TLS record, a small answer, a keystroke.
const SIZES: [usize; 4] = [64 << 10, 16 << 10, 1 << 10, 64];
/// Bytes of messages that are decoded in one iteration.
const READ: usize = 128 << 10;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

pub(crate) fn mask(c: &mut Criterion) {
    let mut group = c.benchmark_group("mask");
    for size in SIZES {
        let mut bytes = payload(size).to_vec();
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter(|| websocket::mask::apply(black_box(&mut bytes), black_box(MASK)));
        });
    }
    group.finish();
    c.bench_function("mask_draw", |b| b.iter(common::random::bytes::<4>));
}

/// Queues one binary frame: a client's with a mask, a server's without.
fn push(outbox: &mut Outbox, payload: &Bytes, mask: Option<[u8; 4]>) {
    match mask {
        Some(mask) => outbox.push_masked(Opcode::Binary, payload, mask),
        None => outbox.push(Opcode::Binary, payload.clone()),
    }
}

/// A server's decoder, which removes masks, or a client's.
fn decoder(mask: Option<[u8; 4]>, frames: &[u8]) -> Decoder {
    Decoder::new(mask.is_some(), limits::STREAM_MESSAGE_ACCEPTED, frames)
}

/// The next data message; `None` when none is complete.
fn message(decoder: &mut Decoder) -> Option<Data> {
    match decoder.next_event().unwrap() {
        Some(Event::Data(data)) => Some(data),
        _ => None,
    }
}

pub(crate) fn frame_encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("frame_encode");
    for (name, mask) in [("masked", Some(MASK)), ("plain", None)] {
        for size in SIZES {
            let payload = payload(size);
            let mut outbox = Outbox::default();
            group.throughput(Throughput::Bytes(READ as u64));
            group.bench_function(BenchmarkId::new(name, size), |b| {
                b.iter(|| {
                    for _ in 0..READ / size {
                        push(&mut outbox, black_box(&payload), black_box(mask));
                    }
                    // As if the network had taken the bytes.
                    let written = outbox.len();
                    outbox.advance(written);
                    assert!(written > READ, "{written} bytes");
                });
            });
        }
    }
}

pub(crate) fn frame_decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("frame_decode");
    for (name, mask) in [("masked", Some(MASK)), ("plain", None)] {
        for size in SIZES {
            let payload = payload(size);
            let mut outbox = Outbox::default();
            for _ in 0..READ / size {
                push(&mut outbox, &payload, mask);
            }
            let frames = outbox.copy_to_bytes(outbox.len());
            let first = message(&mut decoder(mask, &frames));
            assert_eq!(first.unwrap().into_bytes(), payload);
            group.throughput(Throughput::Bytes(READ as u64));
            group.bench_function(BenchmarkId::new(name, size), |b| {
                b.iter_batched_ref(
                    || decoder(mask, &frames),
                    |decoder| {
                        let mut read = 0;
                        while let Some(data) = message(decoder) {
                            read += black_box(data).len();
                        }
                        assert_eq!(read, READ);
                    },
                    BatchSize::LargeInput,
                );
            });
        }
    }
}

/// Sends `volume` bytes in copies of this message.
pub(crate) async fn send<S>(socket: &mut WebSocket<S>, message: &Bytes, volume: usize)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    for _ in 0..volume / message.len() {
        poll_fn(|cx| socket.poll_ready(cx)).await.unwrap();
        socket.start_send(Data::binary(message.clone())).unwrap();
    }
    poll_fn(|cx| socket.poll_flush(cx)).await.unwrap();
}

/// Receives `volume` bytes.
pub(crate) async fn receive<S>(socket: &mut WebSocket<S>, volume: usize)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut received = 0;
    while received < volume {
        match poll_fn(|cx| socket.poll_incoming(cx)).await.unwrap() {
            Incoming::Data(data) => received += black_box(data.into_bytes()).len(),
            Incoming::Closed(close_frame) => panic!("{close_frame:?} after {received} bytes"),
        }
    }
    assert_eq!(received, volume);
}

pub(crate) fn sockets() -> (WebSocket<DuplexStream>, WebSocket<DuplexStream>) {
    let (near, far) = tokio::io::duplex(PIPE);
    (WebSocket::client(near, &[]), WebSocket::server(far, &[]))
}

pub(crate) fn websocket(c: &mut Criterion) {
    let runtime = runtime();
    let mut group = c.benchmark_group("websocket");
    group.sampling_mode(SamplingMode::Flat);
    group.throughput(Throughput::Bytes(VOLUME as u64));
    for name in ["masked", "plain"] {
        for size in SIZES {
            let message = payload(size);
            let _guard = runtime.enter();
            let (client, server) = sockets();
            let (mut from, mut to) = match name {
                "masked" => (client, server),
                _ => (server, client),
            };
            group.bench_function(BenchmarkId::new(name, size), |b| {
                b.iter(|| {
                    runtime.block_on(async {
                        tokio::join!(send(&mut from, &message, VOLUME), receive(&mut to, VOLUME))
                    })
                });
            });
        }
    }
}
