//! Begins a session on its first stream, or finds out that its connections go in plain
//! streams.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::identity::{StreamId, StreamName};
use common::net::TlsHostStream;
use common::session::frame::Greeting;
use common::session::handshake::{Exchange, HandshakeError};
use common::session::proof::ResumeSecret;
use common::session::{CarrierId, Role, STREAM_PREFIX, SessionId, SharedSession};
use common::session_mode::SessionMode;
use common::telemetry::About;
use common::{log_about, report};

use super::{Phase, Shared};
use crate::limits;
use crate::stream::{ServiceLeg, StreamError, StreamFailure};

/// A new session and its first stream.
pub(super) struct Begun {
    /// What the target's carriers are called.
    pub(super) stream_name: StreamName,
    pub(super) live: SharedSession,
    pub(super) secret: ResumeSecret,
    pub(super) greeting: Greeting,
    pub(super) carrier: Carrier,
}

/// A stream that carries a session from now on.
pub(super) struct Carrier {
    pub(super) id: CarrierId,
    pub(super) stream: Option<StreamId>,
    pub(super) leg: ServiceLeg,
    /// What came behind the handshake.
    pub(super) already_read: Bytes,
}

/// Attempts to begin a session while our connection to the hub is lost on the way: that is not the
/// device's fault, and a connection that begins in a plain stream stays in it.
const ATTEMPTS: u32 = 3;

/// Begins a session on its first stream, or finds what becomes of its connections instead.
pub(super) async fn begin(shared: &Shared, name: &StreamName) -> Result<Begun, Phase> {
    let is_auto = shared.config().mode == SessionMode::Auto;
    let identity = &shared.identity;
    let about = |stream: Option<StreamId>| About::stream(stream.as_ref(), name).of(identity);
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
        log_about!(
            debug,
            about(None),
            "a plain stream: the name is too long for session mode"
        );
        return Err(Phase::Plain);
    };
    let failed = |stream, failure| {
        Phase::Failed(Arc::new(StreamError {
            identity: identity.clone(),
            name: name.clone(),
            stream,
            failure,
        }))
    };
    let mut attempt = 1;
    let greeted = loop {
        let error = match greet(shared, &stream_name).await {
            Ok(greeted) => break greeted,
            Err(error) => error,
        };
        match error {
            // Perhaps there is no such target, or the device closed the stream at once; a plain
            // stream shows which.
            Failure::Stream(StreamError {
                failure, stream, ..
            }) if is_auto && (failure.is_reject() || failure.is_gone()) => {
                log_about!(
                    debug,
                    about(stream),
                    "the device takes no session; trying a plain stream: {}",
                    report::chain(&*failure)
                );
                shared.support.doubt(name);
                return Err(Phase::Plain);
            }
            Failure::Stream(error) => return Err(failed(error.stream, error.failure)),
            Failure::Greet(stream, error @ HandshakeError::Lost(_)) if attempt < ATTEMPTS => {
                log_about!(
                    debug,
                    about(stream),
                    attempt,
                    "a session's first stream was lost: {}",
                    report::chain(&error)
                );
                attempt += 1;
            }
            Failure::Greet(stream, error) if is_auto => {
                if let Some(time) = shared.support.judge(name, &error) {
                    log_about!(
                        warn,
                        about(stream),
                        "the device reports session mode, but: {}; using plain streams for {}",
                        report::chain(&error),
                        in_words(time)
                    );
                }
                return Err(Phase::Plain);
            }
            Failure::Greet(stream, error) => {
                return Err(failed(stream, Box::new(StreamFailure::Session(error))));
            }
        }
    };
    shared.support.proven();
    let Greeted {
        exchange,
        stream,
        greeting,
        id,
        secret,
    } = greeted;
    let live = SharedSession::with_memory(id, Role::Service, shared.room.memory());
    // Fresh, and not shared yet: it takes its first carrier.
    let Ok(carrier) = live.attach(&live.freeze(), 0) else {
        return Err(Phase::Over);
    };
    let about = about(stream).within(Some(&id), None);
    if shared.is_quiet {
        log_about!(debug, about, "session opened");
    } else {
        log_about!(audit info, about, "session opened");
    }
    let (leg, already_read) = exchange.into_parts();
    Ok(Begun {
        stream_name,
        live,
        secret,
        greeting,
        carrier: Carrier {
            id: carrier,
            stream,
            leg,
            already_read,
        },
    })
}

/// A stream on which a new session was asked for.
struct Greeted {
    exchange: Exchange<TlsHostStream>,
    stream: Option<StreamId>,
    greeting: Greeting,
    id: SessionId,
    secret: ResumeSecret,
}

/// Why there is no session on a stream.
enum Failure {
    Stream(StreamError),
    Greet(Option<StreamId>, HandshakeError),
}

/// Opens a stream, waits for the greeting, and asks for a new session.
async fn greet(shared: &Shared, stream_name: &StreamName) -> Result<Greeted, Failure> {
    let opening = shared.opener.open(&shared.identity, stream_name);
    let mut stream = opening.await.map_err(Failure::Stream)?;
    stream.leg.get_mut().get_mut().steady();
    let mut exchange = Exchange::new(stream.leg);
    let (id, secret) = (SessionId::random(), ResumeSecret::random());
    let greeting = async {
        let greeting = exchange.greeting(limits::SESSION_HANDSHAKE).await?;
        exchange.hello(id, &secret, shared.config().grace).await?;
        Ok(greeting)
    };
    match greeting.await {
        Ok(greeting) => Ok(Greeted {
            exchange,
            stream: stream.id,
            greeting,
            id,
            secret,
        }),
        Err(error) => {
            // It was sent nothing so far, and gets no reason, which it would not understand.
            shared.tasks.spawn(exchange.close());
            Err(Failure::Greet(stream.id, error))
        }
    }
}

fn in_words(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds < 600 => format!("{seconds} s"),
        seconds => format!("{} min", seconds / 60),
    }
}

/// What a target's carriers are called; `None` if that is too long for a name.
pub(super) fn stream_name(name: &StreamName) -> Option<StreamName> {
    StreamName::parse(&format!("{STREAM_PREFIX}{name}")).ok()
}
