//! A session's loop: requests in, answers out, pings with a deadline, the token's renewal.
//! Everything that is no stream is [`Management`]'s.

use std::io;
use std::sync::Arc;

use common::keepalive::SecondLook;
use common::mqtt::{self, Packet, PacketIo, ReadError, packet};
use common::optional::or_never;
use common::wire::stream::{StreamAnswer, StreamRequest, StreamRequestError};
use tokio::sync::{mpsc, watch};
use tokio::time::{Duration, Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::connect::{Connected, HubStream};
use super::management::Management;
use crate::config::Config;
use crate::limits;
use crate::streams::Streams;

/// How long stream requests wait for the first report of the program's run, and for the first look
/// at the desired properties: for the hub's disk, and for a refusal or two.
const HOLD: Duration = Duration::from_secs(5);

/// How a session ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionEnd {
    /// The program stops.
    #[error("the program stops")]
    Stopped,
    /// Replace the token.
    #[error("the SAS token is due for renewal")]
    Renewal,
    /// Another configuration says how to connect.
    #[error("the configuration has changed")]
    Changed,
    /// The hub has asked for a new one.
    #[error("the hub has called reconnect")]
    Reconnect,
    /// The hub ended it.
    #[error("the hub session was lost: the hub closed the connection")]
    Closed,
    /// The connection broke, or what came over it is not MQTT.
    #[error("the hub session was lost")]
    Read(#[source] ReadError),
    /// The connection broke.
    #[error("the hub session was lost")]
    Write(#[source] io::Error),
    /// The hub does not answer.
    #[error("the hub does not answer pings")]
    Dead,
}

/// A running session.
pub struct Session<'a, 'run> {
    io: PacketIo<HubStream>,
    has_twin: bool,
    /// Came before the session was open.
    early: Vec<Packet>,
    management: &'a mut Management<'run>,
    renew_at: Option<Instant>,
    /// When the last ping went out, if it is unanswered.
    pinged: Option<Instant>,
    heard: Instant,
    second_look: SecondLook,
    /// Stream requests that wait for the report: until then a service that reads the twin finds
    /// none, and carries the connection in a plain stream to its end.
    held: Vec<StreamRequest>,
    may_hold: bool,
}

impl<'a, 'run> Session<'a, 'run> {
    /// Takes over a connected session.
    pub(super) fn new(connected: Connected, management: &'a mut Management<'run>) -> Self {
        Self {
            io: connected.io,
            has_twin: connected.has_twin,
            early: connected.early,
            management,
            renew_at: connected.renew_at,
            pinged: None,
            heard: Instant::now(),
            second_look: SecondLook::default(),
            held: Vec::new(),
            may_hold: true,
        }
    }

    /// Runs to the session's end, which a change of `changes` brings about, too. Dropping the future cuts the connection to the hub.
    pub async fn run(
        mut self,
        streams: &Streams,
        outbox: &mut mpsc::Receiver<StreamAnswer>,
        changes: &mut watch::Receiver<Arc<Config>>,
        stop: &CancellationToken,
    ) -> SessionEnd {
        let end = self.converse(streams, outbox, changes, stop).await;
        if matches!(end, SessionEnd::Stopped) {
            let _ = timeout(limits::TWIN_WITHDRAWAL, self.withdraw()).await;
        }
        if matches!(
            end,
            SessionEnd::Stopped | SessionEnd::Renewal | SessionEnd::Changed | SessionEnd::Reconnect
        ) {
            let close_frame = packet::Disconnect::builder()
                .build()
                .map(|packet| packet.to_continuous_buffer())
                .unwrap_or_default();
            let closing = async {
                let _ = self.io.write(&close_frame).await;
                self.io.shutdown().await;
            };
            let _ = timeout(limits::CLOSE, closing).await;
        }
        end
    }

    async fn converse(
        &mut self,
        streams: &Streams,
        outbox: &mut mpsc::Receiver<StreamAnswer>,
        changes: &mut watch::Receiver<Arc<Config>>,
        stop: &CancellationToken,
    ) -> SessionEnd {
        let now = Instant::now();
        self.management.opened(self.has_twin, now);
        let hold_until = now + HOLD;
        for packet in std::mem::take(&mut self.early) {
            if let Err(end) = self.receive(packet, streams).await {
                return end;
            }
        }
        loop {
            while let Some(packet) = self.management.next_packet() {
                if let Err(end) = self.write(&packet).await {
                    return end;
                }
            }
            if self.management.is_reconnect_wanted() {
                return SessionEnd::Reconnect;
            }
            if !self.held.is_empty()
                && (!self.management.is_pending() || Instant::now() >= hold_until)
            {
                for request in std::mem::take(&mut self.held) {
                    streams.request(request);
                }
            }
            self.may_hold = Instant::now() < hold_until;
            let alarm = match self.pinged {
                Some(at) => {
                    let deadline = (at + limits::HUB_SESSION_PONG).into_std();
                    self.second_look.until(deadline).into()
                }
                None => self.heard + limits::HUB_SESSION_PING,
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return SessionEnd::Stopped,
                Ok(()) = changes.changed() => return SessionEnd::Changed,
                // A service waits for an answer: it goes before new work.
                Some(answer) = outbox.recv() => {
                    let sent = match mqtt::publish(&answer.to_topic()) {
                        Ok(bytes) => self.write(&bytes).await,
                        Err(error) => {
                            tracing::error!(request = %answer.request_id, "an answer cannot be written: {error:?}");
                            Ok(())
                        }
                    };
                    if let Err(end) = sent {
                        return end;
                    }
                }
                packet = self.io.read() => {
                    self.heard = Instant::now();
                    // Whatever the hub sends counts as an answer to the ping.
                    self.pinged = None;
                    match packet {
                        Ok(Some(packet)) => {
                            if let Err(end) = self.receive(packet, streams).await {
                                return end;
                            }
                        }
                        Ok(None) => return SessionEnd::Closed,
                        Err(error) => return SessionEnd::Read(error),
                    }
                }
                () = sleep_until(alarm) => {
                    if let Some(at) = self.pinged {
                        let deadline = (at + limits::HUB_SESSION_PONG).into_std();
                        if self.second_look.may_judge(deadline, Instant::now().into_std()) {
                            return SessionEnd::Dead;
                        }
                        continue;
                    }
                    let ping = packet::Pingreq::builder()
                        .build()
                        .map(|packet| packet.to_continuous_buffer())
                        .unwrap_or_default();
                    self.pinged = Some(Instant::now());
                    if let Err(end) = self.write(&ping).await {
                        return end;
                    }
                }
                () = or_never(self.management.due().map(sleep_until)) => {
                    self.management.act(Instant::now());
                }
                event = self.management.next() => {
                    self.management.happened(event, Instant::now());
                }
                () = sleep_until(hold_until), if !self.held.is_empty() => {}
                () = or_never(self.renew_at.map(sleep_until)) => return SessionEnd::Renewal,
            }
        }
    }

    async fn receive(&mut self, packet: Packet, streams: &Streams) -> Result<(), SessionEnd> {
        if let Packet::Puback(receipt) = &packet {
            self.management.acknowledged(receipt.packet_id());
        }
        let Packet::Publish(publish) = packet else {
            // PINGRESP, or receipts that mean nothing here.
            return Ok(());
        };
        if let Some(id) = publish.packet_id() {
            let receipt = packet::Puback::builder().packet_id(id).build();
            if let Ok(receipt) = receipt {
                self.write(&receipt.to_continuous_buffer()).await?;
            }
        }
        match StreamRequest::from_topic(publish.topic_name()) {
            // The service may read the twin once the request is accepted.
            Ok(request)
                if self.may_hold
                    && self.management.is_pending()
                    && self.held.len() < limits::PENDING_PER_DEVICE =>
            {
                self.held.push(request);
            }
            Ok(request) => streams.request(request),
            Err(StreamRequestError::OtherTopic) => {
                let (topic, payload) = (publish.topic_name(), publish.payload().as_slice());
                self.management.receive(topic, payload, Instant::now());
            }
            Err(error) => tracing::warn!("ignored a malformed stream request: {error}"),
        }
        Ok(())
    }

    /// Withdraws the report, and waits for the hub to confirm it.
    async fn withdraw(&mut self) {
        self.management.closing(Instant::now());
        while let Some(packet) = self.management.next_packet() {
            if self.io.write(&packet).await.is_err() {
                return;
            }
        }
        while self.management.is_waiting() {
            match self.io.read().await {
                Ok(Some(Packet::Publish(publish))) => {
                    let (topic, payload) = (publish.topic_name(), publish.payload().as_slice());
                    self.management.receive(topic, payload, Instant::now());
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return,
            }
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), SessionEnd> {
        match timeout(limits::SESSION_WRITE, self.io.write(bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(SessionEnd::Write(error)),
            Err(_) => Err(SessionEnd::Dead),
        }
    }
}
