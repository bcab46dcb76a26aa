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
    limit: AtomicU64,
    used: AtomicU64,
    /// Credit beyond the first that peers have: bytes that they may send although nobody reads.
    lent: AtomicU64,
}

impl Memory {
    /// A memory of `limit` bytes, all of them free.
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            limit: AtomicU64::new(limit),
            used: AtomicU64::new(0),
            lent: AtomicU64::new(0),
        })
    }

    /// Without a limit.
    pub fn unlimited() -> Arc<Self> {
        Self::new(u64::MAX)
    }

    /// From now on there are so many bytes. What is held already stays.
    pub fn set_limit(&self, limit: u64) {
        self.limit.store(limit, Relaxed);
    }

    fn limit(&self) -> u64 {
        self.limit.load(Relaxed)
    }

    /// For how many connections there is room when each peer uses its initial credit and nothing is
    /// read: that credit cannot be withdrawn.
    pub fn connections(&self) -> usize {
        usize::try_from(self.limit() / limits::CREDIT_FIRST).unwrap_or(usize::MAX)
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

    /// Credit beyond the first that the session may still lend, if the program has the memory.
    pub(super) fn to_lend(&self) -> u64 {
        limits::CREDIT_SHARED.saturating_sub(self.lent.load(Relaxed))
    }

    /// Whether the session may take more.
    pub(super) fn may_take(&self) -> bool {
        let free = self.memory.limit().saturating_sub(self.memory.used());
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

/// The credit beyond the first that the peer has on one connection; returned when this is dropped.
#[derive(Debug)]
pub(super) struct Loan {
    account: Arc<Account>,
    bytes: u64,
}

impl Loan {
    pub(super) fn new(account: &Arc<Account>) -> Self {
        Self {
            account: Arc::clone(account),
            bytes: 0,
        }
    }

    /// Lends up to so many bytes more, as far as the session may, and while all sessions have lent
    /// less than half of the memory. Returns how many it lends now.
    pub(super) fn grow(&mut self, bytes: u64) -> u64 {
        let memory = &self.account.memory;
        let bytes = bytes.min(self.account.to_lend());
        let mut granted = 0;
        let _ = memory.lent.fetch_update(Relaxed, Relaxed, |lent| {
            granted = bytes.min((memory.limit() / 2).saturating_sub(lent));
            Some(lent + granted)
        });
        self.account.lent.fetch_add(granted, Relaxed);
        self.bytes += granted;
        granted
    }

    /// The peer has used what is more than this.
    pub(super) fn reduce_to(&mut self, bytes: u64) {
        let returned = self.bytes.saturating_sub(bytes);
        self.bytes -= returned;
        for sum in [&self.account.lent, &self.account.memory.lent] {
            sum.fetch_sub(returned, Relaxed);
        }
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.reduce_to(0);
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
    fn all_sessions_lend_half_of_the_memory_and_have_it_again_when_connections_end() {
        let memory = Memory::new(64 << 20);
        let loan = || Loan::new(&Account::new(Arc::clone(&memory)));
        let (mut first, mut second, mut third) = (loan(), loan(), loan());
        assert_eq!(first.grow(20 << 20), 20 << 20);
        assert_eq!(second.grow(20 << 20), 12 << 20);
        assert_eq!(third.grow(1), 0);
        second.reduce_to(7 << 20);
        assert_eq!(third.grow(20 << 20), 5 << 20);
        drop(first);
        assert_eq!(second.grow(64 << 20), 20 << 20);
    }

    #[test]
    fn a_session_lends_no_more_than_its_share() {
        let account = Account::new(Memory::unlimited());
        let (mut first, mut second) = (Loan::new(&account), Loan::new(&account));
        assert_eq!(first.grow(u64::MAX), limits::CREDIT_SHARED);
        assert_eq!(second.grow(1), 0);
        drop(first);
        assert_eq!(account.to_lend(), limits::CREDIT_SHARED);
    }
}
