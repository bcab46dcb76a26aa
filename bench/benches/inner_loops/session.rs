//! Session mode: frames, and bytes through both ends.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use common::limits;
use common::session::frame::{self, Frame};
use common::session::inner::{Inner, InnerDecoder};
use common::session::{CarrierId, Chunk, ConnectionId, Inbound, Role, Session};
use criterion::{BenchmarkId, Criterion, Throughput};

use crate::{VOLUME, payload};

pub(crate) fn session_frames(c: &mut Criterion) {
    let mut group = c.benchmark_group("session_frame");
    let ack = Frame::Ack {
        received: 1 << 40,
        delay: Duration::from_millis(25),
        arrived: Some(1 << 40),
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

/// Both ends of a session with one connection, and a simulated clock.
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
        deliver(&mut service, &mut device, now);
        assert_eq!(device.0.next_incoming(), Some(connection));
        device.0.opened(connection);
        deliver(&mut device, &mut service, now);
        Self {
            service,
            device,
            connection,
            now,
        }
    }

    /// Moves `volume` bytes from the service's local socket to the device's.
    fn transfer(&mut self, bytes: &Bytes, volume: usize) {
        let (mut sent, mut received) = (0, 0);
        while received < volume {
            self.now += Duration::from_millis(1);
            let room = self.service.0.room(self.connection);
            let size = room.min(volume - sent).min(bytes.len());
            let chunk = Chunk::copy_of(&bytes.slice(..size));
            self.service.0.send(self.connection, chunk, self.now);
            sent += size;
            deliver(&mut self.service, &mut self.device, self.now);
            while let Inbound::Data(data) = self.device.0.take(self.connection, self.now) {
                received += black_box(data).len();
            }
            deliver(&mut self.device, &mut self.service, self.now);
        }
    }
}

/// Delivers all that one end has to send to the other.
fn deliver(from: &mut (Session, CarrierId), to: &mut (Session, CarrierId), now: Instant) {
    while let Some(message) = from.0.transmit(from.1, now) {
        to.0.receive(to.1, message, now).unwrap();
    }
}

pub(crate) fn session(c: &mut Criterion) {
    let mut group = c.benchmark_group("session");
    group.throughput(Throughput::Bytes(VOLUME as u64));
    for size in [limits::SESSION_CHUNK, 1 << 10] {
        let bytes = payload(size);
        let mut ends = Ends::new();
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter(|| ends.transfer(&bytes, VOLUME));
        });
    }
}
