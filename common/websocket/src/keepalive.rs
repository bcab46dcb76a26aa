//! When to ping a WebSocket peer, and when its silence means that it is gone. No I/O and no clock:
//! the time is an argument.
//!
//! A peer whose own reader has stopped does not read our pings either, and is not dead: this is
//! back-pressure. So an unanswered ping counts against a peer only while almost nothing of ours can
//! be waiting unread there: at most [`UNREAD_TOLERATED`] bytes since its last pong, which proved
//! that it had read everything before. Otherwise only TCP detects a dead peer.
//!
//! On an idle connection one ping serves both ends: what a peer sends proves that it is alive, and
//! its ping is answered. So a ping is due an interval after the peer's last sign of life, as long
//! as nothing of ours can be waiting unread; after that only a pong shows that it was read, and
//! what the peer sends postpones no ping. The end with the longer interval then seldom pings.
//!
//! Pings are due at the ticks of a process, so that one turn of its timer serves many connections.

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

/// The times of a keepalive.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// A ping is due so long after the peer's last sign of life, and up to a tick earlier.
    pub interval: Duration,
    /// How long the answer may take.
    pub patience: Duration,
    /// Pings are due at multiples of this, counted from [`origin`](Self::origin).
    pub tick: Duration,
    /// The same moment for all connections of a process, and another one in each process:
    /// the devices of a hub do not ping it in unison.
    pub origin: Instant,
}

impl Pace {
    /// The last tick until then.
    fn aligned(&self, due: Instant) -> Instant {
        let since = due.saturating_duration_since(self.origin).as_nanos();
        let tick = self.tick.as_nanos().max(1);
        // The remainder is below a tick, which is short.
        let early = u64::try_from(since % tick).unwrap_or_default();
        due.checked_sub(Duration::from_nanos(early)).unwrap_or(due)
    }
}

/// Ping bookkeeping of one peer.
#[derive(Debug)]
pub struct Keepalive {
    pace: Pace,
    last_received: Instant,
    last_ping: Instant,
    /// From here the interval counts: our last ping, or what the peer has sent later while it
    /// could not have anything unread.
    proven: Instant,
    awaiting_pong: bool,
    /// Data bytes sent since the last pong, up to the last ping.
    unread_before_ping: u64,
    /// Data bytes sent after the last ping.
    unread_after_ping: u64,
    second_look: SecondLook,
}

impl Keepalive {
    /// Pings at this pace.
    pub fn new(pace: Pace, now: Instant) -> Self {
        Self {
            pace,
            last_received: now,
            last_ping: now,
            proven: now,
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
        if self.unread() == 0 && !self.awaiting_pong {
            self.proven = now;
        }
    }

    /// A pong was received: the peer has read everything before the last ping.
    #[inline]
    pub fn ponged(&mut self, now: Instant) {
        if self.awaiting_pong {
            // The interval goes on from the ping, however slow the path.
            self.last_received = now;
            self.awaiting_pong = false;
            self.unread_before_ping = 0;
        } else {
            self.received(now);
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
        self.proven = now;
        self.awaiting_pong = true;
        self.unread_before_ping = self
            .unread_before_ping
            .saturating_add(std::mem::take(&mut self.unread_after_ping));
    }

    /// Data bytes that the peer may not have read.
    #[inline]
    fn unread(&self) -> u64 {
        self.unread_before_ping
            .saturating_add(self.unread_after_ping)
    }

    /// What to do at this moment.
    #[inline]
    pub fn action(&mut self, now: Instant) -> Action {
        if !self.awaiting_pong {
            let due = self.pace.aligned(self.proven + self.pace.interval);
            return if now >= due {
                Action::Ping
            } else {
                Action::Wait(due)
            };
        }
        let patience = self.pace.patience;
        let deadline = self.last_ping.max(self.last_received) + patience;
        if self.unread() > UNREAD_TOLERATED && now >= deadline {
            Action::Wait(now + patience)
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

    const TICK: Duration = Duration::from_secs(1);

    fn fresh() -> (Keepalive, Instant) {
        let now = Instant::now();
        let pace = Pace {
            interval: INTERVAL,
            patience: PATIENCE,
            tick: TICK,
            origin: now,
        };
        (Keepalive::new(pace, now), now)
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

    #[test]
    fn what_an_idle_peer_sends_postpones_the_ping() {
        let (mut keepalive, start) = fresh();
        for number in 1..10 {
            keepalive.received(start + number * Duration::from_secs(8));
        }
        let last = start + 9 * Duration::from_secs(8);
        assert_eq!(keepalive.action(last), Action::Wait(last + INTERVAL));
        assert_eq!(keepalive.action(last + INTERVAL), Action::Ping);
        // Its silence is detected in the same time as ever.
        keepalive.pinged(last + INTERVAL);
        let end = last + INTERVAL + PATIENCE;
        assert_eq!(keepalive.action(end), Action::Dead);
    }

    #[test]
    fn what_a_peer_sends_does_not_show_that_it_reads() {
        let (mut keepalive, start) = fresh();
        keepalive.received(start + Duration::from_secs(4));
        keepalive.sent(100);
        for second in 5..14 {
            keepalive.received(start + Duration::from_secs(second));
        }
        // An interval after the last moment at which it had read everything: no later, and
        // without a ping for each keystroke after a pause.
        let due = start + Duration::from_secs(4) + INTERVAL;
        assert_eq!(keepalive.action(start + TICK), Action::Wait(due));
        assert_eq!(keepalive.action(due), Action::Ping);
        keepalive.pinged(due);
        keepalive.ponged(due);
        keepalive.received(due + TICK);
        assert_eq!(
            keepalive.action(due + TICK),
            Action::Wait(due + TICK + INTERVAL),
            "it has read all"
        );
    }

    #[test]
    fn pings_are_due_at_ticks_and_never_later_than_the_interval() {
        let (mut keepalive, start) = fresh();
        for millis in [1, 250, 999, 1000, 1001, 1500] {
            let received = start + Duration::from_millis(millis);
            keepalive.received(received);
            let Action::Wait(due) = keepalive.action(received) else {
                panic!("too early");
            };
            assert_eq!((due - start).as_nanos() % TICK.as_nanos(), 0);
            let waited = due - received;
            assert!(waited <= INTERVAL && waited > INTERVAL - TICK);
        }
        // A pong that is slow does not move the ticks.
        let pinged = start + Duration::from_secs(20);
        keepalive.pinged(pinged);
        keepalive.ponged(pinged + Duration::from_millis(1700));
        let due = pinged + INTERVAL;
        assert_eq!(keepalive.action(pinged), Action::Wait(due));
    }
}
