//! A session's loop: requests in, answers out, pings with a deadline, the token's
//! renewal.

use common::limits;
use common::mqtt::{self, Packet, PacketIo, ReadError, packet};
use common::report;
use common::wire::stream::{StreamAnswer, StreamRequest, StreamRequestError};
use common::wire::twin::TwinResponse;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::connect::{Carrier, Connected};
use super::twin::Reporter;
use crate::stream::Streams;

/// How a session ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionEnd {
    /// The program stops.
    #[error("the program stops")]
    Stopped,
    /// The token is to be replaced.
    #[error("the SAS token is due for renewal")]
    Renewal,
    /// The hub ended it, or the connection broke.
    #[error("the hub session was lost: {0}")]
    Lost(String),
    /// The hub does not answer.
    #[error("the hub does not answer pings")]
    Dead,
}

/// A running session.
pub struct Session<'a> {
    io: PacketIo<Carrier>,
    has_twin: bool,
    reporter: &'a mut Reporter,
    renew_at: Option<Instant>,
    /// When the last ping went out, if it is unanswered.
    pinged: Option<Instant>,
    heard: Instant,
}

impl<'a> Session<'a> {
    /// Takes over a connected session.
    pub fn new(connected: Connected, reporter: &'a mut Reporter) -> Self {
        Self {
            io: connected.io,
            has_twin: connected.has_twin,
            reporter,
            renew_at: connected.renew_at,
            pinged: None,
            heard: Instant::now(),
        }
    }

    /// Runs to the session's end.
    pub async fn run(
        mut self,
        streams: &Streams,
        outbox: &mut mpsc::Receiver<StreamAnswer>,
        stop: &CancellationToken,
    ) -> SessionEnd {
        let end = self.converse(streams, outbox, stop).await;
        if matches!(end, SessionEnd::Stopped) {
            let _ = timeout(limits::TWIN_FAREWELL, self.withdraw()).await;
        }
        if matches!(end, SessionEnd::Stopped | SessionEnd::Renewal) {
            let goodbye = packet::Disconnect::builder()
                .build()
                .map(|packet| packet.to_continuous_buffer())
                .unwrap_or_default();
            let farewell = async {
                let _ = self.io.write(&goodbye).await;
                self.io.shutdown().await;
            };
            let _ = timeout(limits::CLOSE, farewell).await;
        }
        end
    }

    async fn converse(
        &mut self,
        streams: &Streams,
        outbox: &mut mpsc::Receiver<StreamAnswer>,
        stop: &CancellationToken,
    ) -> SessionEnd {
        if let Some(report) = self.reporter.opened(self.has_twin)
            && let Err(end) = self.write(&report).await
        {
            return end;
        }
        let silent_at = Instant::now() + limits::TWIN_ANSWER;
        loop {
            let alarm = match self.pinged {
                Some(at) => at + limits::HUB_SESSION_PONG,
                None => self.heard + limits::HUB_SESSION_PING,
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return SessionEnd::Stopped,
                // Somebody waits for an answer: it goes before new work.
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
                    // Any sound from the hub answers the ping.
                    self.pinged = None;
                    match packet {
                        Ok(Some(packet)) => {
                            if let Err(end) = self.receive(packet, streams).await {
                                return end;
                            }
                        }
                        Ok(None) => return SessionEnd::Lost("the hub closed the connection".into()),
                        Err(error @ ReadError::Lost(_)) => {
                            return SessionEnd::Lost(report::chain(&error));
                        }
                        Err(error) => return SessionEnd::Lost(error.to_string()),
                    }
                }
                () = sleep_until(alarm) => {
                    if self.pinged.is_some() {
                        return SessionEnd::Dead;
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
                () = sleep_until(silent_at), if self.reporter.is_waiting() => {
                    self.reporter.silence();
                }
                () = async {
                    match self.renew_at {
                        Some(at) => sleep_until(at).await,
                        None => std::future::pending().await,
                    }
                } => return SessionEnd::Renewal,
            }
        }
    }

    async fn receive(&mut self, packet: Packet, streams: &Streams) -> Result<(), SessionEnd> {
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
            Ok(request) => streams.request(request),
            Err(StreamRequestError::OtherTopic) => {
                if let Some(response) = TwinResponse::from_topic(publish.topic_name()) {
                    self.reporter.answered(&response);
                }
            }
            Err(error) => tracing::warn!("ignored a malformed stream request: {error}"),
        }
        Ok(())
    }

    /// Takes the report back, and waits for the hub's word that it is gone.
    async fn withdraw(&mut self) {
        let Some(withdrawal) = self.reporter.closing(self.has_twin) else {
            return;
        };
        if self.io.write(&withdrawal).await.is_err() {
            return;
        }
        while self.reporter.is_waiting() {
            match self.io.read().await {
                Ok(Some(Packet::Publish(publish))) => {
                    if let Some(response) = TwinResponse::from_topic(publish.topic_name()) {
                        self.reporter.answered(&response);
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return,
            }
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), SessionEnd> {
        match timeout(limits::SESSION_WRITE, self.io.write(bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(SessionEnd::Lost(error.to_string())),
            Err(_) => Err(SessionEnd::Dead),
        }
    }
}
