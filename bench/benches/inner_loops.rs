//! The loops that handle every byte and every message, each by itself, in memory: no
//! sockets, no TLS, one thread. `bench/README.md` tells what each of them is.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "no part of any program: panics are its findings"
)]

use std::future::poll_fn;
use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes, BytesMut};
use common::clock::unix_now;
use common::hub_address::HubAddress;
use common::identity::{DeviceId, DeviceIdentity, Leg, RequestId, StreamId};
use common::limits;
use common::sas_token::{SasToken, mint};
use common::secret::{Secret, SharedKey};
use common::session::frame::{self, Frame};
use common::session::inner::{Inner, InnerDecoder};
use common::session::{CarrierId, Chunk, ConnectionId, Inbound, Role, Session};
use common::tunnel::{Pipes, Traffic, pump};
use common::websocket::{
    self, CloseFrame, Data, Decoder, Event, Incoming, Opcode, Outbox, WebSocket,
};
use common::wire::stream::{StreamAnswer, StreamRequest};
use common::wire::topics::{device_filter, device_publish, identity_from_user_name};
use criterion::{
    BatchSize, BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use hub::auth::StreamTokens;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream};
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

/// Payloads: a message under load, a TLS record, a small answer, a keystroke.
const SIZES: [usize; 4] = [64 << 10, 16 << 10, 1 << 10, 64];
/// What a pipe holds, in bytes: about what a socket takes at once.
const PIPE: usize = 256 << 10;
/// Bytes of messages that are decoded in one go.
const READ: usize = 128 << 10;
/// Bytes through WebSocket or session in one go.
const VOLUME: usize = 1 << 20;
/// Bytes through a pump in one go.
const PUMPED: usize = 16 << 20;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// Bytes without a pattern that a mask could keep.
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

// --- WebSocket

fn mask(c: &mut Criterion) {
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

/// A server's decoder, which takes masks off, or a client's.
fn decoder(mask: Option<[u8; 4]>, frames: &[u8]) -> Decoder {
    Decoder::new(mask.is_some(), limits::STREAM_MESSAGE_ACCEPTED, frames)
}

/// The next data message; `None` when none is whole.
fn message(decoder: &mut Decoder) -> Option<Data> {
    match decoder.next_event().unwrap() {
        Some(Event::Data(data)) => Some(data),
        _ => None,
    }
}

fn frame_encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("frame_encode");
    for (way, mask) in [("masked", Some(MASK)), ("plain", None)] {
        for size in SIZES {
            let payload = payload(size);
            let mut outbox = Outbox::default();
            group.throughput(Throughput::Bytes(READ as u64));
            group.bench_function(BenchmarkId::new(way, size), |b| {
                b.iter(|| {
                    for _ in 0..READ / size {
                        push(&mut outbox, black_box(&payload), black_box(mask));
                    }
                    // As if the network had taken it.
                    let written = outbox.len();
                    outbox.advance(written);
                    assert!(written > READ, "{written} bytes");
                });
            });
        }
    }
}

fn frame_decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("frame_decode");
    for (way, mask) in [("masked", Some(MASK)), ("plain", None)] {
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
            group.bench_function(BenchmarkId::new(way, size), |b| {
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

/// Sends so many bytes in messages like this one.
async fn send<S>(socket: &mut WebSocket<S>, message: &Bytes, volume: usize)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    for _ in 0..volume / message.len() {
        poll_fn(|cx| socket.poll_ready(cx)).await.unwrap();
        socket.start_send(Data::binary(message.clone())).unwrap();
    }
    poll_fn(|cx| socket.poll_flush(cx)).await.unwrap();
}

/// Receives so many bytes.
async fn receive<S>(socket: &mut WebSocket<S>, volume: usize)
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

fn sockets() -> (WebSocket<DuplexStream>, WebSocket<DuplexStream>) {
    let (near, far) = tokio::io::duplex(PIPE);
    (WebSocket::client(near, &[]), WebSocket::server(far, &[]))
}

fn websocket(c: &mut Criterion) {
    let runtime = runtime();
    let mut group = c.benchmark_group("websocket");
    group.sampling_mode(SamplingMode::Flat);
    group.throughput(Throughput::Bytes(VOLUME as u64));
    for way in ["masked", "plain"] {
        for size in SIZES {
            let message = payload(size);
            let _guard = runtime.enter();
            let (client, server) = sockets();
            let (mut from, mut to) = match way {
                "masked" => (client, server),
                _ => (server, client),
            };
            group.bench_function(BenchmarkId::new(way, size), |b| {
                b.iter(|| {
                    runtime.block_on(async {
                        tokio::join!(send(&mut from, &message, VOLUME), receive(&mut to, VOLUME))
                    })
                });
            });
        }
    }
}

// --- Pump

fn pump_pipes(c: &mut Criterion) {
    let runtime = runtime();
    let mut group = c.benchmark_group("pump");
    group.sampling_mode(SamplingMode::Flat);
    group.throughput(Throughput::Bytes(PUMPED as u64));
    let bytes = payload(limits::STREAM_MESSAGE);
    group.bench_function("up", |b| b.iter(|| runtime.block_on(pump_up(&bytes))));
    group.bench_function("down", |b| b.iter(|| runtime.block_on(pump_down(&bytes))));
}

/// Local socket to stream, and the far end of the stream that takes the masks off.
async fn pump_up(bytes: &Bytes) {
    let (mut person, pipe) = tokio::io::duplex(PIPE);
    let (stream, mut peer) = sockets();
    let write = async {
        for _ in 0..PUMPED / bytes.len() {
            person.write_all(bytes).await.unwrap();
        }
    };
    let read = async {
        receive(&mut peer, PUMPED).await;
        peer.close(CloseFrame::NORMAL, "", limits::CLOSE).await;
    };
    let outcome = tokio::join!(pumped(pipe, stream), write, read).0;
    assert_eq!(outcome, (PUMPED as u64, 0));
}

/// Stream to local socket, and the far end of the stream, which sends without masks.
async fn pump_down(bytes: &Bytes) {
    let (mut person, pipe) = tokio::io::duplex(PIPE);
    let (stream, mut peer) = sockets();
    let write = async {
        send(&mut peer, bytes, PUMPED).await;
        peer.close(CloseFrame::NORMAL, "", limits::CLOSE).await;
    };
    let read = async {
        let mut buffer = vec![0; bytes.len()];
        let mut count = 0;
        while count < PUMPED {
            count += person.read(&mut buffer).await.unwrap();
        }
    };
    let outcome = tokio::join!(pumped(pipe, stream), write, read).0;
    assert_eq!(outcome, (0, PUMPED as u64));
}

/// Pumps to the end, and tells how many bytes went up and down.
async fn pumped(pipe: DuplexStream, stream: WebSocket<DuplexStream>) -> (u64, u64) {
    let (input, output) = tokio::io::split(pipe);
    let local = Pipes::new(input, output);
    let (traffic, stop) = (Traffic::default(), CancellationToken::new());
    let outcome = pump(local, stream, &traffic, &stop).await;
    assert!(outcome.end.is_normal(), "{:?}", outcome.end);
    (outcome.sent, outcome.received)
}

// --- Session mode

fn session_frames(c: &mut Criterion) {
    let mut group = c.benchmark_group("session_frame");
    let ack = Frame::Ack {
        received: 1 << 40,
        delay: Duration::from_millis(25),
    };
    let data = Frame::Data {
        offset: 1 << 40,
        bytes: payload(limits::SESSION_CHUNK),
        wants_ack: true,
    };
    for (name, frame) in [("ack", ack), ("data", data)] {
        let encoded = frame.encode();
        let mut decoder = frame::Decoder::default();
        let decoded = decoder.next(&mut encoded.clone()).unwrap();
        assert_eq!(decoded.as_ref(), Some(&frame));
        group.throughput(Throughput::Bytes(encoded.len() as u64));
        group.bench_function(BenchmarkId::new("encode", name), |b| {
            b.iter(|| black_box(&frame).encode());
        });
        group.bench_function(BenchmarkId::new("decode", name), |b| {
            b.iter(|| decoder.next(black_box(&mut encoded.clone())));
        });
    }

    let (id, credit) = (ConnectionId(7), Inner::Credit(1 << 40));
    let mut out = BytesMut::new();
    credit.encode(id, &mut out);
    let encoded = out.clone().freeze();
    let mut decoder = InnerDecoder::default();
    let decoded = decoder.next(&mut encoded.clone()).unwrap();
    assert_eq!(decoded.as_ref(), Some(&(id, credit.clone())));
    group.throughput(Throughput::Bytes(encoded.len() as u64));
    group.bench_function(BenchmarkId::new("encode", "credit"), |b| {
        b.iter(|| {
            out.clear();
            black_box(&credit).encode(id, &mut out);
        });
    });
    group.bench_function(BenchmarkId::new("decode", "credit"), |b| {
        b.iter(|| decoder.next(black_box(&mut encoded.clone())));
    });
}

/// Both ends of a session with one connection, and a clock that only this turns.
struct Ends {
    service: (Session, CarrierId),
    device: (Session, CarrierId),
    connection: ConnectionId,
    now: Instant,
}

impl Ends {
    fn new() -> Self {
        let now = Instant::now();
        let [mut service, mut device] = [Role::Service, Role::Device].map(|role| {
            let mut session = Session::new(role, now);
            let carrier = session.attach(0, now).unwrap();
            (session, carrier)
        });
        let connection = service.0.open().unwrap();
        bring(&mut service, &mut device, now);
        assert_eq!(device.0.next_incoming(), Some(connection));
        device.0.opened(connection);
        bring(&mut device, &mut service, now);
        Self {
            service,
            device,
            connection,
            now,
        }
    }

    /// Brings so many bytes from the service's local socket to the device's.
    fn carry(&mut self, bytes: &Bytes, volume: usize) {
        let (mut sent, mut received) = (0, 0);
        while received < volume {
            self.now += Duration::from_millis(1);
            let room = self.service.0.room(self.connection);
            let size = room.min(volume - sent).min(bytes.len());
            let chunk = Chunk::copy_of(&bytes.slice(..size));
            self.service.0.send(self.connection, chunk, self.now);
            sent += size;
            bring(&mut self.service, &mut self.device, self.now);
            while let Inbound::Data(data) = self.device.0.take(self.connection, self.now) {
                received += black_box(data).len();
            }
            bring(&mut self.device, &mut self.service, self.now);
        }
    }
}

/// Brings all that one end has to say to the other.
fn bring(from: &mut (Session, CarrierId), to: &mut (Session, CarrierId), now: Instant) {
    while let Some(message) = from.0.transmit(from.1, now) {
        to.0.receive(to.1, message, now).unwrap();
    }
}

fn session(c: &mut Criterion) {
    let mut group = c.benchmark_group("session");
    group.throughput(Throughput::Bytes(VOLUME as u64));
    for size in [limits::SESSION_CHUNK, 1 << 10] {
        let bytes = payload(size);
        let mut ends = Ends::new();
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter(|| ends.carry(&bytes, VOLUME));
        });
    }
}

// --- Tokens and topics

fn tokens(c: &mut Criterion) {
    let mut group = c.benchmark_group("token");
    let hub = HubAddress::parse("myhub.example.net").unwrap();
    let key = SharedKey::random();
    let path = "devices/boiler-17";
    let expiry = unix_now() + 3600;
    let token = mint(&format!("myhub.example.net/{path}"), &key, None, expiry);
    let is_good = |text: &str| {
        let token = SasToken::parse(text).unwrap();
        token.expiry() > 0 && token.covers(&hub, path) && token.is_signed_by(&key)
    };
    assert!(is_good(token.expose()));
    group.bench_function("sas_verify", |b| {
        b.iter(|| is_good(black_box(token.expose())));
    });

    let tokens = StreamTokens::new("myhub");
    let (stream, leg) = (StreamId::random(), Leg::Device);
    let token = tokens.mint(stream, leg, expiry).unwrap();
    let header = format!("Bearer {}", token.expose());
    assert!(tokens.check(Some(&header), stream, leg).is_ok());
    group.bench_function("stream_verify", |b| {
        b.iter(|| tokens.check(black_box(Some(&header)), stream, leg));
    });
}

fn topics(c: &mut Criterion) {
    let mut group = c.benchmark_group("topic");
    let device = DeviceIdentity::of_device(DeviceId::parse("boiler-17").unwrap());
    let request_id = RequestId::parse("1f").unwrap();
    let request = StreamRequest {
        request_id: request_id.clone(),
        name: "ssh".to_owned(),
        url: "wss://myhub.example.net:443/bridges/0123456789abcdef".to_owned(),
        token: Secret::new("t".repeat(300)),
        initiator: None,
    };
    let request_topic = request.to_topic();
    assert_eq!(
        StreamRequest::from_topic(&request_topic),
        Ok(request.clone())
    );
    group.bench_function("stream_request", |b| {
        b.iter(|| StreamRequest::from_topic(black_box(&request_topic)));
    });
    let answer = StreamAnswer {
        request_id,
        accepted: true,
    };
    for (name, topic) in [
        ("stream_answer", answer.to_topic()),
        ("twin_get", "$iothub/twin/GET/?$rid=1f".to_owned()),
        ("telemetry", "devices/boiler-17/messages/events/".to_owned()),
    ] {
        group.bench_function(BenchmarkId::new("publish", name), |b| {
            b.iter(|| device_publish(black_box(&device), black_box(&topic)));
        });
    }
    for (name, filter) in [
        ("stream_requests", "$iothub/streams/POST/#"),
        ("devicebound", "devices/boiler-17/messages/devicebound/#"),
    ] {
        group.bench_function(BenchmarkId::new("filter", name), |b| {
            b.iter(|| device_filter(black_box(&device), black_box(filter)));
        });
    }
    let user_name = "myhub.example.net/boiler-17/?api-version=2020-09-30&DeviceClientType=x";
    group.bench_function("user_name", |b| {
        b.iter(|| identity_from_user_name(black_box(user_name)));
    });
}

criterion_group! {
    name = inner_loops;
    config = criterion();
    targets =
        mask, frame_encode, frame_decode, websocket, pump_pipes, session_frames, session, tokens, topics
}
criterion_main!(inner_loops);
