//! A device's MQTT session at the hub, on any bytes.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use common::identity::{DeviceId, DeviceIdentity, ModuleId, RequestId};
use common::mqtt::{Packet, PacketIo};
use common::wire::topics::{self, DeviceFilter};
use common::wire::twin::{self, TwinRequest, TwinResponse};
use common::wire::{method, stream};
use hub::device_session::mqtt::machine::{Effect, Machine};
use hub::device_session::{DeviceCommand, DeviceEvent, TwinAnswer};
use hub::registry::Subscriptions;

/// Feeds a device's MQTT session after CONNECT with these bytes: it subscribes only to filters that
/// the device may have, and sends only packets that a device can read.
pub fn run(input: &[u8]) {
    let device = DeviceId::parse("a+b#c").expect("an id");
    let module = ModuleId::parse("m").expect("an id");
    for module in [None, Some(module)] {
        let identity = DeviceIdentity {
            device: device.clone(),
            module,
        };
        let mut machine = Machine::new(identity.clone(), Subscriptions::new());
        for packet in packets(input) {
            let Ok(effects) = machine.receive(packet) else {
                break;
            };
            for effect in effects {
                check(&mut machine, effect);
            }
            for filter in machine.subscriptions().keys() {
                let meaning = topics::device_filter(&identity, filter);
                assert_ne!(meaning, DeviceFilter::Unknown, "{filter}");
                assert_eq!(topics::canonical_filter(filter), filter);
            }
            // The fixed filters, and those of the identity's own path.
            assert!(machine.subscriptions().len() <= 9);
        }
    }
}

/// Checks an effect of a packet.
fn check(machine: &mut Machine, effect: Effect) {
    let has = |filter: &str| machine.subscriptions().contains_key(filter);
    match effect {
        Effect::Send(bytes) => {
            let sent = packets(&bytes);
            assert!(
                matches!(
                    sent.as_slice(),
                    [Packet::Puback(_)
                        | Packet::Suback(_)
                        | Packet::Unsuback(_)
                        | Packet::Pingresp]
                ),
                "{sent:?}"
            );
        }
        Effect::Event(DeviceEvent::StreamRequests(is_wanted)) => {
            assert_eq!(is_wanted, has(stream::REQUEST_FILTER));
        }
        Effect::Event(DeviceEvent::MethodCalls(is_wanted)) => {
            assert_eq!(is_wanted, has(method::FILTER));
        }
        Effect::Event(DeviceEvent::DesiredUpdates(is_wanted)) => {
            assert_eq!(is_wanted, has(twin::DESIRED_FILTER));
        }
        Effect::Event(DeviceEvent::Twin {
            request,
            is_answered,
            ..
        }) => {
            assert_eq!(is_answered, has(twin::RESPONSE_FILTER));
            let (TwinRequest::Get(request_id) | TwinRequest::PatchReported(request_id)) = request;
            check_answer(machine, request_id, is_answered);
        }
        Effect::Event(
            DeviceEvent::StreamAnswer(_)
            | DeviceEvent::MethodAnswer { .. }
            | DeviceEvent::MessageTaken(_)
            | DeviceEvent::Messages(_)
            | DeviceEvent::Telemetry { .. },
        )
        | Effect::Store { .. }
        | Effect::Close => {}
    }
}

/// The answer to a twin request is sent only to a device that has subscribed to answers, and names
/// the request.
fn check_answer(machine: &mut Machine, request_id: RequestId, is_answered: bool) {
    let answer = DeviceCommand::TwinAnswer(TwinAnswer {
        response: TwinResponse {
            request_id: request_id.clone(),
            status: 200,
            version: None,
        },
        body: "{}".to_owned(),
        desired: None,
    });
    let sent = machine.send(&answer).expect("an id that can be echoed");
    assert_eq!(sent.is_some(), is_answered);
    for packet in packets(&sent.unwrap_or_default()) {
        let Packet::Publish(publish) = packet else {
            panic!("{packet:?} instead of an answer");
        };
        let response = TwinResponse::from_topic(publish.topic_name()).expect("an answer");
        assert_eq!(response.request_id, request_id);
    }
}

/// The packets at the beginning of these bytes. Reading from memory never waits.
fn packets(bytes: &[u8]) -> Vec<Packet> {
    let mut io = PacketIo::new(tokio::io::join(bytes, tokio::io::sink()), 1 << 16);
    let mut packets = Vec::new();
    let mut context = Context::from_waker(Waker::noop());
    while let Poll::Ready(Ok(Some(packet))) = pin!(io.read()).poll(&mut context) {
        packets.push(packet);
    }
    packets
}
