//! One direction of a stream whose bytes are limited. It takes bytes from the accounts in lumps,
//! and then spends them without looking at anything that is shared; where an account is behind, it
//! reads no more until its turn comes, and the sender is slowed by the network.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

use super::account::Account;
use crate::limits::{Limit, Over, Whose};

/// The largest lump: a message,
const LUMP: u64 = 64 << 10;
/// and the smallest.
const LEAST_LUMP: u64 = 1 << 10;
/// A lump is at most so much of what the rate gives in a second: a stream does not stand still for
/// long, and takes no more than its turn.
const LUMPS_PER_SECOND: u64 = 20;

/// What one direction of a stream may move.
#[derive(Debug)]
pub struct Meter {
    /// The next lump at most: twice the last one.
    lump: u64,
    accounts: Vec<(Whose, Arc<Account>)>,
    /// The hub's clock began then.
    began: Instant,
    /// Bytes that were taken and not spent; below zero: spent before they were taken.
    left: i64,
    turn: Option<Pin<Box<Sleep>>>,
}

impl Meter {
    /// That these accounts give, at least one of which is limited.
    pub(super) fn new(accounts: Vec<(Whose, Arc<Account>)>, began: Instant) -> Self {
        Self {
            lump: LEAST_LUMP,
            accounts,
            began,
            left: 0,
            turn: None,
        }
    }

    /// Ready when something may be moved.
    ///
    /// # Errors
    /// [`Over`] when nothing is left of the day. Then this is of no more use.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Over>> {
        // What comes first is moved before it is taken: a stream on which nothing happens holds
        // nothing.
        if self.left < 0 {
            self.take()?;
        }
        if let Some(turn) = &mut self.turn {
            ready!(turn.as_mut().poll(cx));
            self.turn = None;
        }
        Poll::Ready(Ok(()))
    }

    /// So many bytes were moved.
    pub fn spend(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub_unsigned(bytes as u64);
    }

    fn take(&mut self) -> Result<(), Over> {
        let rates = self
            .accounts
            .iter()
            .filter_map(|(_, account)| account.rate());
        let most = rates.min().map_or(LUMP, |rate| {
            (rate / LUMPS_PER_SECOND).clamp(LEAST_LUMP, LUMP)
        });
        let lump = self.lump.min(most);
        self.lump = lump.saturating_mul(2);
        let bytes = lump.saturating_add(self.left.unsigned_abs());
        for (place, (whose, account)) in self.accounts.iter().enumerate() {
            if !account.take_of_day(bytes) {
                for (_, other) in self.accounts.iter().take(place) {
                    other.give_back(bytes);
                }
                return Err(Over {
                    limit: Limit::BytesPerDay,
                    whose: *whose,
                    retry_after: super::day::until_next(),
                });
            }
        }
        let now = self.began.elapsed();
        let waits = self
            .accounts
            .iter()
            .map(|(_, account)| account.take(bytes, now));
        let wait = waits.max().unwrap_or_default();
        self.left = self.left.saturating_add_unsigned(bytes);
        if wait > Duration::ZERO {
            self.turn = Some(Box::pin(sleep(wait)));
        }
        Ok(())
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if let Ok(left) = u64::try_from(self.left) {
            for (_, account) in &self.accounts {
                account.give_back(left);
            }
        } else {
            // What was spent last was not taken yet.
            for (_, account) in &self.accounts {
                account.take_of_day(self.left.unsigned_abs());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;
    use crate::limits::Share;

    fn account(share: Share) -> Arc<Account> {
        let account = Arc::new(Account::default());
        account.set(&share);
        account
    }

    async fn spend(meter: &mut Meter, message: usize) -> Result<(), Over> {
        poll_fn(|cx| meter.poll_ready(cx)).await?;
        meter.spend(message);
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn the_slowest_account_sets_the_pace() {
        for (rates, message) in [
            ([50_000, 1_000_000], 4_000),
            ([1_000_000, 50_000], 60_000),
            ([0, 50_000], 100),
        ] {
            let began = Instant::now();
            let accounts = rates.map(|rate| {
                let account = account(Share::NONE.with(Limit::BytesPerSecond, rate));
                (Whose::Device, account)
            });
            let mut meter = Meter::new(accounts.into(), began);
            let mut moved = 0;
            while began.elapsed() < Duration::from_secs(60) {
                spend(&mut meter, message).await.unwrap();
                moved += message;
            }
            // A minute's, the second ahead, and the message on the way.
            assert!((2_900_000..3_200_000).contains(&moved), "{rates:?} {moved}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn two_streams_have_half_each() {
        let began = Instant::now();
        let shared = account(Share::NONE.with(Limit::BytesPerSecond, 100_000));
        let run = async |message| {
            let mut meter = Meter::new(vec![(Whose::Policy, Arc::clone(&shared))], began);
            let mut moved = 0;
            while began.elapsed() < Duration::from_secs(30) {
                spend(&mut meter, message).await.unwrap();
                moved += message;
            }
            moved
        };
        let (small, large) = tokio::join!(run(1_000), run(1_000));
        assert!(small.abs_diff(large) < 200_000, "{small} {large}");
        assert!((2_900_000..3_200_000).contains(&(small + large)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_day_ends_a_stream_and_counts_what_was_moved() {
        let began = Instant::now();
        let hub = account(Share::NONE);
        let day = account(Share::NONE.with(Limit::BytesPerDay, 200_000));
        let accounts = || {
            vec![
                (Whose::Hub, Arc::clone(&hub)),
                (Whose::Device, Arc::clone(&day)),
            ]
        };
        let mut meter = Meter::new(accounts(), began);
        for _ in 0..100 {
            spend(&mut meter, 1_000).await.unwrap();
        }
        drop(meter);
        assert_eq!(
            day.unstored(),
            Some(100_000),
            "and nothing that was not moved"
        );
        let mut meter = Meter::new(accounts(), began);
        let mut moved = 0;
        let over = loop {
            match spend(&mut meter, 1_000).await {
                Ok(()) => moved += 1_000,
                Err(over) => break over,
            }
        };
        assert_eq!(
            (over.limit, over.whose),
            (Limit::BytesPerDay, Whose::Device)
        );
        assert!(
            (100_000..100_000 + LUMP as usize + 1_000).contains(&moved),
            "{moved}"
        );
        assert!(over.retry_after <= Duration::from_secs(24 * 3600));
        assert_eq!(
            hub.unstored(),
            None,
            "nothing is counted where there is no limit"
        );
    }
}
