//! Keeps one session: begins it, runs it over one stream after the other, and ends it.

use std::future::pending;
use std::sync::Arc;

use common::backoff::Backoff;
use common::identity::{StreamId, StreamName};
use common::net::PathWatch;
use common::session::{CarrierEnd, Code, Over, SharedSession, drive_carrier};
use common::telemetry::{self, About};
use common::verdict::Verdict;
use common::{log_about, report};
use tokio::sync::watch;
use tokio::time::{Duration, Instant, sleep, sleep_until};

use super::begin::{Carrier, begin};
use super::resume::{Failed, Resume, ResumeError};
use super::{Phase, Shared};
use crate::counts::{SessionEvent, counts};
use crate::limits;

/// Delays between attempts that failed.
const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(5);
/// An attempt that took this long was a wait by itself.
const LONG_ATTEMPT: Duration = Duration::from_secs(1);
/// A stream that lasted this long was no failure, though it carried nothing.
const STEADY: Duration = Duration::from_secs(5);
/// So many rejects are no accident: the device-proxy there is another one.
const REJECTS: u32 = 5;
/// So often, a second apart, nobody waits for a session that is not begun yet: then it is given up.
const UNWANTED_LOOKS: u32 = 3;
/// How often it is checked whether a session is unused.
const IDLE_LOOK: Duration = Duration::from_secs(30);

/// From the first stream to the end of the session; `phases` reports how far it has come.
pub(super) async fn keep(shared: Arc<Shared>, name: StreamName, phases: watch::Sender<Phase>) {
    let begun = tokio::select! {
        begun = begin(&shared, &name) => begun,
        () = shared.stop.cancelled() => return,
        // Whoever waits for an approver may leave before there is a decision.
        () = unwanted(&phases) => return,
    };
    let begun = match begun {
        Ok(begun) => begun,
        Err(phase) => {
            phases.send_replace(phase);
            return;
        }
    };
    let keeper = Keeper {
        shared: &shared,
        name: &name,
        live: begun.live.clone(),
        resume: Resume {
            shared: &shared,
            stream_name: begun.stream_name,
            live: begun.live.clone(),
            secret: begun.secret,
            greeting: begun.greeting,
        },
        phases: &phases,
        backoff: Backoff::new(SHORTEST, LONGEST),
        progress: 0,
    };
    let _present = counts().session();
    phases.send_replace(Phase::Up(begun.live));
    keeper.run(begun.carrier).await;
    phases.send_replace(Phase::Over);
}

/// Why a session does not go on.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error(transparent)]
    Resume(ResumeError),
    #[error("no way to the device was found for {} s", .0.as_secs())]
    Grace(Duration),
    #[error("the program stops")]
    Stopped,
    #[error("it ended in the meantime")]
    Over,
}

/// Ends when nobody has waited for the session for some seconds.
async fn unwanted(phases: &watch::Sender<Phase>) {
    let mut looks = 0;
    while looks < UNWANTED_LOOKS {
        sleep(Duration::from_secs(1)).await;
        // One is kept for those that come.
        looks = match phases.receiver_count() {
            0 | 1 => looks + 1,
            _ => 0,
        };
    }
}

struct Keeper<'a> {
    shared: &'a Shared,
    name: &'a StreamName,
    live: SharedSession,
    resume: Resume<'a>,
    phases: &'a watch::Sender<Phase>,
    backoff: Backoff,
    /// Bytes that were acknowledged or received when the last stream was lost.
    progress: u64,
}

impl Keeper<'_> {
    async fn run(mut self, mut carrier: Carrier) {
        loop {
            let begun = Instant::now();
            let stream = carrier.stream;
            let end = self.carry(carrier).await;
            let lasted = begun.elapsed();
            if matches!(end, CarrierEnd::Over) || self.live.over().is_some() {
                break;
            }
            let lost = Instant::now();
            let (connections, held) = (self.live.connections(), self.live.held());
            log_about!(
                audit warn,
                self.about(stream),
                connections,
                held,
                "session interrupted: {}; connections wait, opening it again", report::chain(&end)
            );
            self.shared.room.keep_to_budget();
            counts().session_event(SessionEvent::Interrupted);
            let _interrupted = counts().interrupted();
            match self.open_again(lost, lasted).await {
                Ok(next) => carrier = next,
                Err(why) => {
                    let code = match why {
                        Lost::Grace(_) => Code::Expired,
                        Lost::Stopped => Code::Stopping,
                        _ => Code::Unknown,
                    };
                    self.live.reset(code, "");
                    if !matches!(why, Lost::Stopped | Lost::Over) {
                        counts().session_event(SessionEvent::Lost);
                        log_about!(
                            audit warn,
                            self.about(None),
                            connections,
                            "session lost: {}", report::chain(&why)
                        );
                    }
                    return;
                }
            }
            counts().session_event(SessionEvent::Resumed);
            let seconds = telemetry::seconds(lost.elapsed());
            log_about!(audit info, self.about(carrier.stream), seconds, "session resumed");
        }
        counts().session_ended();
        let about = self.about(None);
        match self.live.over() {
            Some(Over::Ended) if self.shared.is_quiet => {}
            Some(Over::Ended) => {
                log_about!(audit info, about, "session closed")
            }
            Some(Over::PeerBroke(code, text)) if text.is_empty() => {
                log_about!(audit warn, about, "session ended by the device: {code}");
            }
            Some(Over::PeerBroke(code, text)) => {
                log_about!(audit warn, about, "session ended by the device: {code} ({text})");
            }
            Some(Over::Broken(Code::Stopping)) | None => {}
            Some(Over::Broken(code)) => {
                log_about!(audit warn, about, "session ended: {code}");
            }
        }
    }

    /// The session, and the stream that carries it.
    fn about(&self, stream: Option<StreamId>) -> About<'_> {
        About::stream(stream.as_ref(), self.name)
            .of(&self.shared.identity)
            .within(Some(&self.live.id()), None)
    }

    /// Runs over one stream; an unused session is ended, a stopped one broken off.
    async fn carry(&self, carrier: Carrier) -> CarrierEnd {
        let carrying = drive_carrier(&self.live, carrier.id, carrier.leg, carrier.already_read);
        tokio::pin!(carrying);
        let mut used = Instant::now();
        let mut stopping = false;
        loop {
            tokio::select! {
                end = &mut carrying => return end,
                () = sleep(IDLE_LOOK) => {
                    if self.live.connections() > 0 {
                        used = Instant::now();
                    } else if used.elapsed() >= limits::SESSION_IDLE {
                        // A connection that comes from now on begins another session.
                        self.phases.send_replace(Phase::Over);
                        self.live.end();
                    }
                }
                () = self.shared.stop.cancelled(), if !stopping => {
                    stopping = true;
                    self.live.reset(Code::Stopping, "");
                }
            }
        }
    }

    /// Opens streams until one carries the session again. The first attempt is made at
    /// once, unless the last stream `lasted` for moments only and carried no byte.
    async fn open_again(&mut self, lost: Instant, lasted: Duration) -> Result<Carrier, Lost> {
        let grace = self.shared.config().grace;
        let progress = self.live.progress();
        let mut delay = if progress > self.progress || lasted >= STEADY {
            self.backoff.reset();
            Duration::ZERO
        } else {
            self.backoff.next_delay()
        };
        self.progress = progress;
        let hub = self.shared.opener.api().hub();
        // One for the whole outage: a new one would not know that the path was lost.
        let mut path = PathWatch::new(self.shared.opener.dialer(), hub.name(), hub.https_port());
        let mut turns = self.live.turns();
        let mut rejects = 0;
        let mut is_logged = false;
        loop {
            // A session without connections is not worth an attempt every few seconds for days.
            let is_unused = self.live.connections() == 0;
            let kept = if is_unused {
                grace.min(limits::SESSION_IDLE)
            } else {
                grace
            };
            let expires = lost + kept;
            tokio::select! {
                () = sleep(delay) => {}
                () = path.is_back() => {}
                () = sleep_until(expires) => {
                    if is_unused && self.live.connections() > 0 {
                        continue;
                    }
                    return Err(Lost::Grace(kept));
                }
                () = self.shared.stop.cancelled() => return Err(Lost::Stopped),
                () = over(&self.live, &mut turns) => return Err(Lost::Over),
            }
            let started = Instant::now();
            self.live.figures().set_trouble("resuming");
            let attempt = tokio::select! {
                attempt = self.resume.attempt(lost) => attempt,
                // What hangs in TCP's retransmissions would miss the moment.
                () = path.is_back() => {
                    delay = Duration::ZERO;
                    continue;
                }
                () = sleep_until(expires) => {
                    if is_unused && self.live.connections() > 0 {
                        continue;
                    }
                    return Err(Lost::Grace(kept));
                }
                () = self.shared.stop.cancelled() => return Err(Lost::Stopped),
                () = over(&self.live, &mut turns) => return Err(Lost::Over),
            };
            let Failed { stream, error } = match attempt {
                Ok(carrier) => return Ok(carrier),
                Err(failed) => failed,
            };
            if error.is_reject() {
                rejects += 1;
                // The device may count the stream that was lost for as long as it looks alive.
                if rejects >= REJECTS && lost.elapsed() > limits::SESSION_SILENCE {
                    return Err(Lost::Resume(error));
                }
            } else if error.verdict() != Verdict::Retry {
                return Err(Lost::Resume(error));
            }
            delay = self.backoff.next_delay();
            if started.elapsed() >= LONG_ATTEMPT {
                delay = SHORTEST;
            }
            let (about, why) = (self.about(stream), report::chain(&error));
            self.live.figures().set_trouble(&why);
            if is_logged {
                log_about!(debug, about, ?delay, "still interrupted: {why}");
            } else {
                log_about!(
                    info,
                    about,
                    "still interrupted: {why}; retrying for up to {} s",
                    grace.as_secs()
                );
                is_logged = true;
            }
        }
    }
}

/// Ends when the session is over, which only its keeper's owner brings about.
async fn over(live: &SharedSession, turns: &mut watch::Receiver<()>) {
    loop {
        if live.over().is_some() {
            return;
        }
        if turns.changed().await.is_err() {
            pending::<()>().await;
        }
    }
}
