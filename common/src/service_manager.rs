//! What systemd learns of a service of `Type=notify`: that it is ready, what it does, that it stops,
//! and by the watchdog that it still works. On Windows a service learns the same of itself, and
//! passes it on. Without systemd or such a service all of it does nothing.

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

/// What a service tells its manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State<'a> {
    /// It works.
    Ready,
    /// What it does.
    Status(&'a str),
    /// It begins to stop.
    Stopping,
    /// It still works.
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

#[cfg(windows)]
type Report = Box<dyn Fn(State<'_>) + Send + Sync>;

#[cfg(windows)]
static REPORT: std::sync::OnceLock<Report> = std::sync::OnceLock::new();

/// Has states reported in this way, which must not block. The first call counts.
#[cfg(windows)]
pub fn report_by(report: impl Fn(State<'_>) + Send + Sync + 'static) {
    let _ = REPORT.set(Box::new(report));
}

#[cfg(windows)]
fn send(state: &State<'_>) {
    if let Some(report) = REPORT.get() {
        report(*state);
    }
}

#[cfg(not(any(target_os = "linux", windows)))]
fn send(_: &State<'_>) {}

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
