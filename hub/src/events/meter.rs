//! What streams carry, counted while they are open. Each has its own two numbers, which its task
//! alone writes; they are added up when somebody asks.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};

use common::identity::Leg;
use common::locks::lock;

/// The meters of all streams of a hub. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Meters(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    open: HashMap<u64, Arc<Counts>>,
    last: u64,
    /// Of those that have ended.
    ended: Relayed,
}

#[derive(Debug, Default)]
struct Counts {
    to_device: AtomicU64,
    to_service: AtomicU64,
}

impl Counts {
    fn now(&self) -> Relayed {
        Relayed {
            to_device: self.to_device.load(Relaxed),
            to_service: self.to_service.load(Relaxed),
        }
    }
}

/// Bytes that were relayed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Relayed {
    /// From the service to the device.
    pub to_device: u64,
    /// From the device to the service.
    pub to_service: u64,
}

impl Relayed {
    fn add(&mut self, other: Self) {
        self.to_device += other.to_device;
        self.to_service += other.to_service;
    }
}

impl Meters {
    fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.0)
    }

    /// One for a stream whose legs have met; the stream counts as open until it is dropped.
    pub fn open(&self) -> Meter {
        let counts = Arc::new(Counts::default());
        let mut table = self.table();
        table.last += 1;
        let number = table.last;
        table.open.insert(number, Arc::clone(&counts));
        drop(table);
        Meter {
            meters: self.clone(),
            number,
            counts,
        }
    }

    /// How many streams are open, and what all there were have carried.
    pub fn now(&self) -> (usize, Relayed) {
        let table = self.table();
        let mut relayed = table.ended;
        table
            .open
            .values()
            .for_each(|counts| relayed.add(counts.now()));
        (table.open.len(), relayed)
    }
}

/// Counts what one stream carries.
#[derive(Debug)]
pub struct Meter {
    meters: Meters,
    number: u64,
    counts: Arc<Counts>,
}

impl Meter {
    /// So many more bytes have come from this leg.
    pub fn add(&self, from: Leg, bytes: u64) {
        let count = match from {
            Leg::Service => &self.counts.to_device,
            Leg::Device => &self.counts.to_service,
        };
        count.fetch_add(bytes, Relaxed);
    }

    /// What it has carried so far.
    pub fn now(&self) -> Relayed {
        self.counts.now()
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        let mut table = self.meters.table();
        // In one step: a sum never becomes smaller.
        if table.open.remove(&self.number).is_some() {
            table.ended.add(self.counts.now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_ended_counts_on() {
        let meters = Meters::default();
        let (first, second) = (meters.open(), meters.open());
        first.add(Leg::Service, 7);
        second.add(Leg::Device, 5);
        second.add(Leg::Service, 1);
        let relayed = Relayed {
            to_device: 8,
            to_service: 5,
        };
        assert_eq!(meters.now(), (2, relayed));
        drop(first);
        assert_eq!(meters.now(), (1, relayed));
        drop(second);
        assert_eq!(meters.now(), (0, relayed));
        assert!(meters.table().open.is_empty());
    }
}
