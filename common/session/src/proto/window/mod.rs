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

mod path;
mod rates;

use std::time::{Duration, Instant};

use crate::limits;
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
/// The idle path is measured again after this time without a queue-free acknowledgement.
const BASE_LIFE: Duration = Duration::from_secs(10);
/// Round trips in a row that show a queue, at which the fast growth pauses.
const LATEST: usize = 4;
/// Limited rounds in a row without any queue after which the path is considered wider than it was,
/// or the first growth too short; and the growth then, at first and from the next round on.
const QUICK_ROUNDS: u8 = 3;
const QUICK_GROWTH: f64 = 1.25;
const QUICKER_GROWTH: f64 = 1.6;
/// The part of the path's capacity that is used while the idle path is measured.
const DRAINED: f64 = 0.75;
/// The smallest part that one change leaves.
const SHRINKAGE: f64 = 0.5;
/// Growth of the delivery rate from one round to the next that shows that TCP grows and the path is
/// not full (BBR uses the same number to detect the end of its startup).
const RISING: f64 = 1.25;
/// Changes in a row without an effect on the queue, after which it is another's.
const FUTILE: u8 = 2;
/// A contended path is drained after this time, to see whether it still is contended: a test costs
/// some two round trips. Not before so many rounds, but sooner when the rate has grown much.
const TEST_TIME: Duration = Duration::from_secs(4);
const TEST_ROUNDS: u32 = 8;
const TEST_SOON: u32 = 4;
/// Rounds until a test that has found no queue is repeated, and tests that have to agree.
const TEST_AGAIN: u32 = 2;
const EMPTY_TESTS: u8 = 2;
/// Twice as many have to agree each time that the path is contended again within this time, up to
/// this number: another's queue is empty for a moment after each of its losses.
const MOST_EMPTY_TESTS: u8 = 8;
const REMEMBERED: Duration = Duration::from_secs(10);
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

/// What the last smaller window was to change.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Trial {
    /// The queue before it, and the one that was expected after it.
    queue: Option<(Duration, Duration)>,
    /// The window before the first of those that changed nothing.
    before: u64,
    futile: u8,
}

/// What is known of a path that others use.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Contended {
    /// Rounds since the last test, and its time.
    rounds: u32,
    /// `None` before the first one, which is soon: it may have been TCP's own recovery.
    tested: Option<Instant>,
    /// The queue that the test found: another's.
    queue: Duration,
    /// The rate at that time; much more means that the other has left.
    rate: f64,
    empty: u8,
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

/// What a round has shown.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// The shortest queue.
    queue: Duration,
    /// The window limited the sender.
    was_limited: bool,
    /// So much was sent that the window could have caused a queue.
    was_used: bool,
    /// More was sent than a person types.
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
    quick_rounds: u8,
    /// When the path was no longer contended, and how many tests had to say so.
    left: Option<Instant>,
    needed: u8,
    /// Shortest queue of this round.
    shortest: Option<Duration>,
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
}

impl Window {
    /// For a new carrier, on which the next byte has this offset.
    pub fn new(next: u64) -> Self {
        Self {
            size: limits::WINDOW_FIRST,
            phase: Phase::Start,
            round: Round::Measured,
            path: Path::default(),
            quick_rounds: 0,
            left: None,
            needed: EMPTY_TESTS,
            shortest: None,
            latest: [None; LATEST],
            round_end: next,
            rates: Rates::default(),
            limited: false,
            ceiling: u64::MAX,
        }
    }

    /// Bytes that may be in flight.
    pub fn size(&self) -> u64 {
        self.size.min(self.ceiling)
    }

    /// Bytes of one connection that may be sent in one piece: a small part of the window, so that
    /// others wait only briefly.
    pub fn chunk(&self) -> usize {
        let share = usize::try_from(self.size / 16).unwrap_or(usize::MAX);
        share.clamp(limits::CHUNK_LEAST, limits::CHUNK)
    }

    /// After how many bytes an acknowledgement is requested.
    pub fn ack_every(&self) -> u64 {
        self.size() / 16
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
            self.shortest = Some(self.shortest.map_or(queue, |known| known.min(queue)));
            self.latest.rotate_right(1);
            if let Some(latest) = self.latest.first_mut() {
                *latest = Some(queue);
            }
        }
        self.rates.deliver(newly);
        if !matches!(self.round, Round::Draining | Round::Drained) && self.ceiling < self.size {
            self.ceiling = self.ceiling.saturating_add(newly);
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
        let Some(queue) = self.shortest.take() else {
            return;
        };
        let seen = Seen {
            queue,
            was_limited,
            was_used: was_limited || delivered >= self.size / 2,
            is_bulk: delivered >= limits::WINDOW_LEAST / 2,
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
            queue, was_limited, ..
        } = seen;
        // While the rate rises, TCP's window grows: bytes wait for that and not on the path, and
        // TCP grows no further than it is used. A window that was hardly used causes no queue.
        let is_explained = seen.is_rising || !seen.was_used;
        match &mut self.phase {
            Phase::Start => {
                if queue >= TARGET_QUEUE && !is_explained {
                    self.phase = Phase::Alone(Trial::default());
                    self.adapt(queue, now);
                }
            }
            Phase::Alone(trial) => {
                if queue >= TARGET_QUEUE && is_explained {
                    trial.queue = None;
                } else if was_limited || queue > TARGET_QUEUE {
                    let is_quick = was_limited && queue < TARGET_QUEUE / 16;
                    self.quick_rounds = if is_quick {
                        self.quick_rounds.saturating_add(1)
                    } else {
                        0
                    };
                    self.adapt(queue, now);
                }
            }
            Phase::Contended(contended) => {
                contended.rounds += 1;
                let rounds = contended.rounds;
                let has_left = self.rates.latest() > RISING * contended.rate && !seen.is_rising;
                let is_again = contended.empty > 0 && rounds >= TEST_AGAIN;
                let least = match contended.tested {
                    Some(tested) if now - tested < TEST_TIME => u32::MAX,
                    Some(_) => TEST_ROUNDS,
                    None => TEST_SOON,
                };
                let is_due = is_again || rounds >= least || has_left && rounds >= TEST_SOON;
                if is_due && seen.is_bulk {
                    self.drain();
                }
                return;
            }
        }
        if was_limited && self.round != Round::Draining && self.path.is_old(now) {
            self.drain();
        }
    }

    /// Adapts the window to the delay, and sees whether the last adaptation had an effect.
    fn adapt(&mut self, queue: Duration, now: Instant) {
        let Phase::Alone(mut trial) = self.phase else {
            return;
        };
        let base = self.base();
        let rate = self.size as f64 / (base + queue).as_secs_f64().max(1e-6);
        if let Some((before, expected)) = trial.queue.take() {
            // Half of the effect is enough: the queue of a path varies.
            let is_futile = queue > expected + (before.saturating_sub(expected)) / 2;
            trial.futile = if is_futile { trial.futile + 1 } else { 0 };
        }
        if trial.futile == 0 {
            trial.before = self.size;
        }
        if trial.futile >= FUTILE {
            // Smaller windows were given up for nothing.
            self.set(trial.before.max(self.size));
            self.round = Round::Settling(1);
            let is_again = self.left.is_some_and(|left| now - left < REMEMBERED);
            self.needed = if is_again {
                (2 * self.needed).min(MOST_EMPTY_TESTS)
            } else {
                EMPTY_TESTS
            };
            self.phase = Phase::Contended(Contended {
                rounds: 0,
                tested: None,
                queue,
                rate: self.rates.best(),
                empty: 0,
            });
            return;
        }
        let kept = (rate * TARGET_QUEUE.as_secs_f64() * KEPT_IN_QUEUE).sqrt();
        let kept = kept.min(rate * MOST_QUEUE.as_secs_f64());
        let wanted = rate * base.as_secs_f64() + kept;
        let size = self.size as f64;
        let wanted = match self.quick_rounds {
            0..QUICK_ROUNDS => wanted.clamp(SHRINKAGE * size, QUICK_GROWTH * size),
            QUICK_ROUNDS => QUICK_GROWTH * size,
            _ => QUICKER_GROWTH * size,
        };
        let shorter = Duration::from_secs_f64(((size - wanted) / rate.max(1.0)).max(0.0));
        self.set(wanted as u64);
        if self.size as f64 >= 0.98 * size {
            trial.futile = 0;
        } else if queue >= 2 * TARGET_QUEUE {
            trial.queue = Some((queue, queue.saturating_sub(shorter)));
        }
        self.phase = Phase::Alone(trial);
        self.round = Round::Settling(1);
    }

    /// Drains the queue, but little of the path: refilling an empty path would cause a burst, and
    /// thus a queue for all others.
    fn drain(&mut self) {
        let drained = (self.rates.best() * self.base().as_secs_f64() * DRAINED) as u64;
        self.ceiling = drained.clamp(2 * limits::CHUNK_LEAST as u64, self.size);
        self.round = Round::Draining;
    }

    /// The shortest queue after ours was drained.
    fn drained(&mut self, queue: Duration, now: Instant) {
        let is_empty = queue < TARGET_QUEUE + self.base() / 16;
        match &mut self.phase {
            Phase::Contended(contended) => {
                contended.rounds = 0;
                contended.tested = Some(now);
                contended.empty = if is_empty { contended.empty + 1 } else { 0 };
                if contended.empty >= self.needed {
                    self.left = Some(now);
                    self.phase = Phase::Alone(Trial::default());
                    let path = self.rates.best() * (self.base() + TARGET_QUEUE).as_secs_f64();
                    self.set(path as u64);
                    return;
                }
                contended.queue = queue;
                contended.rate = self.rates.best();
            }
            Phase::Start | Phase::Alone(_) => self.path.is_idle(queue, now),
        }
    }

    fn set(&mut self, size: u64) {
        self.size = size.clamp(limits::WINDOW_LEAST, limits::WINDOW_MOST);
    }
}

#[cfg(test)]
mod tests;
