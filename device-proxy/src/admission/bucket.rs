//! A token bucket whose rate is an argument, so that it may change at any time. It may go into debt:
//! bytes are counted after they were copied, and the next ones wait.

use std::sync::Mutex;
use std::time::Duration;

use common::locks::lock;
use tokio::time::Instant;

/// Filled up to one second's worth.
#[derive(Debug, Default)]
pub(super) struct Bucket(Mutex<Option<Level>>);

#[derive(Debug, Clone, Copy)]
struct Level {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    /// Takes one, if there is one; `rate` come in each second.
    pub(super) fn try_take(&self, rate: u32) -> bool {
        self.with(f64::from(rate), |tokens| {
            let has_one = *tokens >= 1.0;
            if has_one {
                *tokens -= 1.0;
            }
            has_one
        })
    }

    /// Takes so many, and returns how long to wait before the next.
    pub(super) fn charge(&self, amount: usize, rate: u64) -> Duration {
        #[expect(
            clippy::cast_precision_loss,
            reason = "a rate of 2^53 is as good as any"
        )]
        let (amount, rate) = (amount as f64, rate.max(1) as f64);
        self.with(rate, |tokens| {
            *tokens -= amount;
            let wait = Duration::try_from_secs_f64((-*tokens).max(0.0) / rate);
            wait.unwrap_or(Duration::MAX)
        })
    }

    /// How long to wait until all is paid that was taken.
    pub(super) fn owed(&self, rate: u64) -> Duration {
        self.charge(0, rate)
    }

    fn with<T>(&self, rate: f64, take: impl FnOnce(&mut f64) -> T) -> T {
        let mut level = lock(&self.0);
        let now = Instant::now();
        let mut tokens = match *level {
            None => rate,
            Some(Level { tokens, at }) => {
                let passed = now.saturating_duration_since(at).as_secs_f64();
                (tokens + passed * rate).min(rate)
            }
        };
        let taken = take(&mut tokens);
        *level = Some(Level { tokens, at: now });
        taken
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn so_many_come_in_a_second() {
        let bucket = Bucket::default();
        let taken = |rate| (0..10).filter(|_| bucket.try_take(rate)).count();
        assert_eq!(taken(3), 3);
        advance(Duration::from_millis(700)).await;
        assert_eq!(taken(3), 2);
        advance(Duration::from_secs(60)).await;
        assert_eq!(taken(3), 3, "what was not used is not kept");
        advance(Duration::from_secs(1)).await;
        assert_eq!(taken(5), 5, "the rate has changed");
    }

    #[tokio::test(start_paused = true)]
    async fn a_debt_is_waited_for() {
        let bucket = Bucket::default();
        assert_eq!(bucket.charge(1000, 1000), Duration::ZERO);
        let mut copied = 0;
        let started = Instant::now();
        while copied < 10_000 {
            copied += 500;
            advance(bucket.charge(500, 1000)).await;
        }
        assert_eq!(started.elapsed().as_secs(), 10);
        assert_eq!(bucket.charge(1, u64::MAX), Duration::ZERO);
        let bucket = Bucket::default();
        assert_eq!(bucket.charge(1_000_001, 1).as_secs(), 1_000_000);
        assert_eq!(bucket.owed(2).as_secs(), 500_000, "the rate was raised");
    }
}
