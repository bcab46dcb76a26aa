//! Congestion control of the simulated TCP: CUBIC (RFC 9438) with HyStart's delay test, as Linux
//! has it, and BBR's first version.

use std::collections::VecDeque;

use super::packet::{MS, Nanos, SECOND, SEGMENT};

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// CUBIC.
    Cubic,
    /// BBR, version 1.
    Bbr,
}

/// What an acknowledgement says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Acked {
    pub(super) now: Nanos,
    /// Bytes that it acknowledges.
    pub(super) bytes: u64,
    pub(super) round_trip: Nanos,
    /// Bytes per second that were delivered since the segment was sent.
    pub(super) rate: f64,
    pub(super) in_flight: u64,
    /// It ends a round trip.
    pub(super) is_round: bool,
    /// The window limited the sender.
    pub(super) is_limited: bool,
}

/// The state of either.
#[derive(Debug)]
pub(super) enum State {
    Cubic(Cubic),
    Bbr(Bbr),
}

impl State {
    pub(super) fn new(control: Control) -> Self {
        match control {
            Control::Cubic => Self::Cubic(Cubic::default()),
            Control::Bbr => Self::Bbr(Bbr::default()),
        }
    }

    /// Bytes that may be in flight.
    pub(super) fn window(&self) -> f64 {
        match self {
            Self::Cubic(cubic) => cubic.window * SEGMENT as f64,
            Self::Bbr(bbr) => bbr.window(),
        }
    }

    /// Bytes per second, if sending is paced.
    pub(super) fn pacing(&self) -> Option<f64> {
        match self {
            Self::Cubic(_) => None,
            Self::Bbr(bbr) => Some(bbr.pacing()),
        }
    }

    pub(super) fn acked(&mut self, acked: Acked) {
        match self {
            Self::Cubic(cubic) => cubic.acked(acked),
            Self::Bbr(bbr) => bbr.acked(acked),
        }
    }

    /// Something of the current window was lost; once for each recovery.
    pub(super) fn lost(&mut self, now: Nanos) {
        if let Self::Cubic(cubic) = self {
            cubic.lost(now);
        }
    }

    /// Nothing was acknowledged for so long that all counts as lost.
    pub(super) fn timed_out(&mut self, now: Nanos) {
        if let Self::Cubic(cubic) = self {
            cubic.lost(now);
            cubic.window = 1.0;
        }
    }
}

const C: f64 = 0.4;
const BETA: f64 = 0.7;
const FIRST: f64 = 10.0;

/// Windows are segments, times seconds.
#[derive(Debug)]
pub(super) struct Cubic {
    window: f64,
    threshold: f64,
    most: f64,
    epoch: Option<Nanos>,
    origin: f64,
    k: f64,
    /// What Reno would have.
    friendly: f64,
    shortest: Nanos,
    shortest_of_round: Nanos,
    samples: u32,
}

impl Default for Cubic {
    fn default() -> Self {
        Self {
            window: FIRST,
            threshold: f64::INFINITY,
            most: 0.0,
            epoch: None,
            origin: 0.0,
            k: 0.0,
            friendly: 0.0,
            shortest: Nanos::MAX,
            shortest_of_round: Nanos::MAX,
            samples: 0,
        }
    }
}

impl Cubic {
    fn acked(&mut self, acked: Acked) {
        self.shortest = self.shortest.min(acked.round_trip);
        if acked.is_round {
            self.shortest_of_round = Nanos::MAX;
            self.samples = 0;
        }
        if self.samples < 8 {
            self.samples += 1;
            self.shortest_of_round = self.shortest_of_round.min(acked.round_trip);
        }
        if !acked.is_limited {
            return;
        }
        let segments = acked.bytes as f64 / SEGMENT as f64;
        if self.window < self.threshold {
            let slack = (self.shortest / 8).clamp(4 * MS, 16 * MS);
            if self.samples >= 8
                && self.window >= 16.0
                && self.shortest_of_round >= self.shortest + slack
            {
                self.threshold = self.window;
            } else {
                self.window += segments;
                return;
            }
        }
        let now = acked.now;
        let begin = *self.epoch.get_or_insert_with(|| {
            if self.window < self.most {
                self.k = ((self.most - self.window) / C).cbrt();
                self.origin = self.most;
            } else {
                self.k = 0.0;
                self.origin = self.window;
            }
            self.friendly = self.window;
            now
        });
        let t = (now - begin + self.shortest) as f64 / SECOND as f64;
        let target = self.origin + C * (t - self.k).powi(3);
        let growth = if target > self.window {
            ((target - self.window) / self.window).min(0.5)
        } else {
            0.01 / self.window
        };
        self.window += growth * segments;
        self.friendly += 3.0 * (1.0 - BETA) / (1.0 + BETA) * segments / self.window;
        self.window = self.window.max(self.friendly);
    }

    fn lost(&mut self, _now: Nanos) {
        self.epoch = None;
        self.most = if self.window < self.most {
            self.window * (1.0 + BETA) / 2.0
        } else {
            self.window
        };
        self.window = (self.window * BETA).max(2.0);
        self.threshold = self.window;
    }
}

const HIGH_GAIN: f64 = 2.885;
const CYCLE: [f64; 8] = [1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0];
const RATE_ROUNDS: u64 = 10;
const PROBE_EVERY: Nanos = 10 * SECOND;
const PROBE_LENGTH: Nanos = 200 * MS;

#[derive(Debug, Default)]
pub(super) struct Bbr {
    /// Round and rate, the fastest first.
    rates: VecDeque<(u64, f64)>,
    round: u64,
    shortest: Option<(Nanos, Nanos)>,
    is_full: bool,
    full_rate: f64,
    full_rounds: u32,
    is_drained: bool,
    phase: usize,
    phase_began: Nanos,
    probing_until: Option<Nanos>,
}

impl Bbr {
    fn rate(&self) -> f64 {
        self.rates.front().map_or(0.0, |(_, rate)| *rate)
    }

    fn product(&self) -> f64 {
        let shortest = self.shortest.map_or(0, |(shortest, _)| shortest);
        self.rate() * shortest as f64 / SECOND as f64
    }

    fn window(&self) -> f64 {
        let segment = SEGMENT as f64;
        if self.probing_until.is_some() {
            return 4.0 * segment;
        }
        let gain = if self.is_full { 2.0 } else { HIGH_GAIN };
        (gain * self.product()).max(FIRST * segment)
    }

    fn pacing(&self) -> f64 {
        let gain = match (self.is_full, self.is_drained) {
            (false, _) => HIGH_GAIN,
            (true, false) => 1.0 / HIGH_GAIN,
            (true, true) => CYCLE.get(self.phase).copied().unwrap_or(1.0),
        };
        // Before the first sample: ten segments in a millisecond.
        let rate = if self.rate() > 0.0 {
            self.rate()
        } else {
            FIRST * SEGMENT as f64 * 1000.0
        };
        gain * rate
    }

    fn acked(&mut self, acked: Acked) {
        let now = acked.now;
        if acked.is_round {
            self.round += 1;
        }
        let round = self.round;
        self.rates
            .retain(|(of, rate)| of + RATE_ROUNDS > round && *rate > acked.rate);
        self.rates.push_back((round, acked.rate));
        let is_old = self.shortest.is_some_and(|(_, at)| now - at > PROBE_EVERY);
        if self
            .shortest
            .is_none_or(|(shortest, _)| acked.round_trip <= shortest)
        {
            self.shortest = Some((acked.round_trip, now));
        }
        match self.probing_until {
            None if is_old => self.probing_until = Some(now + PROBE_LENGTH + acked.round_trip),
            Some(until) if now >= until => {
                self.probing_until = None;
                self.shortest = Some((acked.round_trip, now));
            }
            _ => {}
        }
        if acked.is_round && !self.is_full {
            if self.rate() >= 1.25 * self.full_rate {
                self.full_rate = self.rate();
                self.full_rounds = 0;
            } else {
                self.full_rounds += 1;
                self.is_full = self.full_rounds >= 3;
            }
        }
        if self.is_full && !self.is_drained && acked.in_flight as f64 <= self.product() {
            self.is_drained = true;
            self.phase = 2;
            self.phase_began = now;
        }
        if self.is_drained {
            let shortest = self.shortest.map_or(0, |(shortest, _)| shortest);
            let is_over = now - self.phase_began > shortest;
            let is_drained = self.phase == 1 && acked.in_flight as f64 <= self.product();
            if is_over || is_drained {
                self.phase = (self.phase + 1) % CYCLE.len();
                self.phase_began = now;
            }
        }
    }
}
