//! Changes of desired properties on their way to a hub session. No I/O, no clock.

use std::collections::VecDeque;

use serde_json::Value;

use crate::registry::DesiredChange;

/// Changes that wait for one session. A device that does not take them as fast as they come is
/// better served by the whole twin.
const MOST: usize = 64;
/// Bytes of all that wait, as JSON: four sections.
const MOST_BYTES: usize = 128 << 10;

/// A change as the device gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredUpdate {
    /// The version of the desired properties after it.
    pub version: u64,
    /// The patch with its `$version`, as JSON.
    pub body: String,
}

impl From<DesiredChange> for DesiredUpdate {
    fn from(DesiredChange { version, mut patch }: DesiredChange) -> Self {
        patch.insert("$version".to_owned(), version.into());
        let body = Value::from(patch).to_string();
        Self { version, body }
    }
}

/// What a session does with changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Mode {
    /// Nothing: it has neither read its twin nor subscribed.
    #[default]
    Ignore,
    /// It has read its twin: if it subscribes later, it is sent what has changed since.
    Keep,
    /// It has subscribed.
    Send,
}

/// There are more changes than wait for one session: it has to read its twin anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Overflow;

/// The changes that wait for one session, in the order of their versions.
#[derive(Debug, Default)]
pub(super) struct DesiredQueue {
    mode: Mode,
    waiting: VecDeque<DesiredUpdate>,
    bytes: usize,
}

impl DesiredQueue {
    /// Adds a change, if the session may want it.
    ///
    /// # Errors
    /// [`Overflow`] when a session that has subscribed cannot be sent all of them any more.
    pub(super) fn push(&mut self, update: DesiredUpdate) -> Result<(), Overflow> {
        if self.mode == Mode::Ignore {
            return Ok(());
        }
        self.bytes += update.body.len();
        self.waiting.push_back(update);
        if self.waiting.len() <= MOST && self.bytes <= MOST_BYTES {
            return Ok(());
        }
        self.clear();
        match std::mem::take(&mut self.mode) {
            Mode::Send => Err(Overflow),
            _ => Ok(()),
        }
    }

    /// The device begins to read its twin.
    pub(super) fn keep(&mut self) {
        if self.mode == Mode::Ignore {
            self.mode = Mode::Keep;
        }
    }

    /// The device has read its twin up to this version.
    pub(super) fn has_read(&mut self, version: u64) {
        if self.mode == Mode::Keep {
            self.waiting.retain(|update| update.version > version);
            self.bytes = self.waiting.iter().map(|update| update.body.len()).sum();
        }
    }

    /// The device subscribes changes, or no longer does.
    pub(super) fn send(&mut self, is_wanted: bool) {
        if is_wanted {
            self.mode = Mode::Send;
        } else {
            self.clear();
            self.mode = Mode::Ignore;
        }
    }

    /// What is to be sent now.
    pub(super) fn take(&mut self) -> VecDeque<DesiredUpdate> {
        if self.mode != Mode::Send {
            return VecDeque::new();
        }
        self.bytes = 0;
        std::mem::take(&mut self.waiting)
    }

    fn clear(&mut self) {
        self.bytes = 0;
        self.waiting = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;

    fn update(version: u64) -> DesiredUpdate {
        let patch = Map::from_iter([("a".to_owned(), json!(version))]);
        DesiredChange { version, patch }.into()
    }

    fn versions(queue: &mut DesiredQueue) -> Vec<u64> {
        let taken = queue.take();
        taken.into_iter().map(|update| update.version).collect()
    }

    #[test]
    fn who_subscribes_is_sent_what_comes() {
        let mut queue = DesiredQueue::default();
        queue.push(update(2)).unwrap();
        queue.send(true);
        assert_eq!(versions(&mut queue), [0; 0], "nothing was read before");
        queue.push(update(3)).unwrap();
        assert_eq!(queue.take()[0].body, r#"{"$version":3,"a":3}"#);
        queue.send(false);
        queue.push(update(4)).unwrap();
        queue.send(true);
        assert_eq!(versions(&mut queue), [0; 0]);
    }

    #[test]
    fn nothing_is_lost_between_a_read_and_a_later_subscription() {
        let mut queue = DesiredQueue::default();
        queue.keep();
        for version in 2..6 {
            queue.push(update(version)).unwrap();
        }
        queue.has_read(3);
        assert_eq!(versions(&mut queue), [0; 0]);
        queue.send(true);
        assert_eq!(versions(&mut queue), [4, 5]);
        // Who has subscribed gets each of them, whatever it reads beside.
        queue.push(update(6)).unwrap();
        queue.has_read(9);
        assert_eq!(versions(&mut queue), [6]);
    }

    #[test]
    fn a_session_that_falls_behind_is_told_so_if_it_has_subscribed() {
        for is_large in [false, true] {
            let most = if is_large { 2 } else { MOST as u64 };
            let update = |version| DesiredUpdate {
                body: "x".repeat(if is_large { MOST_BYTES / 2 } else { 2 }),
                ..update(version)
            };
            for is_wanted in [true, false] {
                let mut queue = DesiredQueue::default();
                queue.keep();
                if is_wanted {
                    queue.send(true);
                }
                for version in 0..most {
                    queue.push(update(version)).unwrap();
                }
                assert_eq!(queue.push(update(most)).is_err(), is_wanted);
                queue.push(update(most + 1)).unwrap();
                assert_eq!((queue.waiting.len(), queue.bytes), (0, 0));
            }
        }
    }
}
