//! Jittered, capped exponential backoff (of the `backon` library), with a reset.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};

/// The delays between attempts that fail in a row.
#[derive(Debug)]
pub struct Backoff {
    builder: ExponentialBuilder,
    delays: ExponentialBackoff,
    longest: Duration,
}

impl Backoff {
    /// Starts at about `shortest`, doubles, and stays at about `longest`; every delay is jittered.
    pub fn new(shortest: Duration, longest: Duration) -> Self {
        let builder = ExponentialBuilder::new()
            .with_min_delay(shortest)
            .with_max_delay(longest)
            .without_max_times()
            .with_jitter();
        Self {
            delays: builder.build(),
            builder,
            longest,
        }
    }

    /// How long to wait before the next attempt.
    pub fn next_delay(&mut self) -> Duration {
        self.delays.next().unwrap_or(self.longest)
    }

    /// Starts again at the shortest delay, after a success.
    pub fn reset(&mut self) {
        self.delays = self.builder.build();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_cap_and_are_reset() {
        let (short, long) = (Duration::from_millis(100), Duration::from_secs(5));
        let mut backoff = Backoff::new(short, long);
        let delays: Vec<_> = (0..200).map(|_| backoff.next_delay()).collect();
        assert!(
            delays.iter().all(|d| *d >= short && *d <= 2 * long),
            "{delays:?}"
        );
        assert!(delays.iter().skip(10).all(|d| *d >= long));
        backoff.reset();
        assert!(backoff.next_delay() <= 2 * short);
    }
}
