//! Spaces a window over its round trip. Acknowledgements that have waited in the queue of the way back
//! come several at a time, and what they release would be a burst: a queue on the way there, for the
//! acknowledgements of the other direction, and so on.

use std::time::{Duration, Instant};

/// A window is sent at so many times the rate at which it would last for an idle round trip.
const PACE: f64 = 1.1;
/// The shortest round trip for which it is.
const SHORTEST: Duration = Duration::from_millis(4);
/// What may be sent at once after a timer was late: Windows' timers are by up to 15.6 ms.
const LATE: Duration = Duration::from_millis(if cfg!(windows) { 16 } else { 3 });

/// Until when bulk has to wait.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pace(Option<Instant>);

impl Pace {
    pub(super) fn until(self) -> Option<Instant> {
        self.0
    }

    /// So many bytes of a window of this size are sent.
    pub(super) fn sent(&mut self, bytes: u64, window: u64, base: Duration, now: Instant) {
        self.0 = (base >= SHORTEST).then(|| {
            let took = base.as_secs_f64() * bytes as f64 / (PACE * window as f64);
            let earliest = now.checked_sub(LATE).unwrap_or(now);
            let from = self.0.map_or(now, |until| until.max(earliest));
            from + Duration::from_secs_f64(took)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_lasts_for_most_of_a_round_trip_and_a_late_timer_costs_nothing() {
        let ms = Duration::from_millis;
        let start = Instant::now();
        let mut pace = Pace::default();
        let mut send = |at: Duration| {
            pace.sent(100, 1000, ms(55), start + at);
            pace.until().map(|until| until - start)
        };
        assert_eq!(send(ms(0)), Some(ms(5)));
        // The timer is 2 ms late, and then too late.
        assert_eq!(send(ms(7)), Some(ms(10)));
        assert_eq!(send(ms(100)), Some(ms(100) + ms(5) - LATE));
    }

    #[test]
    fn nothing_waits_on_a_short_path() {
        let mut pace = Pace::default();
        pace.sent(100, 100, Duration::from_millis(3), Instant::now());
        assert_eq!(pace.until(), None);
    }
}
