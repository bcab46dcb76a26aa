//! What the hub and this device-proxy exchange beside streams: the session report, the other
//! reported properties, the desired ones and direct methods. It owns no connection: it takes the
//! hub's messages, and has the packets to send. A hub that grants no twin or no methods is not asked
//! for them.

use std::collections::VecDeque;

use common::telemetry::AUDIT;
use common::wire::method::MethodRequest;
use common::wire::twin::{DesiredChange, TwinResponse};
use tokio::sync::watch;
use tokio::time::Instant;

use super::desired::{Desired, Read};
use super::document::Twin;
use super::methods::{Answer, Called, Methods};
use super::reported::{Act, POLICY, Reported, Section};
use super::status::{Confirmation, Run};
use super::twin::Reporter;
use crate::policy::{Control, PolicyWatch};
use crate::streams::Streams;

/// All that is exchanged in a run of the program.
pub(super) struct Management<'a> {
    streams: &'a Streams,
    control: &'a Control,
    run: Run,
    /// The hub session that is open has answers about the twin.
    has_twin: bool,
    report: Reporter,
    reported: Reported,
    desired: Desired,
    methods: Methods,
    confirmation: Option<Confirmation>,
    policy: PolicyWatch,
    forwardings: watch::Receiver<()>,
    /// Packets to send.
    packets: VecDeque<Vec<u8>>,
    is_reconnect_wanted: bool,
}

/// What has happened here.
pub(super) enum Event {
    Policy,
    Forwardings,
    Answer(Answer),
}

impl<'a> Management<'a> {
    pub(super) fn new(streams: &'a Streams, control: &'a Control) -> Self {
        let policy = control.watch();
        let mode = policy.borrow().session;
        Self {
            report: Reporter::new(mode, streams.boot_id()),
            forwardings: streams.forwardings().watch(),
            streams,
            control,
            run: Run::new(),
            has_twin: false,
            reported: Reported::new(),
            desired: Desired::new(),
            methods: Methods::new(),
            confirmation: None,
            policy,
            packets: VecDeque::new(),
            is_reconnect_wanted: false,
        }
    }

    /// A hub session is open; `has_twin`: the hub has granted answers about the twin.
    pub(super) fn opened(&mut self, has_twin: bool, now: Instant) {
        self.has_twin = has_twin;
        self.is_reconnect_wanted = false;
        self.packets.clear();
        let mode = self.policy.borrow_and_update().session;
        self.report.follow(mode);
        let report = self.report.opened(has_twin, now);
        self.packets.extend(report);
        self.reported.opened();
        if has_twin {
            // It is subscribed already: no change is lost between.
            let read = self.desired.opened(now);
            self.packets.extend(read);
        } else {
            self.desired.opened_without();
        }
    }

    /// Takes a message of the hub, if it is one for this.
    pub(super) fn receive(&mut self, topic: &str, payload: &[u8], now: Instant) {
        if let Some(response) = TwinResponse::from_topic(topic) {
            self.report.answered(&response, now);
            self.reported.answered(&response, now);
            let (read, packet) = self.desired.answered(&response, payload, now);
            self.take(read, now);
            self.packets.extend(packet);
        } else if let Some(change) = DesiredChange::from_topic(topic) {
            if self.has_twin {
                let packet = self.desired.told(change, now);
                self.packets.extend(packet);
            }
        } else if let Some(request) = MethodRequest::from_topic(topic) {
            let status = || {
                self.run.document(
                    &self.policy.borrow(),
                    &self.streams.forwardings().totals(),
                    self.confirmation.as_ref(),
                    self.streams.sessions(),
                )
            };
            match self.methods.call(request, payload, self.streams, status) {
                Called::Answer(answer) => self.packets.extend(answer.packet()),
                Called::Reconnect(answer) => {
                    self.packets.extend(answer.packet());
                    self.is_reconnect_wanted = true;
                }
                Called::Later => {}
            }
        }
    }

    /// Takes what was read of the twin, if anything was.
    fn take(&mut self, read: Option<Read>, now: Instant) {
        match read {
            Some(Read::Twin(twin)) => self.obey(twin, now),
            Some(Read::Failed) => self.reported.read(None, now),
            None => {}
        }
    }

    fn obey(&mut self, twin: Twin, now: Instant) {
        let Twin {
            version,
            desired,
            reported,
        } = twin;
        let is_changed = self.control.want(desired.as_ref());
        let verdict = self.control.verdict();
        let confirmed = self.confirmation.as_ref();
        let is_new = confirmed.is_none_or(|confirmed| confirmed.version != version);
        match &verdict {
            Ok(()) if is_changed => {
                let summary = self.policy.borrow().summary();
                tracing::info!(
                    name: AUDIT,
                    "policy changed by the desired properties (version {version}): {summary}"
                );
            }
            Err(refused) if is_new => tracing::warn!(
                "the policy is unchanged, since the desired properties (version {version}) cannot be obeyed: {refused}"
            ),
            _ => {}
        }
        // Who has never desired anything of us is not told about it.
        let was_confirmed = confirmed.is_some()
            || reported
                .as_ref()
                .is_some_and(|ours| ours.get(POLICY).is_some());
        if desired.is_some() || was_confirmed {
            self.confirmation = Some(Confirmation { version, verdict });
            self.reported.policy_changed(now);
        }
        let nothing = serde_json::Value::Null;
        self.reported
            .read(Some(reported.as_ref().unwrap_or(&nothing)), now);
    }

    /// Waits for something to happen here. May be dropped.
    pub(super) async fn next(&mut self) -> Event {
        let wants_changes = self.reported.wants_changes();
        tokio::select! {
            Some(answer) = self.methods.next() => Event::Answer(answer),
            Ok(()) = self.policy.changed() => Event::Policy,
            Ok(()) = self.forwardings.changed(), if wants_changes => Event::Forwardings,
            // All senders live as long as this.
            else => std::future::pending().await,
        }
    }

    /// Takes what has happened.
    pub(super) fn happened(&mut self, event: Event, now: Instant) {
        match event {
            Event::Answer(answer) => self.packets.extend(answer.packet()),
            Event::Forwardings => self.reported.changed(now),
            Event::Policy => {
                let mode = self.policy.borrow_and_update().session;
                if self.report.follow(mode) {
                    let report = self.report.changed(self.has_twin, now);
                    self.packets.extend(report);
                }
                if let Some(confirmation) = &mut self.confirmation {
                    // The local configuration may have changed what is permitted.
                    confirmation.verdict = self.control.verdict();
                }
                self.reported.policy_changed(now);
            }
        }
    }

    /// When [`act`](Self::act) is to be called at latest.
    pub(super) fn due(&self) -> Option<Instant> {
        let due = [self.report.due(), self.desired.due(), self.reported.due()];
        due.into_iter().flatten().min()
    }

    /// Does what is due.
    pub(super) fn act(&mut self, now: Instant) {
        let report = self.report.act(now);
        self.packets.extend(report);
        let (read, packet) = self.desired.act(now);
        self.take(read, now);
        self.packets.extend(packet);
        if self.reported.due().is_none_or(|due| now < due) {
            return;
        }
        let section = self.section();
        match self.reported.act(&section, now) {
            Act::Nothing => {}
            Act::Send(packet) => self.packets.push_back(packet),
            Act::Read => {
                let packet = self.desired.read(now);
                self.packets.extend(packet);
            }
        }
    }

    fn section(&self) -> Section {
        self.run.section(
            &self.policy.borrow(),
            &self.streams.forwardings().totals(),
            self.confirmation.as_ref(),
        )
    }

    /// The next packet to send.
    pub(super) fn next_packet(&mut self) -> Option<Vec<u8>> {
        self.packets.pop_front()
    }

    /// Whether the hub asks for a new hub session, once all packets are sent.
    pub(super) fn is_reconnect_wanted(&self) -> bool {
        self.is_reconnect_wanted
    }

    /// Whether stream requests are to wait a moment: a service that asks now may not find our report
    /// yet, though it will, or the cloud's policy is about to be read for the first time.
    pub(super) fn is_pending(&self) -> bool {
        self.report.is_pending() || self.desired.is_pending()
    }

    /// The program stops: withdraws the session report.
    pub(super) fn closing(&mut self, now: Instant) {
        if self.has_twin {
            let mut section = self.section();
            // All of them end with the program.
            section.insert("activeStreams".into(), 0.into());
            if let Act::Send(packet) = self.reported.closing(&section, now) {
                self.packets.push_back(packet);
            }
        }
        let withdrawal = self.report.closing(self.has_twin, now);
        self.packets.extend(withdrawal);
    }

    /// Whether the answer to the session report or its withdrawal is still to come.
    pub(super) fn is_waiting(&self) -> bool {
        self.report.is_waiting()
    }
}
