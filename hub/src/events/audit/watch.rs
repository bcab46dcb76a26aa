//! Whether the thread that writes the log is stuck in the disk: a disk or a pipe that hangs gives no
//! error.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use common::locks::lock;

/// So long the disk may take before the log counts as not written: a busy disk takes a second or two.
pub const STALL: Duration = Duration::from_secs(5);

/// What the thread does, for the others to see.
#[derive(Debug, Default)]
pub struct Watch(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// It is at the disk since then.
    since: Option<Instant>,
    is_reported: bool,
}

/// What is seen of a thread that is stuck.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stalled {
    /// How long already.
    pub since: Duration,
    /// Nobody has seen it before.
    pub is_new: bool,
}

impl Watch {
    /// The thread goes to the disk, or does so again: it was back meanwhile.
    pub fn begin(&self) {
        lock(&self.0).since = Some(Instant::now());
    }

    /// It is back; whether somebody has seen it stuck.
    pub fn end(&self) -> bool {
        let mut state = lock(&self.0);
        state.since = None;
        std::mem::take(&mut state.is_reported)
    }

    /// Whether it is stuck.
    pub fn stalled(&self) -> Option<Stalled> {
        self.stalled_at(Instant::now())
    }

    fn stalled_at(&self, now: Instant) -> Option<Stalled> {
        let mut state = lock(&self.0);
        let since = now.saturating_duration_since(state.since?);
        (since >= STALL).then(|| Stalled {
            since,
            is_new: !std::mem::replace(&mut state.is_reported, true),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_come_back_is_stuck_and_that_is_new_once() {
        let watch = Watch::default();
        let later = || Instant::now() + STALL;
        assert_eq!(watch.stalled_at(later()), None);
        watch.begin();
        assert_eq!(watch.stalled_at(Instant::now()), None);
        assert!(watch.stalled_at(later()).unwrap().is_new);
        assert!(!watch.stalled_at(later()).unwrap().is_new);
        assert!(watch.end());
        assert_eq!(watch.stalled_at(later()), None);
        watch.begin();
        assert!(!watch.end());
    }
}
