//! How many bytes of a session may be in flight (`docs/session-protocol.md`, "Window"). No I/O and
//! no clock.
//!
//! The carrier's TCP and the hub would buffer far more than the path holds, and a keystroke would
//! wait behind all of it. So the window keeps the path full and little more, as long as the session
//! is [alone](Phase::Alone): `window × base / delay + a little`, once a round trip (the rule of
//! FAST TCP). Where others share the path, their queue would starve such a window. It notices that,
//! since a smaller window does not shorten their queue; while the path is
//! [contended](Phase::Contended), TCP's own congestion control decides, and the window only sees to
//! it that TCP has enough to send (the competitive modes of Copa and Nimbus are models of this).

mod contention;
mod jitter;
mod pace;
mod path;
mod rates;

use std::time::{Duration, Instant};

use crate::limits;
use contention::{Contended, EMPTY_TESTS, Trial};
use jitter::Jitter;
use pace::Pace;
use path::Path;
use rates::Rates;

pub use path::Sample;

/// How much longer than on an idle path a byte may take in the steady state.
pub const TARGET_QUEUE: Duration = Duration::from_millis(5);
/// What a window keeps in the queue is the geometric mean of what passes in [`TARGET_QUEUE`] and
/// this many bytes: less than in proportion to its rate, so that several windows become equal.
const KEPT_IN_QUEUE: f64 = 20.0 * 1024.0;
/// The longest queue from that.
const MOST_QUEUE: Duration = Duration::from_millis(6);
/// The part of a round trip whose bytes one acknowledgement releases, if it is a small one.
const BURST: Duration = Duration::from_millis(3);
/// The idle path is measured again after this time without a queue-free acknowledgement.
const BASE_LIFE: Duration = Duration::from_secs(10);
/// Round trips in a row that show a queue, at which the fast growth pauses.
const LATEST: usize = 4;
/// Limited rounds in a row without any queue after which the path is considered wider than it was,
/// or the first growth too short; and the growth then, at first and from the next round on.
const QUICK_ROUNDS: u8 = 3;
const QUICK_GROWTH: f64 = 0.25;
const QUICKER_GROWTH: f64 = 0.6;
/// The queue that the first such growth causes at most if the path was full and the other way is
/// busy; it doubles with each round.
const QUICK_QUEUE: Duration = Duration::from_millis(10);
/// How often in a row a window grows before it does so faster.
const STEADY: u8 = 2;
/// The smallest part that one change leaves.
const SHRINKAGE: f64 = 0.5;
/// Growth of the delivery rate from one round to the next that shows that TCP grows and the path is
/// not full (BBR uses the same number to detect the end of its startup).
const RISING: f64 = 1.25;
/// How many times what the path and its queue hold the window may be while it is contended.
const AMPLE: f64 = 2.5;

/// Who decides on the window.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    /// It grows by half of all that is acknowledged, until a queue stands.
    Start,
    /// The delay decides.
    Alone(Trial),
    /// Another's queue stands: TCP decides.
    Contended(Contended),
}

/// What happens in this round and the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Round {
    /// What is acknowledged was sent under the present window.
    Measured,
    /// It was sent under another one, for so many more rounds.
    Settling(u8),
    /// The queue is drained.
    Draining,
    /// It was drained before these bytes were sent.
    Drained,
}

/// How long a message and its acknowledgement took.
#[derive(Debug, Clone, Copy)]
struct Delay {
    /// The message's wait on its way to the peer.
    queue: Duration,
    /// All other time: the path, and the acknowledgement's own queue.
    rest: Duration,
}

/// What a round has shown.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// The shortest one.
    delay: Delay,
    /// The window limited the sender.
    was_limited: bool,
    /// More was sent than a person types: it could have caused a queue.
    is_bulk: bool,
    /// Much more was delivered than in the round before.
    is_rising: bool,
}

/// The window of one direction of a session.
#[derive(Debug, Clone)]
pub struct Window {
    size: u64,
    phase: Phase,
    round: Round,
    path: Path,
    jitter: Jitter,
    /// Acknowledgements wait in the queue of the way back.
    is_other_way_busy: bool,
    pace: Pace,
    quick_rounds: u8,
    /// Rounds in a row with a queue that may be another's.
    standing: u8,
    /// The queue before it was drained.
    before_drain: Duration,
    /// How often in a row the window has grown.
    grown: u8,
    /// When the path was no longer contended, and how many tests had to say so.
    left: Option<Instant>,
    needed: u8,
    /// What had the shortest queue of this round.
    shortest: Option<Delay>,
    /// The latest queues, newest first.
    latest: [Option<Duration>; LATEST],
    /// The offset whose acknowledgement ends the round.
    round_end: u64,
    /// What was acknowledged in this round and in the last ones.
    rates: Rates,
    /// The window limited the sender in this round.
    limited: bool,
    /// Limit of the window while the queue is drained; afterwards it grows step by step, since a
    /// jump would cause a burst.
    ceiling: u64,
    /// There was no queue of others when it was drained.
    is_ours: bool,
}

impl Window {
    /// For a new carrier, on which the next byte has this offset.
    pub fn new(next: u64) -> Self {
        Self {
            size: limits::WINDOW_FIRST,
            phase: Phase::Start,
            round: Round::Measured,
            path: Path::default(),
            jitter: Jitter::default(),
            is_other_way_busy: false,
            pace: Pace::default(),
            quick_rounds: 0,
            standing: 0,
            before_drain: Duration::ZERO,
            grown: 0,
            left: None,
            needed: EMPTY_TESTS,
            shortest: None,
            latest: [None; LATEST],
            round_end: next,
            rates: Rates::default(),
            limited: false,
            ceiling: u64::MAX,
            is_ours: false,
        }
    }

    /// Bytes that may be in flight.
    pub fn size(&self) -> u64 {
        self.size.min(self.ceiling)
    }

    /// Bytes of one connection that may be sent in one piece: a small part of the window, so that
    /// others wait only briefly.
    pub fn chunk(&self) -> usize {
        let share = usize::try_from(self.share()).unwrap_or(usize::MAX);
        share.clamp(limits::CHUNK_LEAST, limits::CHUNK)
    }

    /// Until when bulk has to wait although the window is not full.
    pub fn paced_until(&self, now: Instant) -> Option<Instant> {
        self.pace.until().filter(|at| *at > now)
    }

    /// The end of the last such wait.
    pub fn pace_end(&self) -> Option<Instant> {
        self.pace.until()
    }

    /// So many bytes are sent.
    pub fn sent(&mut self, bytes: u64, now: Instant) {
        match (self.phase, self.path.base()) {
            (Phase::Alone(_), Some(base)) => self.pace.sent(bytes, self.size(), base, now),
            _ => self.pace = Pace::default(),
        }
    }

    /// After how many bytes an acknowledgement is requested.
    pub fn ack_every(&self) -> u64 {
        self.share()
    }

    /// A sixteenth of the window, less on a long path: each acknowledgement releases so much at
    /// once, which is a queue for a moment. Before the first one it is little: the window knows
    /// nothing of the path yet, and larger messages take longer.
    fn share(&self) -> u64 {
        match self.path.base() {
            Some(base) => {
                let parts = (base.as_micros() / BURST.as_micros()).clamp(16, 256);
                self.size() / parts as u64
            }
            None => limits::CHUNK_LEAST as u64,
        }
    }

    /// The shortest round trip that was measured on this carrier.
    pub fn round_trip(&self) -> Option<Duration> {
        self.path.base()
    }

    /// The sender has more, and the window is full.
    pub fn is_limiting(&mut self) {
        self.limited = true;
    }

    /// `newly` bytes were acknowledged, up to the offset `acked`; `next` is the offset of the next
    /// byte to send; `sample` was measured with them.
    pub fn acknowledged(
        &mut self,
        newly: u64,
        acked: u64,
        next: u64,
        sample: Option<Sample>,
        now: Instant,
    ) {
        if let Some(sample) = sample {
            let queue = self.path.queue(sample, now);
            let delay = Delay {
                queue,
                rest: sample.round_trip.saturating_sub(queue),
            };
            self.shortest = Some(match self.shortest {
                Some(known) if known.queue <= queue => known,
                _ => delay,
            });
            self.jitter.waited(queue);
            self.latest.rotate_right(1);
            if let Some(latest) = self.latest.first_mut() {
                *latest = Some(queue);
            }
        }
        self.rates.deliver(newly);
        if !matches!(self.round, Round::Draining | Round::Drained) && self.ceiling < self.size {
            // What passes through the rest of the path, where it is ours: more would be a queue.
            let refill = if self.is_ours { newly / 4 } else { newly };
            self.ceiling = self.ceiling.saturating_add(refill);
            if self.ceiling >= self.size {
                self.ceiling = u64::MAX;
            }
            // What fills the path again meets no queue.
            self.round = Round::Settling(2);
        } else if self.limited && self.may_grow() {
            self.set(self.size.saturating_add(newly / 2));
        }
        if acked >= self.round_end && self.rates.is_whole_round(self.path.base(), now) {
            self.end_round(now);
            self.round_end = next;
        }
    }

    /// Whether the window grows with each acknowledgement.
    fn may_grow(&self) -> bool {
        match self.phase {
            Phase::Start => !self.has_recent_queue(),
            Phase::Alone(_) => false,
            Phase::Contended(contended) => {
                let most =
                    AMPLE * self.rates.best() * (self.base() + contended.queue).as_secs_f64();
                self.round == Round::Measured && (self.size as f64) < most
            }
        }
    }

    /// Jitter is a part of the path, and no queue.
    fn without_jitter(&mut self, delay: Delay) -> Delay {
        self.is_other_way_busy = delay.rest > self.base() + TARGET_QUEUE / 2;
        // What others have in the queue varies as well.
        match self.phase {
            Phase::Contended(_) => self.jitter.skip_round(),
            _ => self.jitter.end_round(delay.queue, self.is_other_way_busy),
        }
        let jitter = self.jitter.part_of(delay.queue, self.chunk_time());
        Delay {
            queue: delay.queue - jitter,
            rest: delay.rest + jitter,
        }
    }

    /// What the smallest chunk takes at the usual rate.
    fn chunk_time(&self) -> Duration {
        Duration::from_secs_f64(limits::CHUNK_LEAST as f64 / self.rates.most().max(1e4))
    }

    fn base(&self) -> Duration {
        self.path.base().unwrap_or_default()
    }

    /// Whether the latest acknowledgements all show a queue: longer than the burst that the growth
    /// itself causes.
    fn has_recent_queue(&self) -> bool {
        let long = self.base() / 4 + TARGET_QUEUE;
        self.latest
            .iter()
            .all(|queue| queue.is_some_and(|queue| queue >= long))
    }

    fn end_round(&mut self, now: Instant) {
        let was_limited = std::mem::take(&mut self.limited);
        let (delivered, is_rising) = self.rates.end_round(now);
        let Some(delay) = self.shortest.take() else {
            return;
        };
        let delay = self.without_jitter(delay);
        let queue = delay.queue;
        let seen = Seen {
            delay,
            was_limited,
            is_bulk: was_limited || delivered >= limits::WINDOW_LEAST,
            is_rising,
        };
        match self.round {
            Round::Settling(2..) => self.round = Round::Settling(1),
            Round::Settling(_) => self.round = Round::Measured,
            Round::Draining => self.round = Round::Drained,
            Round::Drained => {
                self.round = Round::Settling(1);
                self.drained(queue, now);
            }
            Round::Measured => self.measured(seen, now),
        }
    }

    /// A round was sent under the present window.
    fn measured(&mut self, seen: Seen, now: Instant) {
        let Seen {
            delay, was_limited, ..
        } = seen;
        let queue = delay.queue;
        // While the rate rises, TCP's window grows: bytes wait for that and not on the path, and
        // TCP grows no further than it is used. A window that was hardly used causes no queue.
        let mut is_trial = false;
        let is_explained = seen.is_rising || !seen.is_bulk;
        match &mut self.phase {
            Phase::Start => {
                if queue >= TARGET_QUEUE && !is_explained {
                    self.phase = Phase::Alone(Trial::default());
                    self.adapt(delay, was_limited, now);
                }
            }
            Phase::Alone(trial) => {
                is_trial = trial.queue.is_some();
                if queue >= TARGET_QUEUE && is_explained {
                    trial.queue = None;
                } else if was_limited || queue > TARGET_QUEUE {
                    let is_quick = was_limited && queue < TARGET_QUEUE / 16;
                    self.quick_rounds = if is_quick {
                        self.quick_rounds.saturating_add(1)
                    } else {
                        0
                    };
                    self.adapt(delay, was_limited, now);
                }
            }
            Phase::Contended(contended) => {
                if contended.is_due(&self.rates, seen.is_rising, now) && seen.is_bulk {
                    self.drain();
                }
                return;
            }
        }
        self.look_at_path(queue, was_limited && !is_trial, now);
    }

    /// Adapts the window to the delay, and sees whether the last adaptation had an effect.
    fn adapt(&mut self, delay: Delay, was_limited: bool, now: Instant) {
        let Phase::Alone(mut trial) = self.phase else {
            return;
        };
        let base = self.base();
        let queue = delay.queue;
        let trip = (delay.rest + queue).as_secs_f64().max(1e-6);
        let used = if was_limited {
            self.size as f64
        } else {
            (self.rates.latest() * trip).min(self.size as f64)
        };
        let rate = used / trip;
        if trial.is_futile(queue, self.size) {
            // Smaller windows were given up for nothing.
            self.set(trial.before.max(self.size));
            self.round = Round::Settling(1);
            self.contend(queue, now);
            return;
        }
        let kept = (rate * (TARGET_QUEUE + base / 40).as_secs_f64() * KEPT_IN_QUEUE).sqrt();
        let kept = kept.min(rate * (MOST_QUEUE + base / 100).as_secs_f64());
        let wanted = rate * delay.rest.as_secs_f64() + kept;
        let size = self.size as f64;
        let wanted = match self.quick_rounds {
            0..QUICK_ROUNDS => self
                .hasten(wanted)
                .clamp(SHRINKAGE * size, (1.0 + QUICK_GROWTH) * size),
            rounds => {
                let is_busy = self.is_other_way_busy;
                size * (1.0 + quick_growth(rounds - QUICK_ROUNDS, base, is_busy))
            }
        };
        let shorter = Duration::from_secs_f64(((size - wanted) / rate.max(1.0)).max(0.0));
        self.set(wanted as u64);
        if self.size as f64 >= 0.98 * size {
            trial.futile = 0;
        } else if queue >= self.anothers() {
            trial.queue = Some((queue, queue.saturating_sub(shorter)));
        }
        self.phase = Phase::Alone(trial);
        self.round = Round::Settling(1);
    }

    /// A window that has grown several times in a row is far from its share: each time twice as far.
    fn hasten(&mut self, wanted: f64) -> f64 {
        let step = wanted - self.size as f64;
        if step <= 0.0 {
            self.grown = 0;
            return wanted;
        }
        self.grown = self.grown.saturating_add(1);
        let times = self.grown.saturating_sub(STEADY).min(8);
        self.size as f64 + step * f64::from(1_u32 << times)
    }

    fn set(&mut self, size: u64) {
        self.size = size.clamp(limits::WINDOW_LEAST, limits::WINDOW_MOST);
    }
}

/// How much a window grows, in parts of it, after so many rounds of quick growth. A burst hurts more
/// where the other way is full.
fn quick_growth(rounds: u8, base: Duration, is_other_way_busy: bool) -> f64 {
    let most = if rounds == 0 {
        QUICK_GROWTH
    } else {
        QUICKER_GROWTH
    };
    if !is_other_way_busy {
        return most;
    }
    let queue = QUICK_QUEUE.saturating_mul(2_u32.saturating_pow(rounds.into()));
    most.min(queue.as_secs_f64() / base.as_secs_f64().max(1e-6))
}

#[cfg(test)]
mod tests;
