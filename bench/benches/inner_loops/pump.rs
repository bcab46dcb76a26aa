//! The pump, between a local socket and a stream.

use bytes::Bytes;
use common::limits;
use common::tunnel::{Pipes, Traffic, pump, stopped};
use common::websocket::{CloseFrame, WebSocket};
use criterion::{Criterion, SamplingMode, Throughput};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_util::sync::CancellationToken;

use crate::websocket::{receive, send, sockets};
use crate::{PIPE, payload, runtime};

/// Bytes through a pump in one iteration.
const PUMPED: usize = 16 << 20;

pub(crate) fn pump_pipes(c: &mut Criterion) {
    let runtime = runtime();
    let mut group = c.benchmark_group("pump");
    group.sampling_mode(SamplingMode::Flat);
    group.throughput(Throughput::Bytes(PUMPED as u64));
    let bytes = payload(limits::STREAM_MESSAGE);
    group.bench_function("up", |b| b.iter(|| runtime.block_on(pump_up(&bytes))));
    group.bench_function("down", |b| b.iter(|| runtime.block_on(pump_down(&bytes))));
}

/// From the local socket to the far end of the stream, which removes the masks.
async fn pump_up(bytes: &Bytes) {
    let (mut client, pipe) = tokio::io::duplex(PIPE);
    let (stream, mut peer) = sockets();
    let write = async {
        for _ in 0..PUMPED / bytes.len() {
            client.write_all(bytes).await.unwrap();
        }
    };
    let read = async {
        receive(&mut peer, PUMPED).await;
        peer.close(CloseFrame::NORMAL, "", limits::CLOSE).await;
    };
    let outcome = tokio::join!(pumped(pipe, stream), write, read).0;
    assert_eq!(outcome, (PUMPED as u64, 0));
}

/// From the far end of the stream, which sends without masks, to the local socket.
async fn pump_down(bytes: &Bytes) {
    let (mut client, pipe) = tokio::io::duplex(PIPE);
    let (stream, mut peer) = sockets();
    let write = async {
        send(&mut peer, bytes, PUMPED).await;
        peer.close(CloseFrame::NORMAL, "", limits::CLOSE).await;
    };
    let read = async {
        let mut buffer = vec![0; bytes.len()];
        let mut count = 0;
        while count < PUMPED {
            count += client.read(&mut buffer).await.unwrap();
        }
    };
    let outcome = tokio::join!(pumped(pipe, stream), write, read).0;
    assert_eq!(outcome, (0, PUMPED as u64));
}

/// Pumps to the end; returns how many bytes went up and down.
async fn pumped(pipe: DuplexStream, stream: WebSocket<DuplexStream>) -> (u64, u64) {
    let (input, output) = tokio::io::split(pipe);
    let local = Pipes::new(input, output);
    let (traffic, stop) = (Traffic::default(), CancellationToken::new());
    let outcome = pump(local, stream, &traffic, stopped(&stop)).await;
    assert!(outcome.end.is_normal(), "{:?}", outcome.end);
    (outcome.sent, outcome.received)
}
