//! Whose queue it is: the window's own, another's, or a part of a path that has become longer. A
//! smaller window shortens only its own.

use std::time::{Duration, Instant};

use super::path::Path;
use super::rates::Rates;
use super::{Phase, RISING, Round, TARGET_QUEUE, Window};
use crate::limits;

/// Changes in a row without an effect on the queue, after which it is another's.
const FUTILE: u8 = 2;
/// A longer one than this, a fiftieth of the path and a chunk may be another's.
const ANOTHERS: Duration = Duration::from_micros(6500);
/// Rounds in a row with a queue after which it is drained, to see whose it is.
const STANDING: u8 = 8;
/// The part of the path's capacity that is used while the idle path is measured.
const DRAINED: f64 = 0.75;
/// A contended path is drained after this time, to see whether it still is contended: a test costs
/// some two round trips. Not before so many rounds, but sooner when the rate has grown much.
const TEST_TIME: Duration = Duration::from_secs(4);
const TEST_ROUNDS: u32 = 8;
const TEST_SOON: u32 = 4;
/// Rounds until a test that has found no queue is repeated, and tests that have to agree.
const TEST_AGAIN: u32 = 2;
pub(super) const EMPTY_TESTS: u8 = 2;
/// Twice as many have to agree each time that the path is contended again within this time, up to
/// this number: another's queue is empty for a moment after each of its losses.
const MOST_EMPTY_TESTS: u8 = 8;
const REMEMBERED: Duration = Duration::from_secs(10);
/// How often in a row the drained path has to be longer by the same time until it counts as
/// changed, and the same for a contended one: a queue of others is rarely the same.
const CHANGED: u8 = 3;
const CHANGED_CONTENDED: u8 = 12;

/// What the last smaller window was to change.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Trial {
    /// The queue before it, and the one that was expected after it.
    pub(super) queue: Option<(Duration, Duration)>,
    /// The window before the first of those that changed nothing.
    pub(super) before: u64,
    pub(super) futile: u8,
}

/// What is known of a path that others use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Contended {
    /// Rounds since the last test, and its time.
    rounds: u32,
    /// `None` before the first one, which is soon: it may have been TCP's own recovery.
    tested: Option<Instant>,
    /// The queue that the test found: another's.
    pub(super) queue: Duration,
    /// The rate at that time; much more means that the other has left.
    rate: f64,
    empty: u8,
}

impl Trial {
    /// The queue, and the present window: whether the last smaller ones have had no effect on it.
    pub(super) fn is_futile(&mut self, queue: Duration, size: u64) -> bool {
        if let Some((before, expected)) = self.queue.take() {
            // Half of the effect is enough: the queue of a path varies.
            let is_futile = queue > expected + before.saturating_sub(expected) / 2;
            self.futile = if is_futile { self.futile + 1 } else { 0 };
        }
        if self.futile == 0 {
            self.before = size;
        }
        self.futile >= FUTILE
    }
}

impl Contended {
    /// A round has ended: whether it is time to see who uses the path.
    pub(super) fn is_due(&mut self, rates: &Rates, is_rising: bool, now: Instant) -> bool {
        self.rounds += 1;
        let has_left = rates.latest() > RISING * self.rate && !is_rising;
        let is_again = self.empty > 0 && self.rounds >= TEST_AGAIN;
        let least = match self.tested {
            Some(tested) if now - tested < TEST_TIME => u32::MAX,
            Some(_) => TEST_ROUNDS,
            None => TEST_SOON,
        };
        is_again || self.rounds >= least || has_left && self.rounds >= TEST_SOON
    }
}

impl Window {
    /// The queue is another's.
    pub(super) fn contend(&mut self, queue: Duration, now: Instant) {
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
            rate: self.rates.usual(),
            empty: 0,
        });
    }

    /// A queue that may be another's.
    pub(super) fn anothers(&self) -> Duration {
        self.long() + self.chunk_time()
    }

    /// The same, but for the wait of a chunk, which may be long on a slow path.
    fn long(&self) -> Duration {
        ANOTHERS + self.base() / 50
    }

    /// Drains the queue, if it has stood for so long that it may be another's or a part of the path,
    /// and `may_drain`.
    pub(super) fn look_at_path(&mut self, queue: Duration, may_drain: bool, now: Instant) {
        self.standing = if queue >= self.long() {
            self.standing.saturating_add(1)
        } else {
            0
        };
        let is_due = self.path.is_old(now) || self.standing >= STANDING;
        if may_drain && is_due && self.round != Round::Draining {
            self.path.is_looked_at(now);
            self.standing = 0;
            self.before_drain = queue;
            self.drain();
        }
    }

    /// Drains the queue, but little of the path: refilling an empty path would cause a burst, and
    /// thus a queue for all others.
    pub(super) fn drain(&mut self) {
        let drained = (self.rates.usual() * self.base().as_secs_f64() * DRAINED) as u64;
        self.ceiling = drained.clamp(2 * limits::CHUNK_LEAST as u64, self.size);
        self.round = Round::Draining;
    }

    /// The shortest queue after ours was drained.
    pub(super) fn drained(&mut self, queue: Duration, now: Instant) {
        let is_empty = queue < TARGET_QUEUE + self.base() / 16;
        let path = self.rates.usual() * (self.base() + TARGET_QUEUE).as_secs_f64();
        let long = self.long();
        let is_longer = |path: &mut Path, times| !is_empty && path.drained(queue, times);
        match &mut self.phase {
            Phase::Contended(contended) => {
                contended.rounds = 0;
                contended.tested = Some(now);
                contended.empty = if is_empty { contended.empty + 1 } else { 0 };
                contended.queue = queue;
                contended.rate = self.rates.usual();
                let has_left = contended.empty >= self.needed;
                if has_left || is_longer(&mut self.path, CHANGED_CONTENDED) {
                    self.left = Some(now);
                    self.phase = Phase::Alone(Trial::default());
                    self.set(path as u64);
                }
                self.is_ours = false;
            }
            Phase::Start | Phase::Alone(_) => {
                self.is_ours = is_empty;
                let is_others = queue >= long && queue > self.before_drain * 3 / 4;
                if is_longer(&mut self.path, CHANGED) {
                    return;
                }
                if is_others {
                    self.contend(queue, now);
                }
            }
        }
        if is_empty {
            self.path.is_confirmed();
        }
    }
}
