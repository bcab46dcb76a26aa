//! A session's loop: the socket, the hub's wishes, the keep-alive and the token's end.

use std::net::SocketAddr;
use std::sync::Arc;

use common::keepalive::SecondLook;
use common::limits;
use common::mqtt::{self, Packet, PacketIo, ReadError, Transport};
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;
use tokio::time::{Duration, Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::connect::{Admitted, accept, connect};
use super::protocol::{self, Effect, Violation};
use super::{Peer, Refused, SessionEnd, twin};
use crate::presence::{EndReason, PresenceGuard};
use crate::state::HubState;

/// Serves one device connection from its CONNECT to its end, over any byte stream.
/// `certificate` is what the device showed in TLS. Ends within moments when `stop`
/// is cancelled.
pub async fn serve<S: Transport>(
    state: &HubState,
    stream: S,
    certificate: Option<CertificateDer<'static>>,
    address: SocketAddr,
    transport: &'static str,
    stop: &CancellationToken,
) {
    let mut io = PacketIo::new(stream, limits::MQTT_CONNECT_PACKET);
    let handshake = connect(&mut io, certificate.as_ref(), &state.auth);
    let result = tokio::select! {
        result = timeout(limits::STRANGER, handshake) => result,
        () = stop.cancelled() => return,
    };
    let admitted = match result {
        Ok(Ok(admitted)) => admitted,
        Ok(Err(error @ Refused::Connect { .. })) => {
            return tracing::warn!(peer = %address, transport, "{error}");
        }
        Ok(Err(error)) => {
            tracing::debug!(peer = %address, transport, "{error}");
            let _ = timeout(limits::CLOSE, io.break_off()).await;
            return;
        }
        Err(_) => return tracing::debug!(peer = %address, transport, "no CONNECT came in time"),
    };
    drop(certificate);
    io.set_limit(limits::MQTT_PACKET);
    let identity = admitted.principal.identity.clone();
    let peer = Peer {
        identity: &identity,
        address,
        transport,
    };
    let credential = admitted.principal.credential.clone();
    let presence = state.presence.admit(&admitted.principal);
    // What was changed between proof and presence was reported to nobody.
    if let Err(error) = state.auth.still_valid(&identity, &credential).await {
        return tracing::warn!(device = %identity, peer = %address, "session ended: {error}");
    }
    tracing::info!(device = %peer.identity, peer = %peer.address, transport = peer.transport, "device connected");
    let end = Session {
        state,
        twin: twin::Requests::new(Arc::clone(&state.registry), identity.clone()),
        io,
        presence,
        admitted,
        subscribed: false,
        twin_responses: false,
        stop,
    }
    .run()
    .await;
    tracing::info!(device = %peer.identity, peer = %peer.address, "device disconnected: {end}");
}

struct Session<'a, S> {
    state: &'a HubState,
    io: PacketIo<S>,
    presence: PresenceGuard,
    admitted: Admitted,
    subscribed: bool,
    /// The device takes answers to twin requests.
    twin_responses: bool,
    /// What it has asked of its twin.
    twin: twin::Requests,
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

impl<S: Transport> Session<'_, S> {
    async fn run(mut self) -> SessionEnd {
        let end = match timeout(limits::SESSION_WRITE, accept(&mut self.io)).await {
            Ok(Ok(())) => self.converse().await,
            _ => SessionEnd::Lost,
        };
        self.finish_twin(&end).await;
        // Gone from presence first: nobody shall wait for what is closing.
        drop(self.presence);
        let closing = async {
            match end {
                SessionEnd::Rule(_) => self.io.break_off().await,
                _ => self.io.shutdown().await,
            }
        };
        let _ = timeout(limits::CLOSE, closing).await;
        end
    }

    /// Carries out what the device has asked of its twin before it left: some report and
    /// say goodbye in one breath. Still present meanwhile, so that its next session, whose
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
                            protocol::receive(&self.admitted.principal.identity, packet)
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
            Effect::StreamRequests(wanted) => {
                self.subscribed = wanted;
                self.presence.set_subscribed(wanted);
                self.send_requests().await
            }
            Effect::Answer(answer) => {
                let identity = &self.admitted.principal.identity;
                let known = self
                    .state
                    .rendezvous
                    .answer(identity, &answer, Instant::now());
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
            .rendezvous
            .take_requests(&identity, self.presence.connection);
        for request in requests {
            tracing::debug!(device = %identity, request = %request.request_id, name = request.name, "stream request");
            match mqtt::publish(&request.to_topic()) {
                Ok(bytes) => {
                    self.write(&bytes).await?;
                    self.presence.note_activity();
                }
                // The service will be told that the device did not answer.
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
