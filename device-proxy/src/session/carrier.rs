//! One stream that carries a session: handshake, a new session or a resumed one, to its end.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use common::locks::lock;
use common::net::TlsHostStream;
use common::network::Network;
use common::session::frame::Code;
use common::session::handshake::{Exchange, HandshakeError, ResumeRequest, SessionRequest};
use common::session::proof::ResumeSecret;
use common::session::{CarrierEnd, CarrierId, Role, SessionId, SharedSession, drive_carrier};
use common::wire::stream::{Initiator, StreamRequest};
use common::wire::streaming_endpoint::StreamingEndpoint;
use common::{log_about, report, telemetry};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::{Entry, Sessions, keep};
use crate::admission::check_hours;
use crate::counts::{Rejection, SessionEvent};
use crate::policy::Policy;
use crate::requests::{Answer, Desk, Requested};
use crate::target::Target;

/// Serves a request whose stream carries a session to the target of this name.
pub(crate) async fn serve(
    desk: &Arc<Desk>,
    sessions: &Arc<Sessions>,
    policy: &Policy,
    (request, endpoint): (&StreamRequest, StreamingEndpoint),
    stream: &Requested<'_>,
) {
    let name = stream.name;
    // What has a session goes on with it.
    if !policy.accept && !sessions.has(name) {
        log_about!(
            info,
            stream.about(),
            "rejected a session: no new stream is accepted now"
        );
        desk.counts.rejected(Rejection::NotNow);
        return desk.answer(request, Answer::Reject).await;
    }
    let Some(target) = policy.targets.select(name) else {
        log_about!(
            warn,
            stream.about(),
            "rejected a session: no target has this name"
        );
        desk.failed(stream, Rejection::NoTarget, "no target has this name");
        return desk.answer(request, Answer::Reject).await;
    };
    let about = || stream.about().target(target);
    if !sessions.has(name)
        && let Err(denied) = check_hours(&policy.rules, policy.rule(name, target))
    {
        log_about!(warn, about(), "rejected a session: {denied}");
        desk.failed(stream, Rejection::Rule, &denied.to_string());
        return desk.answer(request, Answer::Reject).await;
    }
    // Held as long as the stream, as for any other. One that may resume a session is let in
    // without: the session's last stream may still hold a permit, since it looks alive.
    let permit = desk.permit();
    if permit.is_none() && !sessions.has(name) {
        log_about!(
            warn,
            about(),
            "rejected a session: too many streams at once"
        );
        desk.failed(stream, Rejection::Limit, "too many streams at once");
        return desk.answer(request, Answer::Reject).await;
    }
    let mut leg = match desk.open_leg(request, endpoint).await {
        Some(Ok(leg)) => leg,
        Some(Err(error)) => {
            let error = report::chain(&error);
            log_about!(warn, about(), "accepted a session, but: {error}");
            desk.failed(stream, Rejection::Leg, &error);
            return;
        }
        None => return,
    };
    leg.get_mut().get_mut().steady();
    let mut exchange = Exchange::new(leg);
    let asked = tokio::select! {
        asked = exchange.greet(desk.boot_id) => asked,
        () = desk.stop.cancelled() => {
            let _ = exchange.refuse(Code::Stopping, "").await;
            return;
        }
    };
    let begun = match asked {
        Ok(SessionRequest::New { id, secret, grace }) => {
            let caller = request.initiator.as_ref();
            begin(
                (desk, sessions),
                &mut exchange,
                id,
                secret,
                grace,
                (stream, target, caller),
            )
            .await
        }
        Ok(SessionRequest::Resume(asked)) => {
            let caller = request.initiator.as_ref();
            resume(sessions, &mut exchange, &asked, (stream, caller)).await
        }
        Err(error) => Err(error),
    };
    match begun {
        Ok(Some((entry, carrier))) => {
            let (leg, already_read) = exchange.into_parts();
            run(sessions, &entry, carrier, stream, leg, already_read).await;
        }
        Ok(None) => exchange.close().await,
        Err(error) => {
            let error = report::chain(&error);
            log_about!(warn, about(), "a stream came to no session: {error}");
            desk.failed(stream, Rejection::Session, &error);
        }
    }
}

/// Whose a session counts as, when what all of them may take has to be shared. Addresses that
/// one host may have by the million count as one.
fn holder(caller: Option<&Initiator>, name: &str) -> Arc<str> {
    match caller {
        Some(Initiator { ip, policy }) => {
            let network = Network::of(*ip);
            format!("{policy}@{network}").into()
        }
        None => name.into(),
    }
}

/// A session on a carrier; `None` if it was refused, which the service was sent.
type Begun = Result<Option<(Arc<Entry>, CarrierId)>, HandshakeError>;

async fn begin(
    (desk, sessions): (&Arc<Desk>, &Arc<Sessions>),
    exchange: &mut Exchange<TlsHostStream>,
    id: SessionId,
    secret: ResumeSecret,
    service_grace: Duration,
    (stream, target, caller): (&Requested<'_>, &Target, Option<&Initiator>),
) -> Begun {
    let about = stream.about().target(target).within(Some(&id), None);
    if !desk.policy().accept {
        log_about!(
            info,
            about,
            "refused a session: no new stream is accepted now"
        );
        desk.counts.rejected(Rejection::NotNow);
        exchange.refuse(Code::Withdrawn, "").await?;
        return Ok(None);
    }
    let live = SharedSession::with_memory(id, Role::Device, Arc::clone(&sessions.memory));
    // Attached before it can be seen, and evicted, as a detached session.
    let Ok(carrier) = live.attach(&live.freeze(), 0) else {
        return Ok(None);
    };
    let entry = Entry {
        live: live.clone(),
        secret,
        name: stream.name.to_owned(),
        target: target.clone(),
        holder: holder(caller, stream.name),
        caller: Mutex::new(caller.cloned()),
        began: Instant::now(),
        stream: Mutex::new(stream.id),
        connections: Semaphore::new(sessions.bounds().most_of_one),
    };
    let Some(entry) = sessions.insert(entry) else {
        log_about!(warn, about, "refused a session: too many at once");
        desk.counts.rejected(Rejection::Limit);
        exchange.refuse(Code::Limit, "").await?;
        return Ok(None);
    };
    // Kept even if the stream is lost right now: the service may have begun it already.
    desk.spawn(keep::keep(
        Arc::clone(desk),
        Arc::clone(sessions),
        Arc::clone(&entry),
    ));
    log_about!(audit info, about, "session opened");
    desk.counts.session(SessionEvent::Opened);
    log_about!(
        debug,
        about,
        ?service_grace,
        "the service keeps the session for this long"
    );
    if let Err(error) = exchange.welcome(sessions.grace()).await {
        live.freeze();
        sessions.keep_to_budget();
        return Err(error);
    }
    Ok(Some((entry, carrier)))
}

async fn resume(
    sessions: &Sessions,
    exchange: &mut Exchange<TlsHostStream>,
    asked: &ResumeRequest,
    (stream, caller): (&Requested<'_>, Option<&Initiator>),
) -> Begun {
    let about = stream.about().within(Some(&asked.id), None);
    let Some(entry) = sessions.find(asked.id) else {
        log_about!(
            warn,
            about,
            "refused to resume a session: it is not known here"
        );
        exchange.refuse(Code::Unknown, "").await?;
        return Ok(None);
    };
    // Nothing of the session changes before the proof holds.
    if entry.name != stream.name || !asked.is_proven(&entry.secret) {
        log_about!(
            warn,
            about,
            "refused to resume a session: it has another target, or the proof is wrong"
        );
        exchange.refuse(Code::Foreign, "").await?;
        return Ok(None);
    }
    let lost_for = entry.live.detached_since().map(|since| since.elapsed());
    // From here on nothing is taken from an older carrier, so that the offset stays true.
    let frozen = match entry.live.freeze_for(asked.received) {
        Ok(frozen) => frozen,
        Err(violation) => {
            log_about!(warn, about, "refused to resume a session: {violation}");
            exchange
                .refuse(Code::Protocol, "the offsets do not fit")
                .await?;
            return Ok(None);
        }
    };
    if let Err(error) = exchange
        .resumed(asked, &entry.secret, frozen.received)
        .await
    {
        sessions.keep_to_budget();
        return Err(error);
    }
    match entry.live.attach(&frozen, asked.received) {
        Ok(carrier) => {
            *lock(&entry.stream) = stream.id;
            *lock(&entry.caller) = caller.cloned();
            let seconds = telemetry::seconds(lost_for.unwrap_or_default());
            log_about!(audit info, about, seconds, "session resumed");
            sessions.counts.session(SessionEvent::Resumed);
            Ok(Some((entry, carrier)))
        }
        Err(error) => {
            log_about!(debug, about, "{error}");
            Ok(None)
        }
    }
}

async fn run(
    sessions: &Sessions,
    entry: &Entry,
    carrier: CarrierId,
    stream: &Requested<'_>,
    leg: common::websocket::WebSocket<TlsHostStream>,
    already_read: Bytes,
) {
    let end = drive_carrier(&entry.live, carrier, leg, already_read).await;
    let about = stream.about().within(Some(&entry.live.id()), None);
    match &end {
        // The session's keeper logs its end.
        CarrierEnd::Over => {}
        CarrierEnd::Superseded => {
            log_about!(debug, about, "{end}");
        }
        _ => {
            log_about!(
                audit warn,
                about,
                connections = entry.live.connections(),
                held = entry.live.held(),
                "session detached: {}; kept for {} s", report::chain(&end), sessions.grace().as_secs()
            );
            sessions.counts.session(SessionEvent::Detached);
            sessions.keep_to_budget();
        }
    }
}
