//! Stream initiation: ask the device, wait, hand out the streaming endpoint. [`Initiate`] is the
//! one seam between who asks for a stream and who holds the device: in a hub of several nodes the
//! node that holds the device's hub session does all of this, so that URL and token are its own.

use std::sync::Arc;

use common::clock::unix_now;
use common::identity::{DeviceIdentity, Leg, StreamId, StreamName};
use common::secret::Secret;
use common::wire::initiation::Timeouts;
use common::wire::stream::{Initiator, StreamRequest};
use tokio::time::Instant;

use crate::events::audit::AuditStopped;
use crate::events::{self, Event, Events, Outcome};
use crate::legs::{ExpectRefused, Opener, Own};
use crate::limits;
use crate::pending::{AskRefused, NoAnswer};
use crate::registry::RegistryError;
use crate::state::HubState;
use crate::streaming;

/// A service asks for a stream.
#[derive(Debug)]
pub struct Ask {
    /// The device or module; it exists.
    pub identity: DeviceIdentity,
    /// The stream's name, by which the device chooses its target.
    pub name: StreamName,
    /// Who asks.
    pub opener: Opener,
    /// How long the device may take to connect and to answer.
    pub timeouts: Timeouts,
}

/// The device takes the stream.
#[derive(Debug)]
pub struct Accepted {
    /// The stream.
    pub stream: StreamId,
    /// The streaming endpoint's URL for the service's leg.
    pub url: String,
    /// Its bearer token, for one use.
    pub token: Secret,
}

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The device does not take it.
    #[error("the device rejected the stream")]
    Rejected(StreamId),
    /// The device is not here, or its stream ended before its answer.
    #[error("Timed out waiting for device to connect.")]
    NotOnline,
    /// The device does not answer.
    #[error("Timed out waiting for the response from device.")]
    NoAnswer,
    /// There are too many streams, or the hub is stopping.
    #[error(transparent)]
    Legs(#[from] ExpectRefused),
    /// There are too many requests, or the hub is stopping.
    #[error(transparent)]
    Pending(#[from] AskRefused),
    /// The token that it was asked for with was revoked meanwhile.
    #[error("the token {0} was revoked")]
    Revoked(Arc<str>),
    /// The registry cannot be asked.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// It could not be recorded.
    #[error(transparent)]
    Audit(#[from] AuditStopped),
    /// No token can be signed for its legs.
    #[error("the stream token cannot be made")]
    NotSigned,
}

impl Refused {
    /// Names it among a fixed set of words.
    fn kind(&self) -> &'static str {
        match self {
            Self::Rejected(_) => "rejected",
            Self::NotOnline => "not_online",
            Self::NoAnswer => "no_answer",
            Self::Legs(ExpectRefused::TooMany(_)) | Self::Pending(AskRefused::TooMany(_)) => {
                "throttled"
            }
            Self::Legs(ExpectRefused::Stopping) | Self::Pending(AskRefused::Stopping) => "stopping",
            Self::Audit(_) => "audit",
            Self::Revoked(_) => "revoked",
            Self::NotSigned | Self::Registry(_) => "failed",
        }
    }
}

/// Who can bring a stream about.
pub trait Initiate {
    /// Asks the device and waits for its answer, as long as the ask says and
    /// [`limits::STREAM_HANDSHAKE`] at most. Dropping the future gives the stream up.
    ///
    /// # Errors
    /// [`Refused`].
    fn initiate(&self, ask: Ask) -> impl Future<Output = Result<Accepted, Refused>> + Send;
}

/// In the process that holds the device.
impl Initiate for HubState {
    async fn initiate(&self, ask: Ask) -> Result<Accepted, Refused> {
        // Before there is anything to record: what is refused for want of a log must not fill it.
        if let Err(stopped) = self.events.allow_streams() {
            let refused = Refused::from(stopped);
            self.events.counts().stream_not_asked(refused.kind());
            return Err(refused);
        }
        let stream = StreamId::random();
        let described = events::Stream {
            id: &stream,
            device: &ask.identity,
            name: ask.name.as_str(),
            policy: &ask.opener.policy,
            peer: &ask.opener.peer,
            person: ask.opener.person.as_deref(),
        };
        let undecided = Undecided {
            events: &self.events,
            stream: described,
            is_decided: false,
        };
        let answered = initiate(self, stream, described, &ask).await;
        undecided.decide(match &answered {
            Ok(_) => Outcome::Accepted,
            Err(Refused::Rejected(_)) => Outcome::Rejected,
            Err(refused) => Outcome::NotAnswered {
                reason: refused,
                kind: refused.kind(),
            },
        });
        answered
    }
}

/// A stream without an outcome: dropped, as its initiation is, it was given up.
struct Undecided<'a> {
    events: &'a Events,
    stream: events::Stream<'a>,
    is_decided: bool,
}

impl Undecided<'_> {
    fn decide(mut self, outcome: Outcome<'_>) {
        self.is_decided = true;
        self.events.emit(Event::Stream(self.stream, outcome));
    }
}

impl Drop for Undecided<'_> {
    fn drop(&mut self) {
        if !self.is_decided {
            self.events
                .emit(Event::Stream(self.stream, Outcome::GivenUp));
        }
    }
}

async fn initiate(
    state: &HubState,
    stream: StreamId,
    described: events::Stream<'_>,
    ask: &Ask,
) -> Result<Accepted, Refused> {
    let started = Instant::now();
    let total = started + limits::STREAM_HANDSHAKE;
    let Ask {
        identity,
        name,
        opener,
        timeouts,
    } = ask;
    // So that a device can share what it has among those who want it.
    let initiator = Initiator {
        ip: opener.peer.ip().to_canonical(),
        policy: opener.policy.clone(),
    };
    let token_until =
        unix_now() + limits::STREAM_HANDSHAKE.as_secs() + limits::LEG_ARRIVAL.as_secs();
    let mint = |leg| {
        let token = state.tokens.mint(stream, leg, token_until);
        token.map_err(|_| Refused::NotSigned)
    };
    let device_url = streaming::url(&state.address, identity, stream, Leg::Device);
    let device_token = mint(Leg::Device)?;
    let token = mint(Leg::Service)?;
    let [of_policy, of_identity] = state
        .quotas
        .streams(&opener.policy, identity)
        .map(|most| most.map(|most| usize::try_from(most).unwrap_or(usize::MAX)));
    let own = Own {
        of_identity,
        of_policy,
    };
    let expected = state
        .legs
        .expect(stream, identity, name, opener.clone(), own)
        .inspect_err(|refused| {
            if let ExpectRefused::TooMany(over) = refused {
                state
                    .quotas
                    .report(over, Some(&opener.policy), Some(identity));
            }
        })?;
    // It was checked before the stream was entered: whoever has revoked it in between has found no
    // stream to end.
    if let Some(token) = &opener.token
        && !state.registry.token_stands(token).await?
    {
        return Err(Refused::Revoked(Arc::clone(token)));
    }
    let mut asked = state
        .pending
        .streams
        .ask(identity, |request_id| StreamRequest {
            request_id,
            name: name.as_str().to_owned(),
            url: device_url,
            token: device_token,
            initiator: Some(initiator),
        })
        .inspect_err(|refused| {
            if let AskRefused::TooMany(over) = refused {
                state
                    .quotas
                    .report(over, Some(&opener.policy), Some(identity));
            }
        })?;
    state.events.emit(Event::StreamRequested(described));
    state.presence.wake(identity);
    let answered = async {
        let connect_by = (started + timeouts.connect).min(total);
        // A session that is busy or slow to take it is there all the same.
        let is_here = || state.presence.is_subscribed(identity);
        if !is_here() && !asked.is_taken(connect_by).await && !is_here() {
            return Err(Refused::NotOnline);
        }
        let answer_by = (Instant::now() + timeouts.response).min(total);
        asked.answer(answer_by).await.map_err(|none| match none {
            NoAnswer::Ended => Refused::NotOnline,
            NoAnswer::Late => Refused::NoAnswer,
        })
    };
    let is_accepted = tokio::select! {
        answered = answered => answered?,
        // Its leg has come and gone, or the identity may have no streams any more.
        () = expected.cancel.cancelled() => return Err(Refused::NotOnline),
    };
    if !is_accepted {
        return Err(Refused::Rejected(stream));
    }
    if !expected.accept() {
        return Err(Refused::NotOnline);
    }
    Ok(Accepted {
        stream,
        url: streaming::url(&state.address, identity, stream, Leg::Service),
        token,
    })
}
