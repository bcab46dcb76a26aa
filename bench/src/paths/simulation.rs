//! The events of a run, in the order of their times.
#![expect(
    clippy::indexing_slicing,
    reason = "flows and halves are numbered here, and none is ever removed"
)]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use super::control::Control;
use super::packet::{MS, Nanos, Packet, SECOND};
use super::path::{Flow, Jitter, Path, Report, TICK, Way};
use super::queue::Queue;
use super::session::{Key, Message, Sender};
use super::tcp::Half;

/// Between two keystrokes.
const KEYS: Nanos = 20 * MS;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    /// A packet has left the bottleneck of this link.
    Left(usize),
    /// A packet arrives behind this link.
    Arrives(usize, usize),
    /// A half's timer.
    Timer(usize),
    /// A paced half may send.
    Paced(usize),
    /// A session's sender may hand more.
    Hands(usize),
    Begins(usize),
    Ends(usize),
    Key(usize),
    Tick,
}

struct Link {
    queue: Queue,
    sending: Option<Packet>,
    last_arrival: Nanos,
    tokens: f64,
    tokens_at: Nanos,
}

/// A run.
pub struct Simulation {
    path: Path,
    flows: Vec<Flow>,
    /// Two for each flow: its bulk from the first host, and from the second.
    halves: Vec<Half>,
    senders: Vec<Sender>,
    /// Of each sender: an event will let it hand more.
    waiting: Vec<bool>,
    links: [Link; 2],
    events: BinaryHeap<Reverse<(Nanos, u64, What)>>,
    packets: Vec<Option<Packet>>,
    free: Vec<usize>,
    count: u64,
    now: Nanos,
    start: Instant,
    random: fastrand::Rng,
    counted: Vec<[u64; 2]>,
    report: Report,
}

impl Simulation {
    /// A path with these flows.
    pub fn new(path: Path, flows: &[Flow], seed: u64) -> Self {
        let link = || Link {
            queue: Queue::new(path.queue),
            sending: None,
            last_arrival: 0,
            tokens: path.policer.map_or(0.0, |(_, burst)| burst as f64),
            tokens_at: 0,
        };
        let control = |flow: &Flow| flow.plain.unwrap_or(Control::Cubic);
        let halves = flows
            .iter()
            .enumerate()
            .flat_map(|(place, flow)| {
                [2 * place, 2 * place + 1].map(|id| Half::new(id, control(flow)))
            })
            .collect();
        let mut all = Self {
            path,
            flows: flows.to_vec(),
            halves,
            senders: flows
                .iter()
                .flat_map(|_| [Sender::new(), Sender::new()])
                .collect(),
            waiting: vec![false; 2 * flows.len()],
            links: [link(), link()],
            events: BinaryHeap::new(),
            packets: Vec::new(),
            free: Vec::new(),
            count: 0,
            now: 0,
            start: Instant::now(),
            random: fastrand::Rng::with_seed(seed),
            counted: vec![[0; 2]; flows.len()],
            report: Report {
                bytes: vec![Vec::new(); flows.len()],
                ways: vec![[0; 2]; flows.len()],
                ..Report::default()
            },
        };
        for (place, flow) in flows.iter().enumerate() {
            all.at(flow.begin, What::Begins(place));
            if flow.end < Nanos::MAX {
                all.at(flow.end, What::Ends(place));
            }
            if flow.has_keys {
                all.at(0, What::Key(place));
            }
        }
        all.at(TICK, What::Tick);
        all
    }

    /// Runs to this time.
    pub fn run(mut self, until: Nanos) -> Report {
        while let Some(Reverse((at, _, what))) = self.events.pop()
            && at <= until
        {
            self.now = at;
            self.handle(what);
        }
        self.report.dropped = self.links.iter().map(|link| link.queue.dropped).sum();
        self.report
    }

    fn at(&mut self, at: Nanos, what: What) {
        self.count += 1;
        self.events.push(Reverse((at, self.count, what)));
    }

    fn handle(&mut self, what: What) {
        match what {
            What::Left(link) => self.left(link),
            What::Arrives(link, place) => {
                let packet = self.packets.get_mut(place).and_then(Option::take);
                self.free.push(place);
                if let Some(packet) = packet {
                    self.arrives(link, packet);
                }
            }
            What::Timer(half) => {
                let now = self.now;
                self.halves[half].expired();
                let due = self.halves[half].deadline();
                match due {
                    Some(due) if due <= now => self.halves[half].time_out(now),
                    _ => {}
                }
                self.push(half);
                self.arm(half);
            }
            What::Paced(half) => {
                self.halves[half].woken();
                self.push(half);
                self.arm(half);
            }
            What::Hands(half) => {
                self.waiting[half] = false;
                self.hand(half);
            }
            What::Begins(flow) => self.set_bulk(flow, true),
            What::Ends(flow) => self.set_bulk(flow, false),
            What::Key(flow) => {
                let key = Key {
                    typed: self.now,
                    is_echo: false,
                };
                self.senders[2 * flow].type_key(key);
                self.hand(2 * flow);
                // Not in step with anything.
                let gap = KEYS + self.random.u64(0..2 * MS);
                self.at(self.now + gap, What::Key(flow));
            }
            What::Tick => {
                for flow in 0..self.flows.len() {
                    let mut bytes = 0;
                    for way in 0..2 {
                        let total = match self.flows[flow].plain {
                            Some(_) => self.halves[2 * flow + way].received(),
                            None => self.senders[2 * flow + way].acked(),
                        };
                        let newly = total - self.counted[flow][way];
                        self.counted[flow][way] = total;
                        self.report.ways[flow][way] += newly;
                        bytes += newly;
                    }
                    self.report.bytes[flow].push(bytes);
                }
                let first = self.flows.iter().position(|flow| flow.plain.is_none());
                if let Some(flow) = first {
                    let way = usize::from(self.flows[flow].way == Way::Down);
                    self.report
                        .windows
                        .push(self.senders[2 * flow + way].window());
                }
                self.report.queues.push(self.links[0].queue.bytes());
                self.at(self.now + TICK, What::Tick);
            }
        }
    }

    fn set_bulk(&mut self, flow: usize, has_bulk: bool) {
        for way in 0..2 {
            let half = 2 * flow + way;
            if !self.flows[flow].way.includes(way) {
                continue;
            }
            if self.flows[flow].plain.is_some() {
                if has_bulk {
                    self.halves[half].write(u64::MAX);
                } else {
                    self.halves[half].stop();
                }
                self.push(half);
                self.arm(half);
            } else {
                self.senders[half].set_bulk(has_bulk);
                self.hand(half);
            }
        }
    }

    /// A session's half hands to TCP what it may, and TCP sends what it may.
    fn hand(&mut self, half: usize) {
        let now = self.now;
        loop {
            let later = self.senders[half].hand(&mut self.halves[half], self.start, now);
            if let Some(at) = later
                && !std::mem::replace(&mut self.waiting[half], true)
            {
                self.at(at, What::Hands(half));
            }
            let before = self.halves[half].unsent();
            self.push(half);
            // What was sent makes room in the buffer.
            if self.halves[half].unsent() == before {
                break;
            }
        }
        self.arm(half);
    }

    fn arm(&mut self, half: usize) {
        if let Some(due) = self.halves[half].deadline()
            && self.halves[half].arm(due)
        {
            self.at(due, What::Timer(half));
        }
    }

    fn push(&mut self, half: usize) {
        while let Some(packet) = self.halves[half].send(self.now) {
            self.enter(half % 2, packet);
        }
        if let Some(until) = self.halves[half].wakes_at(self.now) {
            self.at(until, What::Paced(half));
        }
    }

    fn enter(&mut self, link: usize, mut packet: Packet) {
        packet.queued = self.now;
        self.links[link].queue.push(packet);
        if self.links[link].sending.is_none() {
            self.start_next(link);
        }
    }

    fn start_next(&mut self, link: usize) {
        let next = self.links[link].queue.pop(self.now);
        if let Some(packet) = next {
            let took = packet.size * 8 * SECOND / self.path.rate;
            self.links[link].sending = Some(packet);
            self.at(self.now + took.max(1), What::Left(link));
        }
    }

    fn left(&mut self, link: usize) {
        let packet = self.links[link].sending.take();
        self.start_next(link);
        let Some(packet) = packet else {
            return;
        };
        if self.is_lost(link, packet) {
            return;
        }
        let now = self.now;
        let mut arrival = now + self.path.round_trip / 2;
        if link == 0 {
            arrival = match self.path.jitter {
                Jitter::None => arrival,
                Jitter::Each(most) => arrival + self.random.u64(0..=most),
                Jitter::Slots(slot) => arrival.div_ceil(slot) * slot,
            };
        }
        if packet.is_ack && self.path.compression > 0 {
            arrival = arrival.div_ceil(self.path.compression) * self.path.compression;
        }
        let arrival = arrival.max(self.links[link].last_arrival);
        self.links[link].last_arrival = arrival;
        let place = self.free.pop().unwrap_or_else(|| {
            self.packets.push(None);
            self.packets.len() - 1
        });
        self.packets[place] = Some(packet);
        self.at(arrival, What::Arrives(link, place));
    }

    fn is_lost(&mut self, link: usize, packet: Packet) -> bool {
        if self.path.loss > 0.0 && self.random.f64() < self.path.loss {
            return true;
        }
        let Some((rate, burst)) = self.path.policer else {
            return false;
        };
        let now = self.now;
        let on = &mut self.links[link];
        let passed = (now - on.tokens_at) as f64 / SECOND as f64;
        on.tokens = (on.tokens + passed * rate as f64 / 8.0).min(burst as f64);
        on.tokens_at = now;
        if on.tokens < packet.size as f64 {
            return true;
        }
        on.tokens -= packet.size as f64;
        false
    }

    fn arrives(&mut self, link: usize, packet: Packet) {
        let half = packet.half;
        let now = self.now;
        if packet.is_ack {
            self.halves[half].acknowledged(packet, now);
            if self.flows[half / 2].plain.is_some() {
                self.push(half);
                self.arm(half);
            } else {
                self.hand(half);
            }
            return;
        }
        let ack = self.halves[half].arrived(packet, now);
        self.enter(1 - link, ack);
        if self.flows[half / 2].plain.is_some() {
            return;
        }
        let mut has_more = false;
        while let Some(message) = self.senders[half].arrived(&self.halves[half]) {
            has_more = true;
            self.receive(half, message);
        }
        if has_more {
            self.hand(half ^ 1);
        }
    }

    /// The peer of this half's sender receives a message.
    fn receive(&mut self, half: usize, message: Message) {
        let (now, peer) = (self.now, half ^ 1);
        match message {
            Message::Data {
                end,
                wants_ack,
                key,
            } => {
                if wants_ack || key.is_some() {
                    self.senders[peer].owe_ack(Message::Ack {
                        received: end,
                        arrived: now,
                    });
                }
                match key {
                    Some(key) if key.is_echo => {
                        self.report.keys.push((key.typed, now - key.typed));
                    }
                    Some(key) => self.senders[peer].type_key(Key {
                        is_echo: true,
                        ..key
                    }),
                    None => {}
                }
            }
            // It acknowledges what this end sends, with the peer's half.
            Message::Ack { received, arrived } => {
                let start = self.start;
                self.senders[peer].acknowledged(received, arrived, start, now);
            }
        }
    }
}
