//! The hub's side of an MQTT session after CONNECT: it owns what the device has subscribed, and
//! turns packets into what is to be done about them, and what the hub has for the device into
//! packets. No I/O, no clock.

use std::collections::HashMap;

use bytes::Bytes;
use common::identity::DeviceIdentity;
use common::mqtt::{self, MqttError, Packet, Qos, SubackReturnCode, packet};
use common::wire::message::devicebound_topic;
use common::wire::topics::{self, DeviceFilter, DevicePublish};
use common::wire::twin::{self, DesiredChange, TwinRequest};

use super::super::event::{DeviceCommand, DeviceEvent};
use super::topics::{is_filter, is_topic};
use crate::pending::{MethodAnswer, MethodCall};
use crate::presence::DesiredUpdate;
use crate::registry::{Message, Subscriptions};

/// A rule that a device broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Bytes that are not MQTT 3.1.1.
    #[error("the device sent bytes that are not MQTT 3.1.1")]
    Malformed,
    /// A packet above the limit.
    #[error("the device sent a packet that is too large")]
    TooLarge,
    /// CONNECT a second time.
    #[error("the device sent CONNECT twice")]
    SecondConnect,
    /// IoT Hub knows no QoS 2.
    #[error("the device published with QoS 2")]
    Qos2,
    /// Nothing that this identity may publish to.
    #[error("the device published to a topic that is not its own")]
    ForeignTopic,
    /// A topic with a wildcard or U+0000, or an empty one.
    #[error("the device published to a topic that MQTT does not allow")]
    BadTopic,
    /// A filter with a wildcard in the wrong place or U+0000, or an empty one.
    #[error("the device subscribed a topic filter that MQTT does not allow")]
    BadFilter,
    /// A packet that only hubs send.
    #[error("the device sent a packet that only a hub may send")]
    HubPacket,
}

/// What to do about a packet.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// Write these bytes.
    Send(Vec<u8>),
    /// What the device has subscribed is to be stored before what follows.
    Store {
        /// It differs from before.
        is_new: bool,
    },
    /// The device does something that concerns its session.
    Event(DeviceEvent),
    /// The device has sent DISCONNECT.
    Close,
}

/// One device's session in MQTT.
#[derive(Debug)]
pub struct Machine {
    identity: DeviceIdentity,
    /// What it has subscribed, with the granted QoS.
    subscriptions: Subscriptions,
    /// Messages that were sent with QoS 1 and have no receipt yet, by their packet's id.
    in_flight: HashMap<u16, u64>,
    last_packet_id: u16,
}

impl Machine {
    /// The session of this identity, which has subscribed these in earlier connections.
    pub fn new(identity: DeviceIdentity, subscriptions: Subscriptions) -> Self {
        Self {
            identity,
            subscriptions,
            in_flight: HashMap::new(),
            last_packet_id: 0,
        }
    }

    /// Whose session it is.
    pub fn identity(&self) -> &DeviceIdentity {
        &self.identity
    }

    /// What the device has subscribed.
    pub fn subscriptions(&self) -> &Subscriptions {
        &self.subscriptions
    }

    /// What follows from earlier connections' subscriptions; to be asked once, at the start.
    pub fn resume(&self) -> Vec<DeviceEvent> {
        let filters = self.subscriptions.keys();
        filters
            .filter_map(|filter| self.subscribed(filter, true))
            .collect()
    }

    /// What it means that the device has subscribed a filter, or no longer does.
    fn subscribed(&self, filter: &str, is_wanted: bool) -> Option<DeviceEvent> {
        match topics::device_filter(&self.identity, filter) {
            DeviceFilter::StreamRequests => Some(DeviceEvent::StreamRequests(is_wanted)),
            DeviceFilter::DesiredUpdates => Some(DeviceEvent::DesiredUpdates(is_wanted)),
            DeviceFilter::MethodCalls => Some(DeviceEvent::MethodCalls(is_wanted)),
            DeviceFilter::Messages => Some(DeviceEvent::Messages(is_wanted)),
            DeviceFilter::TwinResponses | DeviceFilter::Known | DeviceFilter::Unknown => None,
        }
    }

    /// Judges one packet.
    ///
    /// # Errors
    /// [`Violation`]: the session must end.
    pub fn receive(&mut self, packet: Packet) -> Result<Vec<Effect>, Violation> {
        match packet {
            Packet::Publish(publish) => self.publish(&publish),
            Packet::Subscribe(subscribe) => self.subscribe(&subscribe),
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe(&unsubscribe),
            Packet::Pingreq => {
                let packet = packet::Pingresp::builder().build();
                Ok(vec![reply(packet.map(|it| it.to_continuous_buffer()))?])
            }
            Packet::Disconnect => Ok(vec![Effect::Close]),
            Packet::Puback(receipt) => {
                let taken = self.in_flight.remove(&receipt.packet_id());
                let event = taken.map(DeviceEvent::MessageTaken);
                Ok(event.map(Effect::Event).into_iter().collect())
            }
            Packet::Connect(_) => Err(Violation::SecondConnect),
            Packet::Connack(_) | Packet::Suback(_) | Packet::Unsuback(_) | Packet::Pingresp => {
                Err(Violation::HubPacket)
            }
        }
    }

    /// The packet that carries a command. `None`: MQTT has none for it, or the device does not
    /// subscribe what it belongs to.
    ///
    /// # Errors
    /// [`MqttError`] when MQTT cannot express it.
    pub fn send(&mut self, command: &DeviceCommand) -> Result<Option<Vec<u8>>, MqttError> {
        match command {
            DeviceCommand::Message(message) => self.message(message).map(Some),
            DeviceCommand::StreamRequest(request) => mqtt::publish(&request.to_topic()).map(Some),
            DeviceCommand::TwinAnswer(answer) if self.has(twin::RESPONSE_FILTER) => {
                let topic = answer.response.to_topic();
                mqtt::publish_with(&topic, answer.body.as_bytes()).map(Some)
            }
            DeviceCommand::MethodCall(MethodCall { request, payload }) => {
                mqtt::publish_with(&request.to_topic(), payload).map(Some)
            }
            DeviceCommand::Desired(DesiredUpdate { version, body }) => {
                let topic = DesiredChange { version: *version }.to_topic();
                mqtt::publish_with(&topic, body.as_bytes()).map(Some)
            }
            DeviceCommand::TwinAnswer(_) | DeviceCommand::End(_) => Ok(None),
        }
    }

    /// A message, with the QoS that the device has subscribed.
    fn message(&mut self, message: &Message) -> Result<Vec<u8>, MqttError> {
        let topic = devicebound_topic(&self.identity.device, &message.properties);
        let mut granted = self.subscriptions.iter().filter(|(filter, _)| {
            topics::device_filter(&self.identity, filter) == DeviceFilter::Messages
        });
        if granted.all(|(_, qos)| *qos == 0) {
            return mqtt::publish_with(&topic, &message.payload);
        }
        loop {
            self.last_packet_id = self.last_packet_id.checked_add(1).unwrap_or(1);
            if !self.in_flight.contains_key(&self.last_packet_id) {
                break;
            }
        }
        let id = self.last_packet_id;
        let is_repeated = message.deliveries > 0;
        let packet = mqtt::publish_at_least_once(&topic, &message.payload, id, is_repeated)?;
        self.in_flight.insert(id, message.sequence);
        Ok(packet)
    }

    /// Whether a message needs no receipt: it was sent with QoS 0.
    pub fn is_taken(&self, message: &Message) -> bool {
        !self
            .in_flight
            .values()
            .any(|sequence| *sequence == message.sequence)
    }

    fn has(&self, filter: &str) -> bool {
        self.subscriptions.contains_key(filter)
    }

    fn publish(&self, publish: &packet::Publish) -> Result<Vec<Effect>, Violation> {
        let topic = publish.topic_name();
        if !is_topic(&self.identity, topic) {
            return Err(Violation::BadTopic);
        }
        let mut effects = Vec::with_capacity(2);
        match publish.qos() {
            Qos::ExactlyOnce => return Err(Violation::Qos2),
            Qos::AtLeastOnce => {
                let id = publish.packet_id().filter(|id| *id != 0);
                let id = id.ok_or(Violation::Malformed)?;
                let packet = packet::Puback::builder().packet_id(id).build();
                effects.push(reply(packet.map(|it| it.to_continuous_buffer()))?);
            }
            Qos::AtMostOnce if publish.dup() => return Err(Violation::Malformed),
            Qos::AtMostOnce => {}
        }
        // The retain flag is ignored.
        let event = match topics::device_publish(&self.identity, topic) {
            DevicePublish::StreamAnswer(answer) => Some(DeviceEvent::StreamAnswer(answer)),
            DevicePublish::Twin(request) => self.twin(request, publish),
            DevicePublish::MethodAnswer(answer) => Some(DeviceEvent::MethodAnswer {
                request: answer.request_id,
                answer: MethodAnswer {
                    status: answer.status,
                    payload: Bytes::copy_from_slice(publish.payload().as_slice()),
                },
            }),
            DevicePublish::Telemetry(properties) => Some(DeviceEvent::Telemetry {
                properties,
                payload: Bytes::copy_from_slice(publish.payload().as_slice()),
            }),
            DevicePublish::Known => None,
            DevicePublish::Unknown => return Err(Violation::ForeignTopic),
        };
        effects.extend(event.map(Effect::Event));
        Ok(effects)
    }

    /// A request about the twin; a read whose answer the device does not take is none.
    fn twin(&self, request: TwinRequest, publish: &packet::Publish) -> Option<DeviceEvent> {
        let is_answered = self.has(twin::RESPONSE_FILTER);
        let body = match request {
            TwinRequest::Get(_) if !is_answered => return None,
            // One SDK sends a blank with it.
            TwinRequest::Get(_) => Vec::new(),
            TwinRequest::PatchReported(_) => publish.payload().as_slice().to_vec(),
        };
        Some(DeviceEvent::Twin {
            request,
            body,
            is_answered,
        })
    }

    fn subscribe(&mut self, subscribe: &packet::Subscribe) -> Result<Vec<Effect>, Violation> {
        let entries = subscribe.entries();
        if !entries
            .iter()
            .all(|entry| is_filter(&self.identity, entry.topic_filter()))
        {
            return Err(Violation::BadFilter);
        }
        let mut codes = Vec::with_capacity(entries.len());
        let (mut events, mut is_new) = (Vec::new(), false);
        for entry in entries {
            let (filter, qos) = (entry.topic_filter(), entry.sub_opts().qos());
            let meaning = topics::device_filter(&self.identity, filter);
            if meaning == DeviceFilter::Unknown {
                codes.push(SubackReturnCode::Failure);
                continue;
            }
            events.extend(self.subscribed(filter, true));
            // QoS 2 is granted as 1.
            let (code, qos) = match qos {
                Qos::AtMostOnce => (SubackReturnCode::SuccessMaximumQos0, 0),
                _ => (SubackReturnCode::SuccessMaximumQos1, 1),
            };
            codes.push(code);
            let filter = topics::canonical_filter(filter).to_owned();
            is_new |= self.subscriptions.insert(filter, qos) != Some(qos);
        }
        let suback = packet::Suback::builder()
            .packet_id(subscribe.packet_id())
            .return_codes(codes)
            .build();
        let mut effects = vec![
            Effect::Store { is_new },
            reply(suback.map(|it| it.to_continuous_buffer()))?,
        ];
        effects.extend(events.into_iter().map(Effect::Event));
        Ok(effects)
    }

    fn unsubscribe(&mut self, unsubscribe: &packet::Unsubscribe) -> Result<Vec<Effect>, Violation> {
        let filters = unsubscribe.entries();
        if !filters
            .iter()
            .all(|filter| is_filter(&self.identity, filter.as_str()))
        {
            return Err(Violation::BadFilter);
        }
        let (mut events, mut is_new) = (Vec::new(), false);
        for filter in filters {
            let filter = topics::canonical_filter(filter.as_str());
            events.extend(self.subscribed(filter, false));
            is_new |= self.subscriptions.remove(filter).is_some();
        }
        let unsuback = packet::Unsuback::builder()
            .packet_id(unsubscribe.packet_id())
            .build();
        let mut effects = vec![
            Effect::Store { is_new },
            reply(unsuback.map(|it| it.to_continuous_buffer()))?,
        ];
        effects.extend(events.into_iter().map(Effect::Event));
        Ok(effects)
    }
}

/// The answer to a packet; one that cannot be answered was none.
fn reply(packet: Result<Vec<u8>, MqttError>) -> Result<Effect, Violation> {
    packet.map(Effect::Send).map_err(|_| Violation::Malformed)
}

#[cfg(test)]
mod tests;
