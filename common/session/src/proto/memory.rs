//! The memory of all sessions of a program, shared among them. No lock and no clock.
//!
//! A session may hold as much as is free (the *dynamic threshold* of switches that share a buffer):
//! one alone gets half of the memory, the next half of the rest, and some is left for later ones.
//! The threshold of a stuck session falls as others begin, and it takes nothing more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::limits;

/// Bytes that each session may hold in any case: enough to continue slowly.
const FLOOR: u64 = 64 << 10;

/// The memory of a program's sessions, in bytes.
#[derive(Debug)]
pub struct Memory {
    limit: u64,
    used: AtomicU64,
    /// Credit beyond the first that peers have: bytes that they may send although nobody reads.
    lent: AtomicU64,
}

impl Memory {
    /// A memory of `limit` bytes, all of them free.
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            limit,
            used: AtomicU64::new(0),
            lent: AtomicU64::new(0),
        })
    }

    /// Without a limit.
    pub fn unlimited() -> Arc<Self> {
        Self::new(u64::MAX)
    }

    /// For how many connections there is room when each peer uses its initial credit and nothing is
    /// read: that credit cannot be withdrawn.
    pub fn connections(&self) -> usize {
        usize::try_from(self.limit / limits::CREDIT_FIRST).unwrap_or(usize::MAX)
    }

    /// Bytes that all sessions hold.
    pub fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }
}

/// The account of one session.
#[derive(Debug)]
pub(super) struct Account {
    memory: Arc<Memory>,
    held: AtomicU64,
    lent: AtomicU64,
}

impl Account {
    pub(super) fn new(memory: Arc<Memory>) -> Arc<Self> {
        Arc::new(Self {
            memory,
            held: AtomicU64::new(0),
            lent: AtomicU64::new(0),
        })
    }

    /// Takes up to so many bytes of credit for the peer, while all sessions have lent less than half
    /// of the memory; how many it are.
    pub(super) fn lend(&self, bytes: u64) -> u64 {
        let most = self.memory.limit / 2;
        let mut granted = 0;
        let _ = self.memory.lent.fetch_update(Relaxed, Relaxed, |lent| {
            granted = bytes.min(most.saturating_sub(lent));
            Some(lent + granted)
        });
        self.lent.fetch_add(granted, Relaxed);
        granted
    }

    /// The peer has no more use for this credit.
    pub(super) fn return_credit(&self, bytes: u64) {
        self.lent.fetch_sub(bytes, Relaxed);
        self.memory.lent.fetch_sub(bytes, Relaxed);
    }

    /// Whether the session may take more.
    pub(super) fn may_take(&self) -> bool {
        let free = self.memory.limit.saturating_sub(self.memory.used());
        self.held.load(Relaxed) < free.max(FLOOR)
    }

    fn change(&self, before: u64, now: u64) {
        for sum in [&self.held, &self.memory.used] {
            if now > before {
                sum.fetch_add(now - before, Relaxed);
            } else {
                sum.fetch_sub(before - now, Relaxed);
            }
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.memory.lent.fetch_sub(*self.lent.get_mut(), Relaxed);
    }
}

/// The bytes of one part of a session; released when this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    account: Arc<Account>,
    bytes: u64,
}

impl Held {
    pub(super) fn new(account: &Arc<Account>) -> Self {
        Self {
            account: Arc::clone(account),
            bytes: 0,
        }
    }

    /// Sets the current number.
    pub(super) fn set(&mut self, bytes: u64) {
        if bytes != self.bytes {
            self.account.change(self.bytes, bytes);
            self.bytes = bytes;
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_that_take_all_that_they_may_leave_some_for_others() {
        let memory = Memory::new(64 << 20);
        let mut sessions = Vec::new();
        for _ in 0..100 {
            let account = Account::new(Arc::clone(&memory));
            let mut held = Held::new(&account);
            let mut bytes = 0;
            while account.may_take() {
                bytes += 64 << 10;
                held.set(bytes);
            }
            sessions.push((account, held));
        }
        let held = |number: usize| sessions[number].1.bytes >> 20;
        assert_eq!([held(0), held(1), held(2)], [32, 16, 8]);
        assert!(sessions.iter().all(|(_, held)| held.bytes >= FLOOR));
        assert!(memory.used() < (64 << 20) + 100 * FLOOR);
        drop(sessions);
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn all_sessions_lend_half_of_the_memory_and_have_it_again_when_they_are_over() {
        let memory = Memory::new(64 << 20);
        let account = || Account::new(Arc::clone(&memory));
        let (first, second, third) = (account(), account(), account());
        assert_eq!(first.lend(20 << 20), 20 << 20);
        assert_eq!(second.lend(20 << 20), 12 << 20);
        assert_eq!(third.lend(1), 0);
        second.return_credit(5 << 20);
        assert_eq!(third.lend(20 << 20), 5 << 20);
        drop(first);
        assert_eq!(second.lend(64 << 20), 20 << 20);
    }
}
