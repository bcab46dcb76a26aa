//! Delay that varies from one message to the next, as in the slots of a cell: it looks like a queue, but
//! a smaller window does not make it less.

use std::time::Duration;

use super::BURST;

/// Rounds that all have to show it: a queue that grows or shortens varies in some of them.
const ROUNDS: usize = 4;
/// Messages that a round needs to show it.
const LEAST: u32 = 4;
/// The most that is jitter: what varies more is a burst, and what is longer a queue.
const MOST: Duration = Duration::from_millis(10);
/// What varies by this more than bursts may is jitter for certain, which delays all messages: they
/// arrive in order, and wait for the one that takes longest.
const CLEAR: Duration = Duration::from_millis(1);

/// How much the delay varies.
#[derive(Debug, Clone, Default)]
pub(super) struct Jitter {
    /// The longest queue of this round, and how many were measured.
    longest: Duration,
    count: u32,
    /// How much longer than the shortest it was in the last rounds, newest first.
    last: [Duration; ROUNDS],
}

impl Jitter {
    /// A message has waited for so long.
    pub(super) fn waited(&mut self, queue: Duration) {
        self.longest = self.longest.max(queue);
        self.count = self.count.saturating_add(1);
    }

    /// A round has ended with this shortest queue. While the other way is busy, acknowledgements come
    /// several at a time, and what varies are the bursts that these release.
    pub(super) fn end_round(&mut self, shortest: Duration, is_other_way_busy: bool) {
        let longest = std::mem::take(&mut self.longest);
        if std::mem::take(&mut self.count) < LEAST {
            return;
        }
        self.last.rotate_right(1);
        if let Some(last) = self.last.first_mut() {
            *last = if is_other_way_busy {
                Duration::ZERO
            } else {
                longest.saturating_sub(shortest)
            };
        }
    }

    /// A round has ended that shows nothing: others have used the path, or the window was another.
    pub(super) fn skip_round(&mut self) {
        self.longest = Duration::ZERO;
        self.count = 0;
    }

    /// How much of this shortest queue is jitter. The window's own bursts vary the delay too, and so do
    /// chunks, of which one takes this long.
    pub(super) fn part_of(&self, shortest: Duration, chunk: Duration) -> Duration {
        let least = self.last.iter().min().copied().unwrap_or_default();
        if least > MOST || shortest > 2 * MOST {
            return Duration::ZERO;
        }
        let beyond = least.saturating_sub(BURST + 2 * chunk);
        let part = if beyond < CLEAR { 2 * beyond } else { MOST };
        part.min(shortest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: Duration = Duration::from_millis(1);
    const QUEUE: Duration = Duration::from_millis(9);

    /// Rounds in which messages wait between these milliseconds.
    fn rounds(jitter: &mut Jitter, count: usize, shortest: u64, longest: u64, is_busy: bool) {
        for _ in 0..count {
            for wait in [shortest, longest, shortest, longest] {
                jitter.waited(Duration::from_millis(wait));
            }
            jitter.end_round(Duration::from_millis(shortest), is_busy);
        }
    }

    #[test]
    fn what_varies_in_each_of_the_last_rounds_is_jitter() {
        let mut jitter = Jitter::default();
        rounds(&mut jitter, ROUNDS - 1, 4, 12, false);
        assert_eq!(jitter.part_of(QUEUE, CHUNK), Duration::ZERO);
        rounds(&mut jitter, 1, 4, 12, false);
        assert_eq!(jitter.part_of(QUEUE, CHUNK), QUEUE);
        assert_eq!(jitter.part_of(2 * QUEUE, CHUNK), MOST);
        assert_eq!(jitter.part_of(3 * QUEUE, CHUNK), Duration::ZERO, "a queue");
        // What the window's own chunks may cause does not count.
        assert_eq!(jitter.part_of(QUEUE, 9 * CHUNK / 4), CHUNK);
        assert_eq!(jitter.part_of(QUEUE, 3 * CHUNK), Duration::ZERO);
        rounds(&mut jitter, 1, 4, 5, false);
        assert_eq!(jitter.part_of(QUEUE, CHUNK), Duration::ZERO);
    }

    #[test]
    fn bursts_are_not_jitter() {
        let mut jitter = Jitter::default();
        rounds(&mut jitter, ROUNDS, 4, 15, false);
        assert_eq!(jitter.part_of(QUEUE, CHUNK), Duration::ZERO);
        rounds(&mut jitter, ROUNDS, 4, 12, true);
        assert_eq!(jitter.part_of(QUEUE, CHUNK), Duration::ZERO);
    }

    #[test]
    fn a_round_with_few_messages_shows_nothing() {
        let mut jitter = Jitter::default();
        rounds(&mut jitter, ROUNDS, 4, 12, false);
        jitter.waited(Duration::from_millis(4));
        jitter.end_round(Duration::from_millis(4), false);
        assert_eq!(jitter.part_of(QUEUE, CHUNK), QUEUE);
    }
}
