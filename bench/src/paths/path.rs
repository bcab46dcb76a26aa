//! What is simulated, and what comes out.

use super::control::Control;
use super::packet::{MS, Nanos, SECOND};
use super::queue::Discipline;

/// Between two samples of throughput.
pub(super) const TICK: Nanos = 100 * MS;

/// A path between two hosts; the same in both directions.
#[derive(Debug, Clone, Copy)]
pub struct Path {
    /// Bits per second of the bottleneck.
    pub rate: u64,
    /// The round trip without any queue.
    pub round_trip: Nanos,
    /// The queue before the bottleneck.
    pub queue: Discipline,
    /// The part of all packets that is lost behind it.
    pub loss: f64,
    /// Delay that varies.
    pub jitter: Jitter,
    /// Drops what exceeds this rate (bits per second) and burst (bytes), as providers do.
    pub policer: Option<(u64, u64)>,
    /// Acknowledgements arrive in groups, this far apart at most.
    pub compression: Nanos,
}

/// Delay that varies, on the way from the first host to the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Jitter {
    /// None.
    None,
    /// Each packet up to so much later, as behind a Wi-Fi access point; in order.
    Each(Nanos),
    /// Packets leave in slots of this length, as of an LTE cell.
    Slots(Nanos),
}

impl Path {
    /// A plain path with a queue of so many bandwidth-delay products.
    pub fn new(mbit: u64, round_trip: Nanos, products: f64) -> Self {
        let rate = mbit * 1_000_000;
        let mut path = Self {
            rate,
            round_trip,
            queue: Discipline::DropTail(0),
            loss: 0.0,
            jitter: Jitter::None,
            policer: None,
            compression: 0,
        };
        path.queue = Discipline::DropTail((path.product() as f64 * products).max(15_000.0) as u64);
        path
    }

    /// The bandwidth-delay product, in bytes.
    pub fn product(&self) -> u64 {
        (u128::from(self.rate) * u128::from(self.round_trip) / (8 * u128::from(SECOND))) as u64
    }
}

/// From which host the bulk comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the first one.
    Up,
    /// From the second one.
    Down,
    /// From both.
    Both,
}

impl Way {
    pub(super) fn includes(self, link: usize) -> bool {
        matches!(
            (self, link),
            (Self::Both, _) | (Self::Up, 0) | (Self::Down, 1)
        )
    }
}

/// What uses the path.
#[derive(Debug, Clone, Copy)]
pub struct Flow {
    /// A plain TCP connection with this congestion control; a session otherwise.
    pub plain: Option<Control>,
    /// Its bulk.
    pub way: Way,
    /// When its bulk begins.
    pub begin: Nanos,
    /// When it ends.
    pub end: Nanos,
    /// Keystrokes are typed at the first host, and echoed.
    pub has_keys: bool,
}

impl Flow {
    /// Plain TCP with CUBIC, from the first host, all the time.
    pub fn cubic() -> Self {
        Self {
            plain: Some(Control::Cubic),
            way: Way::Up,
            begin: 0,
            end: Nanos::MAX,
            has_keys: false,
        }
    }

    /// A session with bulk from the first host, all the time, and keystrokes.
    pub fn session() -> Self {
        Self {
            plain: None,
            has_keys: true,
            ..Self::cubic()
        }
    }
}

/// What a run has shown.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Payload that has arrived for each flow, up and down together, in each tenth of a second.
    pub bytes: Vec<Vec<u64>>,
    /// The same by direction: up, and down.
    pub ways: Vec<[u64; 2]>,
    /// Each echoed keystroke: when it was typed, and how long it took.
    pub keys: Vec<(Nanos, Nanos)>,
    /// For the first session: the window of its bulk in each tenth of a second.
    pub windows: Vec<u64>,
    /// Bytes in the queue from the first host, in each tenth of a second.
    pub queues: Vec<u64>,
    /// Packets that the queues have dropped.
    pub dropped: u64,
}

impl Report {
    /// Megabits per second of a flow between two times.
    pub fn rate(&self, flow: usize, from: Nanos, to: Nanos) -> f64 {
        let ticks = |at: Nanos| (at / TICK) as usize;
        let all = self.bytes.get(flow).map_or(&[][..], Vec::as_slice);
        let some = all
            .get(ticks(from)..ticks(to).min(all.len()))
            .unwrap_or(&[]);
        let bytes: u64 = some.iter().sum();
        bytes as f64 * 8.0 / 1e6 / ((to - from) as f64 / SECOND as f64)
    }

    /// The delay of this part of the keystrokes between two times, in milliseconds.
    pub fn key_delay(&self, part: f64, from: Nanos, to: Nanos) -> f64 {
        let within = self
            .keys
            .iter()
            .filter(|(typed, _)| (from..to).contains(typed));
        let mut delays: Vec<Nanos> = within.map(|(_, delay)| *delay).collect();
        delays.sort_unstable();
        let place = ((delays.len() as f64 * part) as usize).min(delays.len().saturating_sub(1));
        delays
            .get(place)
            .map_or(f64::NAN, |delay| *delay as f64 / MS as f64)
    }
}
