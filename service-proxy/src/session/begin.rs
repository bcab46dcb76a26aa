//! Begins a session on its first stream, or finds out that its connections go in plain
//! streams.

use std::sync::Arc;

use bytes::Bytes;
use common::dial;
use common::identity::StreamName;
use common::limits;
use common::session::frame::Greeting;
use common::session::greet::{Exchange, GreetError};
use common::session::handshake::ResumeSecret;
use common::session::{CarrierId, Live, Role, STREAM_PREFIX, SessionId};
use common::websocket::ConnectError;

use super::{Phase, Shared};
use crate::cli::SessionMode;
use crate::hub_api::InitiateError;
use crate::stream::{ServiceLeg, StreamError, StreamFailure};

/// A new session and its first stream.
pub(super) struct Begun {
    pub(super) live: Live,
    pub(super) secret: ResumeSecret,
    pub(super) greeting: Greeting,
    pub(super) carrier: CarrierId,
    pub(super) leg: ServiceLeg,
    pub(super) already_read: Bytes,
}

/// A new session on its first stream, or what becomes of its connections instead.
pub(super) async fn begin(shared: &Shared, name: &StreamName) -> Result<Begun, Phase> {
    let is_auto = shared.config.mode == SessionMode::Auto;
    let identity = &shared.identity;
    if is_auto
        && shared
            .ability
            .ask(shared.opener.api(), identity)
            .await
            .is_none()
    {
        return Err(Phase::Plain);
    }
    let Some(stream_name) = stream_name(name) else {
        tracing::debug!(%identity, %name, "a plain stream: the name is too long for session mode");
        return Err(Phase::Plain);
    };
    let failed = |error| Phase::Failed(Arc::new(error));
    let leg = match shared.opener.open(identity, &stream_name).await {
        Ok(leg) => leg,
        // Perhaps there is no such target, or the device took one look at the stream and
        // left; a plain stream will tell.
        Err(error) if is_auto && (is_reject(&error) || is_gone(&error)) => {
            tracing::debug!(%identity, %name, "the device takes no session; trying a plain stream: {error}");
            shared.ability.doubt();
            return Err(Phase::Plain);
        }
        Err(error) => {
            return Err(failed(StreamError {
                name: name.clone(),
                ..error
            }));
        }
    };
    dial::steady(leg.get_ref().get_ref().0);
    let mut exchange = Exchange::new(leg);
    let (id, secret) = (SessionId::random(), ResumeSecret::random());
    let saying = async {
        let greeting = exchange.greeting(limits::SESSION_HANDSHAKE).await?;
        exchange.hello(id, &secret, shared.config.grace).await?;
        Ok::<_, GreetError>(greeting)
    };
    let greeting = match saying.await {
        Ok(greeting) => greeting,
        Err(error) => {
            // Told nothing so far, and not told why: it would not understand.
            shared.tasks.spawn(exchange.close());
            // What the network or the hub did says nothing of the device.
            let is_wrong = match &error {
                GreetError::Lost(_) | GreetError::Refused { .. } => false,
                GreetError::Closed(goodbye) => goodbye.is_normal(),
                _ => true,
            };
            if is_auto {
                if is_wrong {
                    shared.ability.mark_plain();
                    tracing::warn!(
                        %identity, %name,
                        "the device reports session mode, but: {error}; using plain streams for {} min",
                        limits::SESSION_PLAIN.as_secs() / 60
                    );
                } else {
                    shared.ability.doubt();
                }
                return Err(Phase::Plain);
            }
            return Err(failed(StreamError {
                identity: identity.clone(),
                name: name.clone(),
                failure: StreamFailure::Session(error),
            }));
        }
    };
    let live = Live::new(id, Role::Service);
    // Fresh, and nobody else's: it takes its first carrier.
    let Ok(carrier) = live.attach(&live.freeze(), 0) else {
        return Err(Phase::Over);
    };
    if shared.is_quiet {
        tracing::debug!(device = %identity, %name, session = %id, "session opened");
    } else {
        tracing::info!(device = %identity, %name, session = %id, "session opened");
    }
    let (leg, already_read) = exchange.into_parts();
    Ok(Begun {
        live,
        secret,
        greeting,
        carrier,
        leg,
        already_read,
    })
}

/// What a target's carriers are called; `None` if that is too long for a name.
pub(super) fn stream_name(name: &StreamName) -> Option<StreamName> {
    StreamName::parse(&format!("{STREAM_PREFIX}{name}")).ok()
}

/// Whether the device does not take the stream.
pub(super) fn is_reject(error: &StreamError) -> bool {
    matches!(
        error.failure,
        StreamFailure::Initiate(InitiateError::Rejected)
    )
}

/// Whether the device had left the stream before we came.
fn is_gone(error: &StreamError) -> bool {
    matches!(
        error.failure,
        StreamFailure::Endpoint(ConnectError::Refused { .. })
    )
}
