//! Keeps one session: has it begun, runs it over one stream after the other, and ends it.

use std::future::pending;
use std::sync::Arc;

use common::backoff::Backoff;
use common::dial;
use common::identity::{DeviceIdentity, StreamName};
use common::limits;
use common::path_watch::PathWatch;
use common::report;
use common::session::frame::Greeting;
use common::session::handshake::{Exchange, GreetError};
use common::session::proof::ResumeSecret;
use common::session::{CarrierEnd, Code, Over, SharedSession, carry};
use common::telemetry::AUDIT;
use common::wire::initiation::Timeouts;
use tokio::sync::watch;
use tokio::time::{Duration, Instant, sleep, sleep_until};
use tracing::field::display;

use super::begin::{Carrier, begin, is_reject, stream_name};
use super::{Phase, Shared};
use crate::hub_api::InitiateError;
use crate::stream::{StreamError, StreamFailure};

/// Time limits of the requests that open a session again: what is lost in a half-dead
/// hub session of the device costs seconds.
const AGAIN: Timeouts = Timeouts {
    connect: Duration::from_secs(5),
    response: Duration::from_secs(5),
};
/// Delays between attempts that brought nothing.
const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(5);
/// An attempt that took this long was a wait by itself.
const LONG_ATTEMPT: Duration = Duration::from_secs(1);
/// A stream that lasted this long was no failure, though it carried nothing.
const STEADY: Duration = Duration::from_secs(5);
/// Rejects in a row that are no accident: the device-proxy there is another one.
const REJECTS: u32 = 5;
/// How often an unused session is looked at.
const IDLE_LOOK: Duration = Duration::from_secs(30);

/// From the first stream to the end of the session; `phases` tells how far it is.
pub(super) async fn keep(shared: Arc<Shared>, name: StreamName, phases: watch::Sender<Phase>) {
    let begun = tokio::select! {
        begun = begin(&shared, &name) => begun,
        () = shared.stop.cancelled() => return,
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
        secret: begun.secret,
        greeting: begun.greeting,
        phases: &phases,
        backoff: Backoff::new(SHORTEST, LONGEST),
        progress: 0,
    };
    phases.send_replace(Phase::Up(begun.live));
    keeper.run(begun.carrier).await;
    phases.send_replace(Phase::Over);
}

/// Why a session cannot go on; retrying does not cure it.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("the device-proxy was started anew")]
    OtherBoot,
    #[error("the device {0} is disabled at the hub; once it is enabled again, connect anew")]
    Disabled(DeviceIdentity),
    #[error(transparent)]
    Refused(GreetError),
    #[error("{0}")]
    Stream(StreamFailure),
    #[error("no way to the device was found for {} s", .0.as_secs())]
    Grace(Duration),
    #[error("the program stops")]
    Stopped,
    #[error("it ended in the meantime")]
    Over,
}

/// What an attempt to go on came to.
enum Attempt {
    Done(Box<Carrier>),
    Retry(String),
    Rejected,
    Never(Lost),
}

struct Keeper<'a> {
    shared: &'a Shared,
    name: &'a StreamName,
    live: SharedSession,
    secret: ResumeSecret,
    /// Of the first stream: a resume is for the same run of the device's program.
    greeting: Greeting,
    phases: &'a watch::Sender<Phase>,
    backoff: Backoff,
    /// Bytes that had made their way when the last stream was lost.
    progress: u64,
}

impl Keeper<'_> {
    async fn run(mut self, mut carrier: Carrier) {
        let (device, name, session) = (&self.shared.identity, self.name, self.live.id());
        loop {
            let begun = Instant::now();
            let stream = carrier.stream.map(display);
            let end = self.carry(carrier).await;
            let lasted = begun.elapsed();
            if matches!(end, CarrierEnd::Over) || self.live.over().is_some() {
                break;
            }
            let lost = Instant::now();
            let (connections, held) = (self.live.connections(), self.live.held());
            tracing::warn!(
                name: AUDIT, %device, %name, stream, %session, connections, held,
                "session interrupted: {}; connections wait, opening it again", report::chain(&end)
            );
            self.shared.keep_to_budget();
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
                        tracing::warn!(name: AUDIT, %device, %name, %session, connections, "session lost: {why}");
                    }
                    return;
                }
            }
            let seconds = lost.elapsed().as_secs_f32();
            let stream = carrier.stream.map(display);
            tracing::info!(name: AUDIT, %device, %name, stream, %session, seconds, "session resumed");
        }
        match self.live.over() {
            Some(Over::Ended) if self.shared.is_quiet => {}
            Some(Over::Ended) => {
                tracing::info!(name: AUDIT, %device, %name, %session, "session closed")
            }
            Some(Over::PeerBroke(code, text)) if text.is_empty() => {
                tracing::warn!(name: AUDIT, %device, %name, %session, "session ended by the device: {code}");
            }
            Some(Over::PeerBroke(code, text)) => {
                tracing::warn!(name: AUDIT, %device, %name, %session, "session ended by the device: {code} ({text})");
            }
            Some(Over::Broken(Code::Stopping)) | None => {}
            Some(Over::Broken(code)) => {
                tracing::warn!(name: AUDIT, %device, %name, %session, "session ended: {code}");
            }
        }
    }

    /// Runs over one stream; an unused session is ended, a stopped one broken off.
    async fn carry(&self, carrier: Carrier) -> CarrierEnd {
        let carrying = carry(&self.live, carrier.id, carrier.leg, carrier.already_read);
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
    /// once, unless the last stream `lasted` for moments only and brought no byte forward.
    async fn open_again(&mut self, lost: Instant, lasted: Duration) -> Result<Carrier, Lost> {
        let grace = self.shared.config.grace;
        let progress = self.live.progress();
        let mut delay = if progress > self.progress || lasted >= STEADY {
            self.backoff.reset();
            Duration::ZERO
        } else {
            self.backoff.next_delay()
        };
        self.progress = progress;
        let hub = self.shared.opener.api().hub();
        // One for the whole outage: a new one would not know that the path was away.
        let mut path = PathWatch::new(hub.name(), hub.https_port());
        let mut turns = self.live.turns();
        let mut rejects = 0;
        let mut told = false;
        loop {
            // One that carries nothing is not worth an attempt every few seconds for days.
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
            let attempt = tokio::select! {
                attempt = self.attempt(lost) => attempt,
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
            let why = match attempt {
                Attempt::Done(carrier) => return Ok(*carrier),
                Attempt::Never(lost) => return Err(lost),
                Attempt::Rejected => {
                    rejects += 1;
                    // The device may count the stream that was lost for as long as it looks alive.
                    if rejects >= REJECTS && lost.elapsed() > limits::SESSION_SILENCE {
                        return Err(Lost::Stream(InitiateError::Rejected.into()));
                    }
                    InitiateError::Rejected.to_string()
                }
                Attempt::Retry(why) => why,
            };
            delay = self.backoff.next_delay();
            if started.elapsed() >= LONG_ATTEMPT {
                delay = SHORTEST;
            }
            let (device, name, session) = (&self.shared.identity, self.name, self.live.id());
            if told {
                tracing::debug!(%device, %name, %session, ?delay, "still interrupted: {why}");
            } else {
                tracing::info!(%device, %name, %session, "still interrupted: {why}; trying on for {} s", grace.as_secs());
                told = true;
            }
        }
    }

    /// One stream, and the question whether the session goes on over it.
    async fn attempt(&self, lost: Instant) -> Attempt {
        let Some(stream_name) = stream_name(self.name) else {
            return Attempt::Never(Lost::Over);
        };
        let opening = self
            .shared
            .opener
            .open_within(&self.shared.identity, &stream_name, AGAIN);
        let stream = match opening.await {
            Ok(stream) => stream,
            Err(error) if is_reject(&error) => return Attempt::Rejected,
            // Its operator may have seen to that: it will not come back by itself.
            Err(error) if is_offline(&error) && self.is_disabled(lost).await => {
                return Attempt::Never(Lost::Disabled(self.shared.identity.clone()));
            }
            Err(error) => {
                return if is_final(&error.failure) {
                    Attempt::Never(Lost::Stream(error.failure))
                } else {
                    Attempt::Retry(error.failure.to_string())
                };
            }
        };
        dial::steady(stream.leg.get_ref().get_ref().0);
        let mut exchange = Exchange::new(stream.leg);
        // It is known to speak session mode, and may be at the end of a bad path.
        let greeting = match exchange.greeting(limits::SESSION_RESUME).await {
            Ok(greeting) => greeting,
            Err(error @ GreetError::Version { .. }) => return Attempt::Never(Lost::Refused(error)),
            Err(error) => return Attempt::Retry(error.to_string()),
        };
        if greeting.boot_id != self.greeting.boot_id {
            exchange.close().await;
            return Attempt::Never(Lost::OtherBoot);
        }
        let frozen = self.live.freeze();
        let resuming = exchange.resume(&greeting, self.live.id(), &self.secret, frozen.received);
        match resuming.await {
            Ok(received) => match self.live.attach(&frozen, received) {
                Ok(carrier) => {
                    let (leg, already_read) = exchange.into_parts();
                    Attempt::Done(Box::new(Carrier {
                        id: carrier,
                        stream: stream.id,
                        leg,
                        already_read,
                    }))
                }
                Err(error) => Attempt::Retry(error.to_string()),
            },
            Err(error @ (GreetError::Refused { .. } | GreetError::Proof)) => {
                Attempt::Never(Lost::Refused(error))
            }
            Err(error) => Attempt::Retry(error.to_string()),
        }
    }

    async fn is_disabled(&self, lost: Instant) -> bool {
        let Shared {
            support,
            opener,
            identity,
            ..
        } = self.shared;
        support
            .is_disabled(opener.api(), identity, lost.elapsed())
            .await
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

/// Whether the device has no hub session, as far as the hub tells.
fn is_offline(error: &StreamError) -> bool {
    matches!(
        error.failure,
        StreamFailure::Initiate(InitiateError::DeviceOffline { .. })
    )
}

/// Whether trying again is of no use.
fn is_final(failure: &StreamFailure) -> bool {
    match failure {
        StreamFailure::Initiate(error) => matches!(
            error,
            InitiateError::UnknownDevice(_)
                | InitiateError::UnknownModule(_)
                | InitiateError::Unauthorised { .. }
                | InitiateError::TokenExpired
        ),
        _ => false,
    }
}
