//! Begins a session on its first stream, or finds out that its connections go in plain
//! streams.

use std::sync::Arc;

use bytes::Bytes;
use common::identity::StreamName;
use common::net::{ConnectError, steady};
use common::session::frame::Greeting;
use common::session::handshake::{Exchange, GreetError};
use common::session::proof::ResumeSecret;
use common::session::{CarrierId, Role, STREAM_PREFIX, SessionId, SharedSession};
use common::telemetry::AUDIT;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::{Phase, Shared};
use crate::hub_api::InitiateError;
use crate::limits;
use crate::stream::{ServiceLeg, StreamError, StreamFailure};
use common::session_mode::SessionMode;

type Leg = TlsStream<TcpStream>;

/// A new session and its first stream.
pub(super) struct Begun {
    pub(super) live: SharedSession,
    pub(super) secret: ResumeSecret,
    pub(super) greeting: Greeting,
    pub(super) carrier: CarrierId,
    pub(super) leg: ServiceLeg,
    pub(super) already_read: Bytes,
}

/// Attempts to begin a session while our connection to the hub is lost on the way: that says
/// nothing of the device, and a plain stream is for life.
const ATTEMPTS: u32 = 3;

/// A new session on its first stream, or what becomes of its connections instead.
pub(super) async fn begin(shared: &Shared, name: &StreamName) -> Result<Begun, Phase> {
    let is_auto = shared.config.mode == SessionMode::Auto;
    let identity = &shared.identity;
    if is_auto
        && shared
            .support
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
    let failed = |failure| {
        Phase::Failed(Arc::new(StreamError {
            identity: identity.clone(),
            name: name.clone(),
            failure,
        }))
    };
    let mut attempt = 1;
    let (exchange, greeting, id, secret) = loop {
        let error = match greet(shared, &stream_name).await {
            Ok(greeted) => break greeted,
            Err(error) => error,
        };
        match error {
            // Perhaps there is no such target, or the device took one look at the stream and
            // left; a plain stream will tell.
            Failure::Stream(error) if is_auto && (is_reject(&error) || is_gone(&error)) => {
                tracing::debug!(%identity, %name, "the device takes no session; trying a plain stream: {error}");
                shared.support.doubt(name);
                return Err(Phase::Plain);
            }
            Failure::Stream(error) => return Err(failed(error.failure)),
            Failure::Greet(error @ GreetError::Lost(_)) if attempt < ATTEMPTS => {
                tracing::debug!(%identity, %name, attempt, "a session's first stream was lost: {error}");
                attempt += 1;
            }
            Failure::Greet(error) if is_auto => {
                judge(shared, name, &error);
                return Err(Phase::Plain);
            }
            Failure::Greet(error) => return Err(failed(StreamFailure::Session(error))),
        }
    };
    shared.support.proven();
    let live = SharedSession::with_memory(id, Role::Service, Arc::clone(&shared.memory));
    // Fresh, and not shared yet: it takes its first carrier.
    let Ok(carrier) = live.attach(&live.freeze(), 0) else {
        return Err(Phase::Over);
    };
    if shared.is_quiet {
        tracing::debug!(device = %identity, %name, session = %id, "session opened");
    } else {
        tracing::info!(name: AUDIT, device = %identity, %name, session = %id, "session opened");
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

/// Why there is no session on a stream.
enum Failure {
    Stream(StreamError),
    Greet(GreetError),
}

/// Opens a stream, waits for the greeting, and asks for a new session.
async fn greet(
    shared: &Shared,
    stream_name: &StreamName,
) -> Result<(Exchange<Leg>, Greeting, SessionId, ResumeSecret), Failure> {
    let opening = shared.opener.open(&shared.identity, stream_name);
    let leg = opening.await.map_err(Failure::Stream)?;
    steady(leg.get_ref().get_ref().0);
    let mut exchange = Exchange::new(leg);
    let (id, secret) = (SessionId::random(), ResumeSecret::random());
    let greeting = async {
        let greeting = exchange.greeting(limits::SESSION_HANDSHAKE).await?;
        exchange.hello(id, &secret, shared.config.grace).await?;
        Ok(greeting)
    };
    match greeting.await {
        Ok(greeting) => Ok((exchange, greeting, id, secret)),
        Err(error) => {
            // It was sent nothing so far, and gets no reason: it would not understand it.
            shared.tasks.spawn(exchange.close());
            Err(Failure::Greet(error))
        }
    }
}

/// Remembers what a greeting that did not come, or was none, says of the device.
fn judge(shared: &Shared, name: &StreamName, error: &GreetError) {
    let Shared {
        support, identity, ..
    } = shared;
    let time = match error {
        GreetError::Lost(_) | GreetError::Refused { .. } => return support.doubt(name),
        GreetError::Closed(close_frame) if !close_frame.is_normal() => return support.doubt(name),
        GreetError::Silent(_) => format!("{} s", support.silent().as_secs()),
        GreetError::Malformed(_)
        | GreetError::Version { .. }
        | GreetError::Proof
        | GreetError::Closed(_) => {
            support.mark_plain();
            format!("{} min", limits::SESSION_PLAIN.as_secs() / 60)
        }
    };
    tracing::warn!(
        %identity, %name,
        "the device reports session mode, but: {error}; using plain streams for {time}"
    );
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
