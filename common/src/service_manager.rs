//! What systemd learns of a service of `Type=notify`: that it is ready, what it does, that it stops,
//! and by the watchdog that it still works. Without systemd, and on other systems, all of it does
//! nothing.

use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};

/// The service works: what waits for it may start.
pub fn ready() {
    send(&State::Ready);
}

/// What the service does, for `systemctl status`: one line.
pub fn status(text: &str) {
    send(&State::Status(text));
}

/// The service begins to stop.
pub fn stopping() {
    send(&State::Stopping);
}

enum State<'a> {
    Ready,
    Status(&'a str),
    Stopping,
    Watchdog,
}

#[cfg(target_os = "linux")]
fn send(state: &State<'_>) {
    use sd_notify::NotifyState;
    let state = match state {
        State::Ready => NotifyState::Ready,
        State::Status(text) => NotifyState::Status(text),
        State::Stopping => NotifyState::Stopping,
        State::Watchdog => NotifyState::Watchdog,
    };
    // Without systemd it does nothing; and a manager that does not listen is no reason to end.
    let _ = sd_notify::notify(&[state]);
}

#[cfg(not(target_os = "linux"))]
fn send(state: &State<'_>) {
    if let State::Status(text) = state {
        let _ = text;
    }
}

/// How often systemd wants to hear of the service, if it does.
fn watchdog_time() -> Option<Duration> {
    #[cfg(target_os = "linux")]
    return sd_notify::watchdog_enabled();
    #[cfg(not(target_os = "linux"))]
    None
}

/// Tells systemd that the loop in which it is awaited still goes round.
#[derive(Debug)]
pub struct Watchdog(Option<Interval>);

impl Watchdog {
    /// As `WatchdogSec=` says; within a runtime.
    pub fn new() -> Self {
        // Half of the time is what systemd's manual advises (sd_watchdog_enabled(3)).
        Self(watchdog_time().map(|time| {
            let mut ticks = interval((time / 2).max(Duration::from_millis(1)));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        }))
    }

    /// Ends each time that systemd was told; never without a watchdog. May be dropped at any time.
    pub async fn feed(&mut self) {
        match &mut self.0 {
            Some(ticks) => {
                ticks.tick().await;
                send(&State::Watchdog);
            }
            None => std::future::pending().await,
        }
    }
}

impl Default for Watchdog {
    fn default() -> Self {
        Self::new()
    }
}
