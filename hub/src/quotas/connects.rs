//! A device that opens hub sessions too fast waits with its next one. Only its newest connection
//! does: one that waits already gives way, so that a device has one in the waiting room at most.

use std::collections::HashMap;
use std::sync::Mutex;

use common::identity::DeviceIdentity;
use common::locks::lock;
use tokio_util::sync::CancellationToken;

/// The connections that wait.
#[derive(Debug, Default)]
pub(super) struct Connects(Mutex<HashMap<DeviceIdentity, Waiting>>);

#[derive(Debug)]
struct Waiting {
    number: u64,
    gone: CancellationToken,
}

/// One of them; it waits no longer when this is dropped.
pub(super) struct Turn<'a> {
    connects: &'a Connects,
    identity: &'a DeviceIdentity,
    number: u64,
    /// Cancelled when a newer one waits.
    pub(super) gone: CancellationToken,
}

impl Connects {
    /// Waits in the place of an older one of the same identity.
    pub(super) fn wait<'a>(&'a self, identity: &'a DeviceIdentity) -> Turn<'a> {
        let gone = CancellationToken::new();
        let mut waiting = lock(&self.0);
        let older = waiting.remove(identity);
        let number = older.as_ref().map_or(0, |older| older.number + 1);
        if let Some(older) = older {
            older.gone.cancel();
        }
        let own = Waiting {
            number,
            gone: gone.clone(),
        };
        waiting.insert(identity.clone(), own);
        Turn {
            connects: self,
            identity,
            number,
            gone,
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut waiting = lock(&self.connects.0);
        let is_own = |waiting: &Waiting| waiting.number == self.number && !self.gone.is_cancelled();
        if waiting.get(self.identity).is_some_and(is_own) {
            waiting.remove(self.identity);
        }
        if waiting.is_empty() {
            *waiting = HashMap::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use common::identity::DeviceId;

    use super::*;

    #[test]
    fn the_newest_waits_and_nothing_is_left() {
        let connects = Connects::default();
        let identity = |name| DeviceIdentity::of_device(DeviceId::parse(name).unwrap());
        let (a, b) = (identity("a"), identity("b"));
        let first = connects.wait(&a);
        let other = connects.wait(&b);
        let second = connects.wait(&a);
        assert!(first.gone.is_cancelled() && !other.gone.is_cancelled());
        drop(first);
        let third = connects.wait(&a);
        assert!(second.gone.is_cancelled() && !third.gone.is_cancelled());
        drop((second, third, other));
        assert!(lock(&connects.0).is_empty());
    }
}
