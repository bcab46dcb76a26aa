//! A session's loop over MQTT: packets in and out, and the keep-alive.

use common::keepalive::SecondLook;
use common::mqtt::{Packet, PacketIo, ReadError, Transport};
use tokio::time::{Duration, Instant, sleep_until, timeout};

use super::super::SessionEnd;
use super::super::event::{DeviceCommand, DeviceEvent};
use super::super::session::Session;
use super::connect::accept;
use super::machine::{Effect, Machine, Violation};
use super::stored::Stored;
use crate::events::{Event, Fault};
use crate::limits;

/// One device's connection, once it is admitted.
pub(super) struct Connection<'a, S> {
    pub(super) io: PacketIo<S>,
    pub(super) session: Session<'a>,
    pub(super) machine: Machine,
    pub(super) stored: Stored,
    /// How long the device may be silent.
    pub(super) silence: Duration,
}

impl<S: Transport> Connection<'_, S> {
    /// Answers CONNECT and goes on to the session's end; how it came, and how many telemetry
    /// messages there were. Not to be dropped before: the device would not be answered, and what
    /// it has asked for not carried out.
    pub(super) async fn run(mut self: Box<Self>) -> (SessionEnd, u64) {
        let is_present = !self.machine.subscriptions().is_empty();
        let end = match timeout(limits::SESSION_WRITE, accept(&mut self.io, is_present)).await {
            Ok(Ok(())) => self.converse().await,
            _ => SessionEnd::Lost,
        };
        let by_hub = match &end {
            SessionEnd::Hub(end) => Some(*end),
            _ => None,
        };
        self.session.finish(by_hub).await;
        let telemetry = self.session.telemetry();
        // Gone from presence first: no request shall wait for what is closing.
        drop(self.session);
        let closing = async {
            match end {
                SessionEnd::Rule(_) => self.io.break_off().await,
                _ => self.io.shutdown().await,
            }
        };
        let _ = timeout(limits::CLOSE, closing).await;
        (end, telemetry)
    }

    async fn converse(&mut self) -> SessionEnd {
        for event in self.machine.resume() {
            self.session.receive(event);
        }
        let mut last_read = Instant::now();
        let mut second_look = SecondLook::default();
        loop {
            let silent_at = (last_read + self.silence).into_std();
            let judged_at = second_look.until(silent_at);
            let may_read = self.session.has_room();
            tokio::select! {
                // What the hub has to send counts before what the device sends.
                biased;
                command = self.session.next() => {
                    if !may_read {
                        // Nothing was read in between.
                        last_read = Instant::now();
                    }
                    if let Some(command) = command
                        && let Err(end) = self.send(&command).await
                    {
                        return end;
                    }
                }
                packet = self.io.read(), if may_read => {
                    last_read = Instant::now();
                    if let Err(end) = self.receive(packet).await {
                        return end;
                    }
                }
                () = sleep_until(judged_at.into()), if may_read => {
                    if second_look.may_judge(silent_at, Instant::now().into_std()) {
                        return SessionEnd::Silent;
                    }
                }
            }
        }
    }

    async fn receive(
        &mut self,
        packet: Result<Option<Packet>, ReadError>,
    ) -> Result<(), SessionEnd> {
        let packet = match packet {
            Ok(Some(packet)) => packet,
            Ok(None) | Err(ReadError::Lost(_)) => return Err(SessionEnd::Lost),
            Err(ReadError::TooLarge { .. }) => return Err(Violation::TooLarge.into()),
            Err(ReadError::Malformed | ReadError::Version) => {
                return Err(Violation::Malformed.into());
            }
        };
        if !matches!(packet, Packet::Pingreq) {
            self.session.note_activity();
        }
        for effect in self.machine.receive(packet)? {
            match effect {
                Effect::Send(bytes) => self.write(&bytes).await?,
                Effect::Store { is_new } => self.store(is_new).await?,
                Effect::Event(event) => self.session.receive(event),
                Effect::Close => return Err(SessionEnd::Disconnect),
            }
        }
        Ok(())
    }

    async fn send(&mut self, command: &DeviceCommand) -> Result<(), SessionEnd> {
        if let DeviceCommand::End(end) = command {
            return Err((*end).into());
        }
        match self.machine.send(command) {
            Ok(Some(bytes)) => self.write(&bytes).await?,
            Ok(None) => {}
            // A service that waits for it gets the answer that the device did not answer.
            Err(error) => {
                self.session
                    .events()
                    .emit(Event::Fault(Fault::NotInMqtt(&error)));
                return Ok(());
            }
        }
        if matches!(
            command,
            DeviceCommand::StreamRequest(_)
                | DeviceCommand::MethodCall(_)
                | DeviceCommand::Message(_)
                | DeviceCommand::Desired(_)
        ) {
            self.session.note_activity();
        }
        if let DeviceCommand::Message(message) = command
            && self.machine.is_taken(message)
        {
            let taken = DeviceEvent::MessageTaken(message.sequence);
            self.session.receive(taken);
        }
        Ok(())
    }

    async fn store(&mut self, is_new: bool) -> Result<(), SessionEnd> {
        tokio::select! {
            biased;
            end = self.session.ended() => Err(end.into()),
            () = self.stored.store(&self.machine, is_new) => Ok(()),
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), SessionEnd> {
        let written = tokio::select! {
            // A device that does not read delays no end of its session.
            biased;
            end = self.session.ended() => return Err(end.into()),
            written = timeout(limits::SESSION_WRITE, self.io.write(bytes)) => written,
        };
        match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(SessionEnd::Lost),
            Err(_) => Err(SessionEnd::Stuck),
        }
    }
}
