//! What the hub and this device-proxy exchange beside streams: the session report, the other
//! reported properties, the desired ones and direct methods. It owns no connection: it takes the
//! hub's messages, and has the packets to send. A hub that grants no twin or no methods is not asked
//! for them.

use std::collections::VecDeque;

use common::mqtt::publish_at_least_once;
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
pub struct Management<'a> {
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
    /// The report on connections that the hub has not acknowledged.
    report_in_flight: Option<InFlight>,
    /// Of the last one.
    packet_id: u16,
    policy: PolicyWatch,
    forwardings: watch::Receiver<()>,
    /// Packets to send.
    packets: VecDeque<Vec<u8>>,
    is_reconnect_wanted: bool,
}

/// A message that is sent again until it is acknowledged.
struct InFlight {
    packet_id: u16,
    content: Vec<u8>,
}

/// What has happened here.
pub(super) enum Event {
    Policy,
    Forwardings,
    Report,
    Answer(Answer),
}

impl<'a> Management<'a> {
    /// Nothing was exchanged yet.
    pub fn new(streams: &'a Streams, control: &'a Control) -> Self {
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
            report_in_flight: None,
            packet_id: 0,
            policy,
            packets: VecDeque::new(),
            is_reconnect_wanted: false,
        }
    }

    /// A hub session is open; `has_twin`: the hub has granted answers about the twin.
    pub fn opened(&mut self, has_twin: bool, now: Instant) {
        self.has_twin = has_twin;
        self.is_reconnect_wanted = false;
        self.packets.clear();
        let mode = self.policy.borrow_and_update().session;
        self.report.follow(mode);
        let report = self.report.opened(has_twin, now);
        self.packets.extend(report);
        self.reported.opened();
        self.send_report(true);
        if has_twin {
            // It is subscribed already: no change is lost between.
            let read = self.desired.opened(now);
            self.packets.extend(read);
        } else {
            self.desired.opened_without();
        }
    }

    /// Takes a message of the hub, if it is one for this.
    pub fn receive(&mut self, topic: &str, payload: &[u8], now: Instant) {
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
        let reports = self.streams.reports();
        tokio::select! {
            Some(answer) = self.methods.next() => Event::Answer(answer),
            Ok(()) = self.policy.changed() => Event::Policy,
            Ok(()) = self.forwardings.changed(), if wants_changes => Event::Forwardings,
            () = reports.any() => Event::Report,
            // All senders live as long as this.
            else => std::future::pending().await,
        }
    }

    /// Takes what has happened.
    pub(super) fn happened(&mut self, event: Event, now: Instant) {
        match event {
            Event::Answer(answer) => self.packets.extend(answer.packet()),
            Event::Forwardings => self.reported.changed(now),
            // It is due after a moment, with others.
            Event::Report => {}
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
    pub fn due(&self) -> Option<Instant> {
        let reports = match self.report_in_flight {
            None => self.streams.reports().due(),
            Some(_) => None,
        };
        let due = [
            self.report.due(),
            self.desired.due(),
            self.reported.due(),
            reports,
        ];
        due.into_iter().flatten().min()
    }

    /// Does what is due.
    pub fn act(&mut self, now: Instant) {
        let report = self.report.act(now);
        self.packets.extend(report);
        let (read, packet) = self.desired.act(now);
        self.take(read, now);
        self.packets.extend(packet);
        self.report_connections(now);
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

    /// Sends the next report on connections, if it is due and the last one has arrived.
    fn report_connections(&mut self, now: Instant) {
        let reports = self.streams.reports();
        let is_due = reports.due().is_some_and(|due| due <= now);
        if self.report_in_flight.is_some() || !is_due {
            return;
        }
        if let Some(content) = reports.take() {
            self.packet_id = self.packet_id.checked_add(1).unwrap_or(1);
            self.report_in_flight = Some(InFlight {
                packet_id: self.packet_id,
                content,
            });
            self.send_report(false);
        }
    }

    fn send_report(&mut self, is_repeated: bool) {
        let Some(report) = &self.report_in_flight else {
            return;
        };
        let topic = self.streams.reports().topic();
        let (content, id) = (&report.content, report.packet_id);
        match publish_at_least_once(topic, content, id, is_repeated) {
            Ok(packet) => self.packets.push_back(packet),
            Err(error) => {
                tracing::error!("a report on connections cannot be written: {error:?}");
                self.report_in_flight = None;
            }
        }
    }

    /// The hub has taken a message.
    pub fn acknowledged(&mut self, packet_id: u16) {
        let report = self.report_in_flight.as_ref();
        if report.is_some_and(|report| report.packet_id == packet_id) {
            self.report_in_flight = None;
        }
    }

    /// The next packet to send.
    pub fn next_packet(&mut self) -> Option<Vec<u8>> {
        self.packets.pop_front()
    }

    /// Whether the hub asks for a new hub session, once all packets are sent.
    pub fn is_reconnect_wanted(&self) -> bool {
        self.is_reconnect_wanted
    }

    /// Whether stream requests are to wait a moment: a service that asks now may not find our report
    /// yet, though it will, or the cloud's policy is about to be read for the first time.
    pub fn is_pending(&self) -> bool {
        self.report.is_pending() || self.desired.is_pending()
    }

    /// The program stops: withdraws the session report.
    pub fn closing(&mut self, now: Instant) {
        if self.report_in_flight.is_none()
            && let Some(content) = self.streams.reports().take()
        {
            let packet_id = self.packet_id.checked_add(1).unwrap_or(1);
            self.report_in_flight = Some(InFlight { packet_id, content });
            self.send_report(false);
        }
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
    pub fn is_waiting(&self) -> bool {
        self.report.is_waiting()
    }
}
