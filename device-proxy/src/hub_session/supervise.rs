//! Stay connected: backoff, renewal, and the few errors of a first start that end
//! the program. Once it has been connected it never gives up.

use std::sync::Arc;

use common::admin::AdminError;
use common::backoff::Backoff;
use common::net::PathWatch;
use common::telemetry::About;
use common::verdict::Verdict;
use common::wire::stream::StreamAnswer;
use common::{log_about, report};
use tokio::sync::{mpsc, watch};
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

use super::causes::Causes;
use super::connect::{ConnectError, connect};
use super::management::Management;
use super::session::{Session, SessionEnd};
use crate::clock_check;
use crate::config::Config;
use crate::policy::Control;
use crate::streams::Streams;

/// What retrying cannot cure at the first start.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// The hub does not believe us, and the clock is not to blame.
    #[error("the hub {host} refused {identity}")]
    Identity {
        /// The hub.
        host: String,
        /// Who we claimed to be.
        identity: String,
        /// What it can be.
        #[source]
        causes: Causes,
    },
    /// Anything else.
    #[error("cannot start a hub session")]
    Connect(#[source] ConnectError),
    /// The admin listener cannot be bound.
    #[error(transparent)]
    Admin(#[from] AdminError),
}

/// A session that held this long was a good one: the next failure starts afresh.
const STABLE: Duration = Duration::from_secs(30);
/// After a session that held this long the next attempt is made at once, if a service may be
/// waiting for this device.
const HELD: Duration = Duration::from_secs(1);
/// After a shorter one too, but not again within this time: a hub that takes sessions and
/// drops them is not asked in a hot loop.
const AT_ONCE_AGAIN: Duration = Duration::from_secs(10);
/// So many sessions in a row that did not hold are no accident.
const SHORT_SESSIONS: u32 = 3;
/// The same reason is logged again after this time.
const REMIND: Duration = Duration::from_secs(300);

/// After which lost sessions the next attempt is made without a delay.
#[derive(Default)]
struct AtOnce {
    /// When that was granted to a session that had hardly begun.
    granted: Option<Instant>,
}

impl AtOnce {
    /// Whether it may be made at once, after a session that was up for so long.
    fn may(&mut self, up_for: Duration) -> bool {
        if up_for >= HELD {
            return true;
        }
        let is_due = self
            .granted
            .is_none_or(|granted| granted.elapsed() >= AT_ONCE_AGAIN);
        if is_due {
            self.granted = Some(Instant::now());
        }
        is_due
    }
}

/// Keeps a hub session up.
pub struct Supervisor {
    config: Config,
    /// Other configurations of the same device, that are to be used from then on.
    changes: watch::Receiver<Arc<Config>>,
    /// The newest of them; a changed connection string may have been read since.
    latest: Arc<Config>,
    outbox: mpsc::Receiver<StreamAnswer>,
    /// For a hub that cannot be reached: back within seconds of its return.
    network: Backoff,
    /// For a hub that refuses us: a person has to act first.
    refused: Backoff,
    /// What was logged last, and when.
    logged: Option<(String, Instant)>,
}

impl Supervisor {
    /// Connects as the newest configuration of `changes` says, and again when it changes. Sends the
    /// answers that come out of `outbox`.
    pub fn new(
        mut changes: watch::Receiver<Arc<Config>>,
        outbox: mpsc::Receiver<StreamAnswer>,
    ) -> Self {
        let latest = Arc::clone(&changes.borrow_and_update());
        Self {
            config: Config::clone(&latest),
            latest,
            changes,
            outbox,
            network: Backoff::new(Duration::from_millis(300), Duration::from_secs(5)),
            refused: Backoff::new(Duration::from_secs(3), Duration::from_secs(60)),
            logged: None,
        }
    }

    /// Runs until `stop` is cancelled. What the cloud desires changes the `policy`. Dropping the
    /// future cuts the connection to the hub.
    ///
    /// # Errors
    /// [`Fatal`], before the first session only.
    pub async fn run(
        mut self,
        streams: &Streams,
        policy: &Control,
        stop: &CancellationToken,
    ) -> Result<(), Fatal> {
        let mut ever_connected = false;
        let mut short_sessions = 0;
        let mut at_once = AtOnce::default();
        let mut management = Management::new(streams, policy);
        let policy = policy.watch();
        // One for each time the hub is out of reach.
        let mut path = self.path_watch();
        loop {
            let is_waited_for = ever_connected && streams.are_waited_for();
            let attempt = tokio::select! {
                attempt = connect(&self.config) => attempt,
                Ok(()) = self.changes.changed() => {
                    self.take_change();
                    path = self.path_watch();
                    continue;
                }
                // An attempt that hangs in TCP's retransmissions would miss the moment.
                () = path.is_back(), if is_waited_for => continue,
                () = stop.cancelled() => return Ok(()),
            };
            let delay = match attempt {
                Ok(connected) => {
                    ever_connected = true;
                    streams.set_connected(true);
                    streams.follow(&self.config);
                    self.logged = None;
                    log_about!(
                        info,
                        About::device(&self.config.connection.identity),
                        hub = %self.config.connection.host,
                        "connected; streams reach {}",
                        policy.borrow().targets.summary(),
                    );
                    let up = streams.counts().hub_session();
                    let since = Instant::now();
                    let session = Session::new(connected, &mut management);
                    let end = session
                        .run(streams, &mut self.outbox, &mut self.changes, stop)
                        .await;
                    drop(up);
                    streams.counts().hub_session_ended(match &end {
                        SessionEnd::Stopped => "stopped",
                        SessionEnd::Changed | SessionEnd::Renewal | SessionEnd::Reconnect => {
                            "renewed"
                        }
                        _ => "lost",
                    });
                    streams.set_connected(false);
                    path = self.path_watch();
                    if since.elapsed() >= STABLE {
                        self.network.reset();
                        self.refused.reset();
                        short_sessions = 0;
                    } else {
                        short_sessions += 1;
                    }
                    match end {
                        SessionEnd::Stopped => return Ok(()),
                        SessionEnd::Changed => {
                            tracing::info!("connecting again, with the changed configuration");
                            Duration::ZERO
                        }
                        SessionEnd::Renewal => {
                            tracing::debug!("renewing the SAS token");
                            Duration::ZERO
                        }
                        SessionEnd::Reconnect => {
                            tracing::info!("connecting again, as the hub has asked");
                            Duration::ZERO
                        }
                        end => {
                            streams.failed(&report::chain(&end));
                            let delay = if streams.are_waited_for() && at_once.may(since.elapsed())
                            {
                                Duration::ZERO
                            } else {
                                self.network.next_delay()
                            };
                            let hint = if short_sessions >= SHORT_SESSIONS {
                                " (again and again: does another device-proxy use the same identity?)"
                            } else {
                                ""
                            };
                            tracing::warn!(
                                "{}{hint}; connecting again in {:.1} s",
                                report::chain(&end),
                                delay.as_secs_f32()
                            );
                            delay
                        }
                    }
                }
                Err(error) => {
                    let is_refused = error.verdict() != Verdict::Retry;
                    streams.counts().hub_attempt_failed(is_refused);
                    self.failed(error, ever_connected).await?
                }
            };
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = path.is_back(), if streams.are_waited_for() => {}
                Ok(()) = self.changes.changed() => {}
                () = stop.cancelled() => return Ok(()),
            }
            if self.take_change() {
                path = self.path_watch();
            }
        }
    }

    /// Uses the newest configuration; whether it was another one before.
    fn take_change(&mut self) -> bool {
        let newest = Arc::clone(&self.changes.borrow_and_update());
        let is_other = !Arc::ptr_eq(&newest, &self.latest);
        if is_other {
            self.config = Config::clone(&newest);
            self.latest = newest;
            // What a hub has refused may be what it takes now.
            self.refused.reset();
            self.logged = None;
        }
        is_other
    }

    /// Notices that the hub can be reached again.
    fn path_watch(&self) -> PathWatch {
        let host = self.config.connection.connect_host();
        PathWatch::new(&self.config.dialer, host.name(), self.config.session_port())
    }

    /// How long to wait after a failed attempt.
    async fn failed(
        &mut self,
        error: ConnectError,
        ever_connected: bool,
    ) -> Result<Duration, Fatal> {
        let mut reason = report::chain(&error);
        let verdict = error.verdict();
        if verdict == Verdict::AskPerson {
            let skew = clock_check::skew(&self.config).await;
            match skew {
                Some(skew) if skew.is_too_large() => reason = format!("{reason}: {skew}"),
                _ => {
                    let causes = Causes::new(&self.config, skew);
                    if !ever_connected {
                        return Err(Fatal::Identity {
                            host: self.config.connection.host.to_string(),
                            identity: self.config.connection.identity.to_string(),
                            causes,
                        });
                    }
                    reason = format!("{reason}: {causes}");
                }
            }
            self.config.reload();
        } else if verdict == Verdict::Never && !ever_connected {
            return Err(Fatal::Connect(error));
        }
        let delay = match verdict {
            Verdict::Retry => self.network.next_delay(),
            Verdict::AskPerson | Verdict::Never => self.refused.next_delay(),
        };
        self.log(reason, delay);
        Ok(delay)
    }

    /// Logs a reason once, and again from time to time.
    fn log(&mut self, reason: String, delay: Duration) {
        let now = Instant::now();
        let is_new = self
            .logged
            .as_ref()
            .is_none_or(|(last, at)| *last != reason || now - *at >= REMIND);
        if is_new {
            tracing::warn!(
                "{reason}; trying again (next in {:.1} s)",
                delay.as_secs_f32()
            );
            self.logged = Some((reason, now));
        } else {
            tracing::debug!(?delay, "{reason}");
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_session_that_was_up_at_all_is_opened_again_at_once() {
        let mut at_once = AtOnce::default();
        assert!(at_once.may(Duration::from_millis(5)));
        // Those that held always are, and do not count.
        for _ in 0..3 {
            advance(HELD).await;
            assert!(at_once.may(HELD));
        }
        advance(AT_ONCE_AGAIN).await;
        assert!(at_once.may(Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_hub_that_takes_sessions_and_drops_them_is_left_in_peace() {
        let mut at_once = AtOnce::default();
        let mut network = Backoff::new(Duration::from_millis(300), Duration::from_secs(5));
        let begun = Instant::now();
        let mut attempts = 0;
        while begun.elapsed() < Duration::from_secs(60) {
            attempts += 1;
            let up_for = Duration::from_millis(1);
            advance(up_for).await;
            if !at_once.may(up_for) {
                advance(network.next_delay()).await;
            }
        }
        assert!((10..40).contains(&attempts), "{attempts}");
    }
}
