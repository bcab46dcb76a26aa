//! When to ping a WebSocket peer, and when its silence means that it is gone. No I/O and no clock:
//! the time is an argument.
//!
//! A peer whose own reader has stopped does not read our pings either, and is not dead: this is
//! back-pressure. So an unanswered ping counts against a peer only while almost nothing of ours can
//! be waiting unread there: at most [`UNREAD_TOLERATED`] bytes since its last pong, which proved
//! that it had read everything before. Otherwise only TCP detects a dead peer.

use std::time::{Duration, Instant};

/// Bytes sent since the last pong up to which silence means that the peer is gone. Keystrokes are
/// below this, bulk to a peer that has stopped reading is above.
pub const UNREAD_TOLERATED: u64 = 4096;

/// A timer that is this late means that the program was suspended: it was stopped, or its machine
/// slept.
const LATE: Duration = Duration::from_millis(250);

/// Lets a program that was suspended read what has arrived before it treats silence as a failure:
/// when it continues, its timers expire at once, perhaps before its sockets are polled.
#[derive(Debug, Default)]
pub struct SecondLook(Option<(Instant, Instant)>);

impl SecondLook {
    /// When to evaluate a silence whose deadline is `deadline`.
    pub fn until(&self, deadline: Instant) -> Instant {
        match self.0 {
            Some((of, until)) if of == deadline => until,
            _ => deadline,
        }
    }

    /// Whether the silence counts now. If not, call again at [`until`](Self::until), which is
    /// later than before if this call was late.
    pub fn may_judge(&mut self, deadline: Instant, now: Instant) -> bool {
        if now < self.until(deadline) {
            return false;
        }
        let is_second = self.0.is_some_and(|(of, _)| of == deadline);
        if is_second || now < deadline + LATE {
            return true;
        }
        self.0 = Some((deadline, now + LATE));
        false
    }
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing until then.
    Wait(Instant),
    /// Send a ping now, and call [`Keepalive::pinged`].
    Ping,
    /// The peer is gone.
    Dead,
}

/// Ping bookkeeping of one peer.
#[derive(Debug)]
pub struct Keepalive {
    interval: Duration,
    patience: Duration,
    last_received: Instant,
    last_ping: Instant,
    awaiting_pong: bool,
    /// Data bytes sent since the last pong, up to the last ping.
    unread_before_ping: u64,
    /// Data bytes sent after the last ping.
    unread_after_ping: u64,
    second_look: SecondLook,
}

impl Keepalive {
    /// Pings every `interval` and gives the answer `patience` time.
    pub fn new(interval: Duration, patience: Duration, now: Instant) -> Self {
        Self {
            interval,
            patience,
            last_received: now,
            last_ping: now,
            awaiting_pong: false,
            unread_before_ping: 0,
            unread_after_ping: 0,
            second_look: SecondLook::default(),
        }
    }

    /// Something was received from the peer: it is alive.
    #[inline]
    pub fn received(&mut self, now: Instant) {
        self.last_received = now;
    }

    /// A pong was received: the peer has read everything before the last ping.
    #[inline]
    pub fn ponged(&mut self, now: Instant) {
        self.last_received = now;
        if self.awaiting_pong {
            self.awaiting_pong = false;
            self.unread_before_ping = 0;
        }
    }

    /// Data was sent to the peer.
    #[inline]
    pub fn sent(&mut self, bytes: usize) {
        self.unread_after_ping = self.unread_after_ping.saturating_add(bytes as u64);
    }

    /// A ping was sent to the peer.
    pub fn pinged(&mut self, now: Instant) {
        self.last_ping = now;
        self.awaiting_pong = true;
        self.unread_before_ping = self
            .unread_before_ping
            .saturating_add(std::mem::take(&mut self.unread_after_ping));
    }

    /// What to do at this moment.
    #[inline]
    pub fn action(&mut self, now: Instant) -> Action {
        if !self.awaiting_pong {
            let due = self.last_ping + self.interval;
            return if now >= due {
                Action::Ping
            } else {
                Action::Wait(due)
            };
        }
        let deadline = self.last_ping.max(self.last_received) + self.patience;
        let unread = self
            .unread_before_ping
            .saturating_add(self.unread_after_ping);
        if unread > UNREAD_TOLERATED && now >= deadline {
            Action::Wait(now + self.patience)
        } else if self.second_look.may_judge(deadline, now) {
            Action::Dead
        } else {
            Action::Wait(self.second_look.until(deadline))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);
    const PATIENCE: Duration = Duration::from_secs(5);

    fn fresh() -> (Keepalive, Instant) {
        let now = Instant::now();
        (Keepalive::new(INTERVAL, PATIENCE, now), now)
    }

    #[test]
    fn a_silent_idle_peer_dies_after_interval_and_patience() {
        let (mut keepalive, start) = fresh();
        assert_eq!(keepalive.action(start), Action::Wait(start + INTERVAL));
        let pinged = start + INTERVAL;
        assert_eq!(keepalive.action(pinged), Action::Ping);
        keepalive.pinged(pinged);
        assert_eq!(keepalive.action(pinged), Action::Wait(pinged + PATIENCE));
        assert_eq!(keepalive.action(pinged + PATIENCE), Action::Dead);
    }

    #[test]
    fn anything_received_extends_the_deadline() {
        let (mut keepalive, start) = fresh();
        keepalive.pinged(start);
        keepalive.received(start + Duration::from_secs(4));
        assert!(matches!(
            keepalive.action(start + PATIENCE),
            Action::Wait(_)
        ));
        keepalive.ponged(start + Duration::from_secs(6));
        assert_eq!(keepalive.action(start + INTERVAL), Action::Ping);
    }

    #[test]
    fn a_program_that_was_suspended_reads_before_it_gives_up() {
        let (mut keepalive, start) = fresh();
        keepalive.pinged(start);
        let woke = start + Duration::from_secs(60 * 3600);
        assert_eq!(keepalive.action(woke), Action::Wait(woke + LATE));
        assert_eq!(
            keepalive.action(woke + LATE / 2),
            Action::Wait(woke + LATE),
            "one delay, however often it is called"
        );
        keepalive.ponged(woke + LATE / 2);
        assert_eq!(keepalive.action(woke + LATE), Action::Ping);
        let (mut keepalive, start) = fresh();
        keepalive.pinged(start);
        let woke = start + PATIENCE + LATE;
        assert_eq!(keepalive.action(woke), Action::Wait(woke + LATE));
        assert_eq!(keepalive.action(woke + LATE), Action::Dead);
    }

    #[test]
    fn a_peer_with_bulk_unread_is_left_to_tcp() {
        let (mut keepalive, start) = fresh();
        keepalive.sent(1 << 20);
        keepalive.pinged(start + INTERVAL);
        let later = start + Duration::from_secs(3600);
        assert!(matches!(keepalive.action(later), Action::Wait(at) if at > later));
    }

    #[test]
    fn keystrokes_into_a_dead_path_are_detected() {
        let (mut keepalive, start) = fresh();
        keepalive.sent(1 << 20);
        keepalive.pinged(start + INTERVAL);
        keepalive.ponged(start + INTERVAL);
        keepalive.sent(100);
        let pinged = start + 2 * INTERVAL;
        keepalive.pinged(pinged);
        assert_eq!(keepalive.action(pinged + PATIENCE), Action::Dead);
    }
}
