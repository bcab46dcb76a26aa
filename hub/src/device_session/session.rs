//! A session's loop: the socket, the hub's wishes, the keep-alive and the token's end.

use std::sync::Arc;

use common::keepalive::SecondLook;
use common::limits;
use common::mqtt::{self, Packet, PacketIo, ReadError, Transport};
use tokio::sync::watch;
use tokio::time::{Duration, Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::mqtt::connect::{Admitted, accept};
use super::mqtt::machine::{self, Effect, Violation};
use super::{SessionEnd, twin};
use crate::auth::DevicePrincipal;
use crate::presence::{EndReason, PresenceGuard};
use crate::registry::Subscriptions;
use crate::state::HubState;

/// A device's session, once it is admitted.
pub(super) struct Session<'a, S> {
    state: &'a HubState,
    io: PacketIo<S>,
    presence: PresenceGuard,
    admitted: Admitted,
    subscribed: bool,
    /// The device takes answers to twin requests.
    twin_responses: bool,
    /// What it has asked of its twin.
    twin: twin::Requests,
    /// What it has subscribed, with the granted QoS; kept beyond the connection unless it
    /// wanted a clean session.
    kept: Subscriptions,
    /// The registry has it so.
    is_stored: bool,
    /// How many telemetry messages it has sent, which are not routed yet.
    telemetry: u64,
    stop: &'a CancellationToken,
}

/// When a token that ends at this Unix time ends on our own clock.
fn moment(expiry: u64) -> Instant {
    let left = expiry.saturating_sub(common::clock::unix_now());
    // Far beyond the life of a process is as good as never.
    Instant::now() + Duration::from_secs(left.min(100 * 365 * 24 * 3600))
}

/// Waits for the hub's word that a session ends.
async fn ended(
    stop: &CancellationToken,
    end: &mut watch::Receiver<Option<EndReason>>,
) -> SessionEnd {
    tokio::select! {
        biased;
        () = stop.cancelled() => SessionEnd::Stopping,
        reason = end.wait_for(Option::is_some) => {
            let reason = reason.ok().and_then(|reason| *reason);
            reason.map_or(SessionEnd::Lost, SessionEnd::Ended)
        }
    }
}

impl<'a, S: Transport> Session<'a, S> {
    /// One of a device that is present and has not been answered yet.
    pub(super) fn new(
        state: &'a HubState,
        io: PacketIo<S>,
        presence: PresenceGuard,
        admitted: Admitted,
        kept: Subscriptions,
        stop: &'a CancellationToken,
    ) -> Self {
        let identity = admitted.principal.identity.clone();
        Self {
            state,
            twin: twin::Requests::new(Arc::clone(&state.registry), identity),
            io,
            presence,
            admitted,
            subscribed: false,
            twin_responses: false,
            kept,
            is_stored: true,
            telemetry: 0,
            stop,
        }
    }

    /// To its end; how it came, and how many telemetry messages there were.
    pub(super) async fn run(mut self) -> (SessionEnd, u64) {
        let is_present = !self.kept.is_empty();
        let end = match timeout(limits::SESSION_WRITE, accept(&mut self.io, is_present)).await {
            Ok(Ok(())) => match self.resume().await {
                Ok(()) => self.converse().await,
                Err(end) => end,
            },
            _ => SessionEnd::Lost,
        };
        self.finish_twin(&end).await;
        // Gone from presence first: no request shall wait for what is closing.
        drop(self.presence);
        let closing = async {
            match end {
                SessionEnd::Rule(_) => self.io.break_off().await,
                _ => self.io.shutdown().await,
            }
        };
        let _ = timeout(limits::CLOSE, closing).await;
        (end, self.telemetry)
    }

    /// Goes on with what was subscribed in earlier connections.
    async fn resume(&mut self) -> Result<(), SessionEnd> {
        self.twin_responses = self.kept.contains_key(common::wire::twin::RESPONSE_FILTER);
        if self.kept.contains_key(common::wire::stream::REQUEST_FILTER) {
            self.perform(Effect::StreamRequests(true)).await?;
        }
        Ok(())
    }

    /// Keeps what the device has subscribed now, if that is something new, before it is
    /// told: it will not say so again. Where the disk does not take it, it holds for this
    /// connection, and the next change tries again.
    async fn keep(&mut self, changed: Subscriptions) -> Result<(), SessionEnd> {
        if changed == self.kept && self.is_stored {
            return Ok(());
        }
        self.kept.clone_from(&changed);
        if self.admitted.clean_session {
            return Ok(());
        }
        let DevicePrincipal {
            identity,
            generation_id,
            ..
        } = &self.admitted.principal;
        let write = self
            .state
            .registry
            .keep_subscriptions(identity, generation_id, changed);
        let written = tokio::select! {
            biased;
            end = ended(self.stop, &mut self.presence.end) => return Err(end),
            written = timeout(limits::SESSION_WRITE, write) => written,
        };
        self.is_stored = matches!(written, Ok(Ok(())));
        match written {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(device = %identity, "its subscriptions hold for this connection only: {error}");
            }
            Err(_) => {
                tracing::warn!(device = %identity, "its subscriptions hold for this connection only: the disk is too slow");
            }
        }
        Ok(())
    }

    /// Carries out what the device has asked of its twin before it left: some report and
    /// say Close in one breath. Still present meanwhile, so that its next session, whose
    /// reports must not be overtaken by older ones, puts an end to it.
    async fn finish_twin(&mut self, end: &SessionEnd) {
        if matches!(end, SessionEnd::Stopping | SessionEnd::Ended(_)) {
            return;
        }
        self.presence.set_subscribed(false);
        tokio::select! {
            biased;
            _ = ended(self.stop, &mut self.presence.end) => {}
            _ = timeout(limits::TWIN_FINISH, self.twin.finish()) => {}
        }
    }

    async fn converse(&mut self) -> SessionEnd {
        let expiry = self.admitted.principal.expires.map(moment);
        let mut heard = Instant::now();
        let mut second_look = SecondLook::default();
        loop {
            let silent_at = heard + self.admitted.silence;
            let judged_at = second_look.until(silent_at);
            let may_ask = self.twin.has_room();
            tokio::select! {
                // The hub's word counts before the device's.
                biased;
                () = self.stop.cancelled() => return SessionEnd::Stopping,
                _ = self.presence.end.changed() => {
                    if let Some(reason) = *self.presence.end.borrow() {
                        return SessionEnd::Ended(reason);
                    }
                }
                () = async {
                    match expiry {
                        Some(expiry) => sleep_until(expiry).await,
                        None => std::future::pending().await,
                    }
                } => return SessionEnd::TokenExpired,
                () = self.presence.wake.notified() => {
                    if let Err(end) = self.send_requests().await {
                        return end;
                    }
                }
                answer = self.twin.next() => {
                    if !may_ask {
                        // Not listened to in between.
                        heard = Instant::now();
                    }
                    if let Some(bytes) = answer.filter(|_| self.twin_responses)
                        && let Err(end) = self.write(&bytes).await
                    {
                        return end;
                    }
                }
                packet = self.io.read(), if may_ask => {
                    heard = Instant::now();
                    let effects = match packet {
                        Ok(Some(packet)) => {
                            if !matches!(packet, Packet::Pingreq) {
                                self.presence.note_activity();
                            }
                            machine::receive(&self.admitted.principal.identity, packet)
                        }
                        Ok(None) | Err(ReadError::Lost(_)) => return SessionEnd::Lost,
                        Err(ReadError::TooLarge { .. }) => Err(Violation::TooLarge),
                        Err(ReadError::Malformed | ReadError::Version) => Err(Violation::Malformed),
                    };
                    match effects {
                        Err(violation) => return SessionEnd::Rule(violation),
                        Ok(effects) => for effect in effects {
                            if let Err(end) = self.perform(effect).await {
                                return end;
                            }
                        }
                    }
                }
                () = sleep_until(judged_at), if may_ask => {
                    if second_look.may_judge(silent_at, Instant::now()) {
                        return SessionEnd::Silent;
                    }
                }
            }
        }
    }

    async fn perform(&mut self, effect: Effect) -> Result<(), SessionEnd> {
        match effect {
            Effect::Send(bytes) => self.write(&bytes).await,
            Effect::Granted(filters) => {
                let mut changed = self.kept.clone();
                changed.extend(filters);
                self.keep(changed).await
            }
            Effect::GivenUp(filters) => {
                let mut changed = self.kept.clone();
                changed.retain(|filter, _| !filters.contains(filter));
                self.keep(changed).await
            }
            Effect::Telemetry => {
                if self.telemetry == 0 {
                    let identity = &self.admitted.principal.identity;
                    tracing::info!(device = %identity, "the device sends telemetry; this hub acknowledges it and does not route it yet");
                }
                self.telemetry += 1;
                Ok(())
            }
            Effect::StreamRequests(wanted) => {
                self.subscribed = wanted;
                self.presence.set_subscribed(wanted);
                self.send_requests().await
            }
            Effect::Answer(answer) => {
                let identity = &self.admitted.principal.identity;
                let known = self.state.pending.answer_stream(identity, &answer);
                tracing::debug!(device = %identity, request = %answer.request_id, accepted = answer.accepted, known, "stream answer");
                Ok(())
            }
            Effect::TwinResponses(wanted) => {
                self.twin_responses = wanted;
                Ok(())
            }
            Effect::TwinGet(_) if !self.twin_responses => Ok(()),
            Effect::TwinGet(request_id) => {
                self.twin.push(twin::Request::Get(request_id), false);
                Ok(())
            }
            Effect::TwinPatch { request_id, body } => {
                let request = twin::Request::PatchReported(request_id, body);
                self.twin.push(request, !self.twin_responses);
                Ok(())
            }
            Effect::Disconnect => Err(SessionEnd::Disconnect),
        }
    }

    /// Sends the stream requests that wait for this identity, if it wants them.
    async fn send_requests(&mut self) -> Result<(), SessionEnd> {
        if !self.subscribed {
            return Ok(());
        }
        let identity = self.admitted.principal.identity.clone();
        let requests = self
            .state
            .pending
            .take_stream_requests(&identity, self.presence.connection);
        for request in requests {
            tracing::debug!(device = %identity, request = %request.request_id, name = request.name, "stream request");
            match mqtt::publish(&request.to_topic()) {
                Ok(bytes) => {
                    self.write(&bytes).await?;
                    self.presence.note_activity();
                }
                // The service gets the answer that the device did not answer.
                Err(error) => tracing::error!("a stream request cannot be written: {error:?}"),
            }
        }
        Ok(())
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), SessionEnd> {
        let written = tokio::select! {
            // A device that does not read is not spared the hub's word.
            biased;
            end = ended(self.stop, &mut self.presence.end) => return Err(end),
            written = timeout(limits::SESSION_WRITE, self.io.write(bytes)) => written,
        };
        match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(SessionEnd::Lost),
            Err(_) => Err(SessionEnd::Stuck),
        }
    }
}
