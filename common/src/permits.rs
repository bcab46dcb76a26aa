//! Permits of which there are so many at once, and as many as an operator says while the program
//! runs: a semaphore that can become smaller.

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::locks::lock;

/// Permits that are held by nobody, and how many there are in all.
#[derive(Debug)]
pub struct Permits {
    free: Arc<Semaphore>,
    count: Mutex<Count>,
}

#[derive(Debug)]
struct Count {
    most: usize,
    /// So many are held beyond `most`: as many are withdrawn when they are given back.
    beyond: usize,
    /// So many of those that are held have something to do with them.
    in_use: usize,
}

/// One of the permits; given back when it is dropped.
#[derive(Debug)]
pub struct Permit {
    permits: Arc<Permits>,
    held: Option<OwnedSemaphorePermit>,
    is_in_use: bool,
}

impl Permits {
    /// So many, all of them free.
    pub fn new(most: usize) -> Arc<Self> {
        let most = most.min(Semaphore::MAX_PERMITS);
        Arc::new(Self {
            free: Arc::new(Semaphore::new(most)),
            count: Mutex::new(Count {
                most,
                beyond: 0,
                in_use: 0,
            }),
        })
    }

    fn count(&self) -> MutexGuard<'_, Count> {
        lock(&self.count)
    }

    /// From now on there are so many. None that is held is taken away: where more are held, fewer
    /// are given until enough have come back.
    pub fn set(&self, most: usize) {
        let most = most.min(Semaphore::MAX_PERMITS);
        let mut count = self.count();
        if most < count.most {
            let fewer = count.most - most;
            count.beyond += fewer - self.free.forget_permits(fewer);
        } else {
            let more = most - count.most;
            let kept = more.min(count.beyond);
            count.beyond -= kept;
            self.free.add_permits(more - kept);
        }
        count.most = most;
    }

    /// Waits for a permit. May be dropped at any time: none is lost.
    pub async fn acquire(self: &Arc<Self>) -> Permit {
        Permit {
            permits: Arc::clone(self),
            // Only a closed semaphore gives none, and this one is never closed.
            held: Arc::clone(&self.free).acquire_owned().await.ok(),
            is_in_use: false,
        }
    }

    /// A permit, if there is one.
    pub fn try_acquire(self: &Arc<Self>) -> Option<Permit> {
        let held = Arc::clone(&self.free).try_acquire_owned().ok()?;
        Some(Permit {
            permits: Arc::clone(self),
            held: Some(held),
            is_in_use: false,
        })
    }

    /// How many are [in use](Permit::in_use).
    pub fn in_use(&self) -> usize {
        self.count().in_use
    }

    /// How many are free.
    pub fn free(&self) -> usize {
        self.free.available_permits()
    }
}

impl Permit {
    /// What it was taken for is there: until then it only keeps a place free.
    #[must_use]
    pub fn in_use(mut self) -> Self {
        if !self.is_in_use {
            self.permits.count().in_use += 1;
            self.is_in_use = true;
        }
        self
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut count = self.permits.count();
        if self.is_in_use {
            count.in_use -= 1;
        }
        let Some(held) = self.held.take() else {
            return;
        };
        if count.beyond > 0 {
            count.beyond -= 1;
            held.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_number_changes_while_permits_are_held() {
        let permits = Permits::new(3);
        let mut held: Vec<_> = (0..3).map(|_| permits.try_acquire().unwrap()).collect();
        assert!(permits.try_acquire().is_none());
        permits.set(1);
        held.pop();
        held.pop();
        assert!(permits.try_acquire().is_none(), "one is held still");
        held.pop();
        assert_eq!(permits.free(), 1);
        let waiting = permits.acquire().await;
        assert_eq!(permits.in_use(), 0, "nothing has come for it");
        let waiting = waiting.in_use().in_use();
        assert_eq!(permits.in_use(), 1);
        permits.set(0);
        permits.set(2);
        assert_eq!(permits.free(), 1, "one is held");
        drop(waiting);
        assert_eq!((permits.free(), permits.in_use()), (2, 0));
        permits.set(5);
        assert_eq!(permits.free(), 5);
        permits.set(usize::MAX);
        permits.set(1);
        assert_eq!(permits.free(), 1);
    }
}
