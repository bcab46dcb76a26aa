//! The paths on which sessions are judged, each with its goal.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc;

use clap::ValueEnum;
use serde_json::{Value, json};

use super::{Control, Discipline, Flow, Jitter, MS, Nanos, Path, Report, SECOND, Simulation, Way};

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// A session beside one plain TCP connection: each has at least 35 %.
    Shared,
    /// The same with plain TCP in the place of the session, for comparison.
    Plain,
    /// Three sessions: equal thirds within 1.5 times.
    Sessions,
    /// A session alone: the rate, and keystrokes within idle + 20 ms.
    Alone,
    /// A plain connection comes and goes: 5 s later keystrokes are within idle + 20 ms again.
    Leaves,
    /// Bulk in both directions: 85 % of each, keystrokes within idle + 25 ms.
    Both,
    /// Long fat paths: 80 % of plain TCP.
    Fat,
    /// Random paths: 80 % of what plain TCP has there, within 30 round trips.
    Random,
}

/// One run and its goal.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// What is looked at.
    pub kind: Kind,
    /// Which path.
    pub name: String,
    path: Path,
    flows: Vec<Flow>,
    from: Nanos,
    to: Nanos,
    seed: u64,
}

/// What came out.
#[derive(Debug)]
pub struct Outcome {
    kind: Kind,
    name: String,
    /// The goal is reached.
    pub is_good: bool,
    figures: Value,
}

impl Outcome {
    /// One line.
    pub fn to_json(&self) -> Value {
        json!({
            "kind": format!("{:?}", self.kind).to_lowercase(),
            "path": self.name,
            "good": self.is_good,
            "figures": self.figures,
        })
    }
}

/// Runs scenarios on all processors; the outcomes come in any order.
pub fn run(scenarios: &[Scenario], with_series: bool) -> Vec<Outcome> {
    let threads = std::thread::available_parallelism().map_or(1, Into::into);
    let next = AtomicUsize::new(0);
    let (send, receive) = mpsc::channel();
    let send = Mutex::new(send);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(one) = scenarios.get(next.fetch_add(1, Relaxed)) {
                    let outcome = one.run(with_series);
                    if let Ok(send) = send.lock() {
                        let _ = send.send(outcome);
                    }
                }
            });
        }
    });
    drop(send);
    let mut outcomes: Vec<_> = receive.iter().collect();
    outcomes.sort_by(|a, b| (a.kind as u8, &a.name).cmp(&(b.kind as u8, &b.name)));
    outcomes
}

/// All scenarios, with so many random paths, and a seed for all others.
pub fn all(random: u64, seed: u64) -> Vec<Scenario> {
    let mut all = Vec::new();
    for mbit in [10, 100, 1000] {
        for ms in [10, 50, 200] {
            for (queue, path) in queues(mbit, ms * MS) {
                let name = format!("{mbit} Mbit/s, {ms} ms, {queue}");
                shared(&mut all, &name, path);
                all.push(Scenario::new(Kind::Sessions, &name, path, sessions(path)));
                all.push(Scenario::new(
                    Kind::Alone,
                    &name,
                    path,
                    vec![Flow::session()],
                ));
                all.push(Scenario::new(Kind::Leaves, &name, path, leaves()));
                let both = Flow {
                    way: Way::Both,
                    ..Flow::session()
                };
                all.push(Scenario::new(Kind::Both, &name, path, vec![both]));
            }
        }
    }
    for (mbit, ms) in [(1_000, 120), (1_000, 300), (10_000, 40)] {
        let name = format!("{mbit} Mbit/s, {ms} ms");
        let path = Path::new(mbit, ms * MS, 1.0);
        all.push(Scenario::new(Kind::Fat, &name, path, vec![Flow::session()]));
    }
    for one in &mut all {
        one.seed = seed;
    }
    all.extend((0..random).map(random_path));
    all
}

fn queues(mbit: u64, round_trip: Nanos) -> Vec<(&'static str, Path)> {
    let path = |products| Path::new(mbit, round_trip, products);
    let fair = Path {
        queue: Discipline::FqCodel(32 << 20),
        ..path(1.0)
    };
    vec![
        ("0.5 BDP", path(0.5)),
        ("1 BDP", path(1.0)),
        ("4 BDP", path(4.0)),
        ("fq_codel", fair),
    ]
}

fn shared(all: &mut Vec<Scenario>, name: &str, path: Path) {
    for control in [Control::Cubic, Control::Bbr] {
        for is_first in [true, false] {
            let second = (5 * SECOND).max(30 * path.round_trip);
            let begin = |is_first: bool| if is_first { 0 } else { second };
            let session = Flow {
                begin: begin(is_first),
                ..Flow::session()
            };
            let instead = Flow {
                begin: begin(is_first),
                ..Flow::cubic()
            };
            let plain = Flow {
                begin: begin(!is_first),
                plain: Some(control),
                ..Flow::cubic()
            };
            let who = if is_first { "session" } else { "plain" };
            let name = format!(
                "{name}, {}, {who} first",
                format!("{control:?}").to_lowercase()
            );
            all.push(Scenario::new(
                Kind::Shared,
                &name,
                path,
                vec![session, plain],
            ));
            all.push(Scenario::new(
                Kind::Plain,
                &name,
                path,
                vec![instead, plain],
            ));
        }
    }
}

fn sessions(path: Path) -> Vec<Flow> {
    let gap = (3 * SECOND).max(15 * path.round_trip);
    let one = |number| Flow {
        begin: number * gap,
        ..Flow::session()
    };
    (0..3).map(one).collect()
}

fn leaves() -> Vec<Flow> {
    let plain = Flow {
        begin: 10 * SECOND,
        end: 25 * SECOND,
        ..Flow::cubic()
    };
    vec![Flow::session(), plain]
}

/// A path of any kind, from its number.
fn random_path(number: u64) -> Scenario {
    let mut random = fastrand::Rng::with_seed(number);
    let mut between = |least: f64, most: f64| (random.f64() * (most / least).ln()).exp() * least;
    let rate = between(1.0, 10_000.0);
    let ms = between(1.0, 400.0);
    let mut path = Path::new(1, (ms * MS as f64) as Nanos, 1.0);
    path.rate = (rate * 1e6) as u64;
    let products = between(0.5, 4.0);
    path.queue = Discipline::DropTail((path.product() as f64 * products).max(30_000.0) as u64);
    let mut name = format!("{number:04}: {rate:.1} Mbit/s, {ms:.1} ms, {products:.1} BDP");
    match random.u8(0..8) {
        0 => {
            path.jitter = Jitter::Each(random.u64(1..=10) * MS);
            name += ", Wi-Fi";
        }
        1 => {
            path.jitter = Jitter::Slots(random.u64(1..=10) * MS);
            name += ", LTE";
        }
        2 => {
            let burst = (path.product() / 4).max(60_000);
            path.policer = Some((path.rate / 2, burst));
            name += ", policer";
        }
        3 => {
            path.compression = random.u64(1..=10) * MS;
            name += ", ACK compression";
        }
        4 => {
            path.loss = 10_f64.powf(random.f64() * 3.3 - 5.0);
            name += &format!(", loss {:.3} %", path.loss * 100.0);
        }
        _ => {}
    }
    let mut one = Scenario::new(Kind::Random, &name, path, vec![Flow::session()]);
    one.seed = number;
    one
}

impl Scenario {
    fn new(kind: Kind, name: &str, path: Path, flows: Vec<Flow>) -> Self {
        let round_trips = |count| count * path.round_trip;
        let (from, to) = match kind {
            Kind::Shared | Kind::Plain => {
                let begin = (10 * SECOND).max(round_trips(60));
                (begin, begin + (30 * SECOND).max(round_trips(200)))
            }
            Kind::Sessions => (
                (20 * SECOND).max(round_trips(80)),
                (60 * SECOND).max(round_trips(240)),
            ),
            Kind::Alone | Kind::Both => ((5 * SECOND).max(round_trips(30)), 30 * SECOND),
            Kind::Leaves => (30 * SECOND, 40 * SECOND),
            Kind::Fat => (round_trips(30), round_trips(30) + 10 * SECOND),
            Kind::Random => (
                round_trips(30),
                round_trips(60).max(round_trips(30) + 2 * SECOND),
            ),
        };
        Self {
            kind,
            name: name.to_owned(),
            path,
            flows,
            from,
            to,
            seed: 1,
        }
    }

    fn run(&self, with_series: bool) -> Outcome {
        let report = Simulation::new(self.path, &self.flows, self.seed).run(self.to);
        let (is_good, mut figures) = self.judge(&report);
        if with_series && let Value::Object(figures) = &mut figures {
            figures.insert("bytes".to_owned(), json!(report.bytes));
            figures.insert("keys".to_owned(), json!(report.keys));
            figures.insert("windows".to_owned(), json!(report.windows));
            figures.insert("queues".to_owned(), json!(report.queues));
        }
        Outcome {
            kind: self.kind,
            name: self.name.clone(),
            is_good,
            figures,
        }
    }

    fn judge(&self, report: &Report) -> (bool, Value) {
        let (from, to) = (self.from, self.to);
        let rates: Vec<f64> = (0..self.flows.len())
            .map(|flow| report.rate(flow, from, to))
            .collect();
        let rate = |flow: usize| rates.get(flow).copied().unwrap_or_default();
        let idle = self.path.round_trip as f64 / MS as f64;
        let late = report.key_delay(0.99, from, to) - idle;
        let wire = self.path.rate as f64 / 1e6;
        match self.kind {
            Kind::Shared | Kind::Plain => {
                let share = rate(0) / (rate(0) + rate(1));
                let is_good = (0.35..=0.65).contains(&share);
                (
                    is_good,
                    json!({"session": round(rate(0)), "plain": round(rate(1)), "share": round(share), "late": round(late)}),
                )
            }
            Kind::Sessions => {
                let least = rates.iter().copied().fold(f64::INFINITY, f64::min);
                let most = rates.iter().copied().fold(0.0, f64::max);
                let rates: Vec<_> = rates.iter().map(|rate| round(*rate)).collect();
                (
                    most <= 1.5 * least,
                    json!({"rates": rates, "ratio": round(most / least), "late": round(late)}),
                )
            }
            Kind::Alone => (
                late <= 20.0 && rate(0) >= 0.8 * wire,
                json!({"rate": round(rate(0)), "late": round(late)}),
            ),
            Kind::Leaves => (
                late <= 20.0,
                json!({"rate": round(rate(0)), "late": round(late)}),
            ),
            Kind::Both => {
                let seconds = to as f64 / SECOND as f64;
                let [up, down] = report.ways.first().copied().unwrap_or_default();
                let [up, down] = [up, down].map(|bytes| bytes as f64 * 8.0 / 1e6 / seconds);
                (
                    up.min(down) >= 0.85 * 0.96 * wire && late <= 25.0,
                    json!({"up": round(up), "down": round(down), "late": round(late)}),
                )
            }
            Kind::Fat | Kind::Random => {
                let plain = Simulation::new(self.path, &[Flow::cubic()], self.seed).run(to);
                let plain = plain.rate(0, from, to);
                (
                    rate(0) >= 0.8 * plain.min(wire),
                    json!({"rate": round(rate(0)), "plain": round(plain), "late": round(late)}),
                )
            }
        }
    }
}

fn round(figure: f64) -> f64 {
    (figure * 100.0).round() / 100.0
}
