//! A device's session, whatever protocol carries it: it is present as long as this lives, gets
//! what waits for it, and ends when another takes its place, when it is revoked, or when its
//! token expires.

use std::collections::VecDeque;

use common::identity::StreamId;
use common::optional::or_never;
use common::wire::stream::StreamRequest;
use common::wire::twin::TwinRequest;
use tokio::sync::watch;
use tokio::time::{Duration, Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::event::{DeviceCommand, DeviceEvent, HubEnd};
use super::inbox::Inbox;
use super::reports::Reports;
use super::twin;
use crate::auth::{AuthError, DevicePrincipal};
use crate::events::{Event, Events, InSession};
use crate::limits::Limit;
use crate::pending::MethodCall;
use crate::presence::{DesiredUpdate, EndReason, PresenceGuard};
use crate::registry::activity;
use crate::state::HubState;

/// How long what a device has asked for before it left is still carried out.
const FINISH: Duration = Duration::from_secs(30);

/// The session of a device that has shown who it is.
pub(super) struct Session<'a> {
    state: &'a HubState,
    principal: DevicePrincipal,
    presence: PresenceGuard,
    /// When its proof ends, if it does.
    expiry: Option<Instant>,
    takes_streams: bool,
    /// Stream requests that are to be sent on this session.
    requests: VecDeque<StreamRequest>,
    takes_methods: bool,
    /// Calls of direct methods that are to be sent on this session.
    calls: VecDeque<MethodCall>,
    /// Changes of its desired properties that are to be sent on this session: taken over when there
    /// are none left, so that what waits behind them stays within its bound.
    desired: VecDeque<DesiredUpdate>,
    /// Messages to it.
    inbox: Inbox,
    /// What it has asked of its twin.
    twin: twin::Requests,
    /// What it reports of connections.
    reports: Reports,
    /// How many telemetry messages it has sent.
    telemetry: u64,
    /// It has sent telemetry faster than it may: it is not read from until then.
    slowed: Option<Instant>,
    stop: &'a CancellationToken,
}

impl<'a> Session<'a> {
    /// Takes the identity's place in presence, and ends a session that had it. `stop` ends all
    /// sessions of a hub. May be dropped: the place is free again then.
    ///
    /// # Errors
    /// [`AuthError`] when the device may no longer connect: what was changed between its proof
    /// and its presence has reached no session.
    pub(super) async fn open(
        state: &'a HubState,
        principal: DevicePrincipal,
        stop: &'a CancellationToken,
    ) -> Result<Self, AuthError> {
        let presence = state.presence.admit(&principal);
        let identity = principal.identity.clone();
        state
            .auth
            .still_valid(&identity, &principal.credential)
            .await?;
        Ok(Self {
            state,
            presence,
            expiry: principal.expires.map(moment),
            principal,
            takes_streams: false,
            requests: VecDeque::new(),
            takes_methods: false,
            calls: VecDeque::new(),
            desired: VecDeque::new(),
            inbox: Inbox::new(state, identity.device.clone()),
            twin: twin::Requests::new(state, identity),
            reports: Reports::default(),
            telemetry: 0,
            slowed: None,
            stop,
        })
    }

    /// Who the device is, and how it has shown that.
    pub(super) fn principal(&self) -> &DevicePrincipal {
        &self.principal
    }

    /// Where what happens in the session is reported.
    pub(super) fn events(&self) -> &Events {
        &self.state.events
    }

    /// Whether an older session of the identity ends because of this one.
    pub(super) fn has_displaced(&self) -> bool {
        self.presence.has_displaced
    }

    /// How many telemetry messages the device has sent.
    pub(super) fn telemetry(&self) -> u64 {
        self.telemetry
    }

    /// Whether the device may send something else: else it is not to be read from.
    pub(super) fn has_room(&self) -> bool {
        self.twin.has_room() && self.slowed.is_none()
    }

    /// Notes that something went to the device or came from it, but for what only keeps the
    /// connection alive.
    pub(super) fn note_activity(&self) {
        self.presence.note_activity();
    }

    /// Takes in what the device does.
    pub(super) fn receive(&mut self, event: DeviceEvent) {
        let identity = &self.principal.identity;
        match event {
            DeviceEvent::StreamRequests(is_wanted) => {
                self.takes_streams = is_wanted;
                self.presence.set_subscribed(is_wanted);
                self.take_requests();
            }
            DeviceEvent::MethodCalls(is_wanted) => {
                self.takes_methods = is_wanted;
                self.presence.set_takes_methods(is_wanted);
                self.take_requests();
            }
            DeviceEvent::MethodAnswer { request, answer } => {
                let status = answer.status;
                let event = InSession::MethodAnswer {
                    request: &request,
                    status,
                    is_known: self
                        .state
                        .pending
                        .methods
                        .answer(identity, &request, answer),
                };
                self.state.events.emit(Event::InSession(identity, event));
            }
            DeviceEvent::DesiredUpdates(is_wanted) => {
                self.presence.send_desired(is_wanted);
                self.take_desired();
            }
            DeviceEvent::StreamAnswer(answer) => {
                let event = InSession::StreamAnswer {
                    request: &answer.request_id,
                    is_accepted: answer.accepted,
                    is_known: self.state.pending.streams.answer(
                        identity,
                        &answer.request_id,
                        answer.accepted,
                    ),
                };
                self.state.events.emit(Event::InSession(identity, event));
            }
            DeviceEvent::Twin {
                request,
                body,
                is_answered,
            } => {
                if matches!(request, TwinRequest::Get(_)) {
                    self.presence.keep_desired();
                }
                let admitted = self
                    .state
                    .quotas
                    .admit(Limit::TwinRequests, None, Some(identity));
                match admitted {
                    Ok(()) => self.twin.push(request, body, is_answered),
                    Err(over) => self.twin.push_refused(request, over, is_answered),
                }
            }
            DeviceEvent::Messages(is_wanted) => self.inbox.want(is_wanted),
            DeviceEvent::MessageTaken(sequence) => self.inbox.take(sequence),
            DeviceEvent::Telemetry {
                properties,
                payload,
            } => {
                let principal = &self.principal;
                if self
                    .reports
                    .take(self.state, principal, &properties, &payload)
                {
                    self.count_telemetry();
                    return;
                }
                if self.telemetry == 0 {
                    self.state
                        .events
                        .emit(Event::InSession(identity, InSession::Telemetry));
                }
                self.telemetry += 1;
                let now = activity::now();
                self.state
                    .telemetry
                    .push(identity, properties, payload, now);
                self.count_telemetry();
            }
        }
    }

    /// Counts a telemetry message. One that is too many is read all the same, and the next one not
    /// before its time.
    fn count_telemetry(&mut self) {
        let quotas = &self.state.quotas;
        let admitted = quotas.admit(Limit::Telemetry, None, Some(&self.principal.identity));
        self.slowed = admitted.err().map(|over| Instant::now() + over.retry_after);
    }

    /// What is to be sent next. `None`: something was carried out that the device wants no answer
    /// to, and there may be room for more. May be dropped and called again: nothing is lost.
    pub(super) async fn next(&mut self) -> Option<DeviceCommand> {
        loop {
            let (expiry, slowed) = (self.expiry, self.slowed);
            tokio::select! {
                // That it ends counts before what it gets.
                biased;
                end = ended(self.stop, &mut self.presence.end) => {
                    return Some(DeviceCommand::End(end));
                }
                () = or_never(slowed.map(sleep_until)) => {
                    self.count_telemetry();
                    return None;
                }
                () = or_never(expiry.map(sleep_until)) => return Some(DeviceCommand::End(HubEnd::Expired)),
                request = next_of(&mut self.requests) => {
                    let stream = StreamId::of_url(&request.url);
                    let event = InSession::StreamRequest {
                        stream: stream.as_ref(),
                        name: &request.name,
                        request: &request.request_id,
                    };
                    self.state.events.emit(Event::InSession(&self.principal.identity, event));
                    return Some(DeviceCommand::StreamRequest(request));
                }
                call = next_of(&mut self.calls) => {
                    let event = InSession::MethodCall {
                        name: call.request.name.as_str(),
                        request: &call.request.request_id,
                    };
                    self.state.events.emit(Event::InSession(&self.principal.identity, event));
                    return Some(DeviceCommand::MethodCall(call));
                }
                () = self.presence.wake.notified() => {
                    self.take_requests();
                    self.take_desired();
                    if self.presence.take_has_message() {
                        self.inbox.look();
                    }
                }
                message = self.inbox.next() => return Some(DeviceCommand::Message(message)),
                // Not before the twin that was read earlier: the device takes what comes last.
                update = next_of(&mut self.desired), if !self.twin.reads() => {
                    self.take_desired();
                    return Some(DeviceCommand::Desired(update));
                }
                answer = self.twin.next() => {
                    if let Some(version) = answer.as_ref().and_then(|answer| answer.desired) {
                        self.presence.has_read_desired(version);
                    }
                    return answer.map(DeviceCommand::TwinAnswer);
                }
            }
        }
    }

    /// Waits until the hub ends the session, a token's end left out: for what takes time
    /// meanwhile, as a device that does not read. May be dropped and called again.
    pub(super) async fn ended(&mut self) -> HubEnd {
        ended(self.stop, &mut self.presence.end).await
    }

    /// Carries out what the device has asked of its twin before it left, for half a minute at
    /// most: some report and say Close in one breath. Still present meanwhile, so that its next
    /// session, whose reports must not be overtaken by older ones, puts an end to it. `end` is
    /// the hub's reason, if the session ended by it. May be dropped: what waits is not carried
    /// out then.
    pub(super) async fn finish(&mut self, end: Option<HubEnd>) {
        self.reports.finish(self.state, &self.principal);
        if matches!(end, Some(HubEnd::Stopping | HubEnd::Ended(_))) {
            return;
        }
        self.presence.set_subscribed(false);
        self.presence.set_takes_methods(false);
        tokio::select! {
            biased;
            _ = ended(self.stop, &mut self.presence.end) => {}
            _ = timeout(FINISH, async {
                self.twin.finish().await;
                self.inbox.finish().await;
            }) => {}
        }
    }

    fn take_desired(&mut self) {
        if self.desired.is_empty() {
            self.desired = self.presence.take_desired();
        }
    }

    /// Takes the requests that wait for the identity, if it wants them.
    fn take_requests(&mut self) {
        let (identity, session) = (&self.principal.identity, self.presence.connection);
        let pending = &self.state.pending;
        if self.takes_streams {
            self.requests
                .extend(pending.streams.take(identity, session));
        }
        if self.takes_methods {
            self.calls.extend(pending.methods.take(identity, session));
        }
    }
}

/// When a token that ends at this Unix time ends on our own clock.
fn moment(expiry: u64) -> Instant {
    let left = expiry.saturating_sub(common::clock::unix_now());
    // Far beyond the life of a process is as good as never.
    Instant::now() + Duration::from_secs(left.min(100 * 365 * 24 * 3600))
}

/// Waits until the hub ends a session.
async fn ended(stop: &CancellationToken, end: &mut watch::Receiver<Option<EndReason>>) -> HubEnd {
    tokio::select! {
        biased;
        () = stop.cancelled() => HubEnd::Stopping,
        reason = end.wait_for(Option::is_some) => {
            let reason = reason.ok().and_then(|reason| *reason);
            // Only a session that takes its place makes an end without a reason.
            HubEnd::Ended(reason.unwrap_or(EndReason::Displaced))
        }
    }
}

/// The first of those that wait; never ends while none does.
async fn next_of<T>(waiting: &mut VecDeque<T>) -> T {
    let Some(first) = waiting.pop_front() else {
        return std::future::pending().await;
    };
    if waiting.is_empty() {
        // Most sessions are idle most of the time.
        *waiting = VecDeque::new();
    }
    first
}
