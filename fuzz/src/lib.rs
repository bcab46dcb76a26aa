//! What the fuzz targets of parsers do with their input. No dependency but public items of
//! `common` and `hub`: `tests/tests/parsers.rs` compiles the same file and plays the corpora.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use common::connection_string::{DeviceConnectionString, ServiceConnectionString};
use common::hub_address::HubAddress;
use common::identity::{DeviceId, DeviceIdentity, ModuleId, RequestId};
use common::mqtt::{Packet, PacketIo};
use common::sas_token::SasToken;
use common::wire::stream::{self, StreamAnswer, StreamRequest};
use common::wire::topics::{self, DeviceFilter};
use common::wire::twin::{self, TwinRequest, TwinResponse};
use hub::device_session::mqtt::machine::{Effect, Machine};
use hub::device_session::{DeviceCommand, DeviceEvent, TwinAnswer};
use hub::registry::Subscriptions;

/// The input as text; what is no text never comes to these parsers.
fn text(input: &[u8]) -> Option<&str> {
    std::str::from_utf8(input).ok()
}

/// MQTT topics, filters and user names. What is read as a request or an answer is read as the same
/// from what it is written as.
pub fn topics(input: &[u8]) {
    let Some(text) = text(input) else { return };
    // Ids may have characters that mean something in filters.
    let device = DeviceId::parse("a+b#c").expect("an id");
    let module = ModuleId::parse("m").expect("an id");
    for module in [None, Some(module)] {
        let identity = DeviceIdentity {
            device: device.clone(),
            module,
        };
        let _ = topics::device_publish(&identity, text);
        let _ = topics::device_filter(&identity, text);
    }
    let _ = topics::canonical_filter(text);
    if let Ok(identity) = topics::identity_from_user_name(text) {
        let written = topics::user_name("h", &identity, "x");
        assert_eq!(topics::identity_from_user_name(&written), Ok(identity));
    }
    if let Ok(request) = StreamRequest::from_topic(text) {
        let topic = request.to_topic();
        let again = StreamRequest::from_topic(&topic).expect("what we write");
        assert_eq!(again.to_topic(), topic);
    }
    if let Some(answer) = StreamAnswer::from_topic(text) {
        let again = StreamAnswer::from_topic(&answer.to_topic()).expect("what we write");
        assert_eq!(again.to_topic(), answer.to_topic());
    }
    if let Some(request) = TwinRequest::from_topic(text) {
        let again = TwinRequest::from_topic(&request.to_topic()).expect("what we write");
        assert_eq!(again.to_topic(), request.to_topic());
    }
}

/// SAS tokens: none is for another host than its own, and none shows its signature.
pub fn sas_token(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let Ok(token) = SasToken::parse(text) else {
        return;
    };
    let hub = HubAddress::parse("myhub.example.net").expect("an address");
    let other = HubAddress::parse("other.example.org").expect("an address");
    let is_for = |hub| token.is_for(hub, "devices/dev1") || token.covers(hub, "devices/dev1");
    assert!(!(is_for(&hub) && is_for(&other)));
    let _ = (token.expiry(), token.policy(), token.names_only_host());
}

/// Connection strings: what is read is read as the same from what it is written as.
pub fn connection_string(input: &[u8]) {
    let Some(text) = text(input) else { return };
    if let Ok(parsed) = DeviceConnectionString::parse(text) {
        let written = parsed.to_secret_text();
        assert!(DeviceConnectionString::parse(written.expose()) == Ok(parsed));
    }
    if let Ok(parsed) = ServiceConnectionString::parse(text) {
        let written = parsed.to_secret_text();
        assert!(ServiceConnectionString::parse(written.expose()) == Ok(parsed));
    }
}

/// A device's MQTT session after CONNECT, fed with these bytes: what is subscribed is what the
/// device may have, and what the machine sends is what a device can read.
pub fn mqtt_session(input: &[u8]) {
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
                play(&machine, effect);
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

/// What the machine wants done about a packet is in order.
fn play(machine: &Machine, effect: Effect) {
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
        Effect::Event(DeviceEvent::Twin {
            request,
            is_answered,
            ..
        }) => {
            assert_eq!(is_answered, has(twin::RESPONSE_FILTER));
            let (TwinRequest::Get(request_id) | TwinRequest::PatchReported(request_id)) = request;
            answered(machine, request_id, is_answered);
        }
        Effect::Event(DeviceEvent::StreamAnswer(_) | DeviceEvent::Telemetry)
        | Effect::Store { .. }
        | Effect::Close => {}
    }
}

/// The answer to a twin request is sent to those who take it, and names the request.
fn answered(machine: &Machine, request_id: RequestId, is_answered: bool) {
    let answer = DeviceCommand::TwinAnswer(TwinAnswer {
        response: TwinResponse {
            request_id: request_id.clone(),
            status: 200,
            version: None,
        },
        body: "{}".to_owned(),
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

/// The packets at the beginning of these bytes. What is in memory is read without waiting.
fn packets(bytes: &[u8]) -> Vec<Packet> {
    let mut io = PacketIo::new(tokio::io::join(bytes, tokio::io::sink()), 1 << 16);
    let mut packets = Vec::new();
    let mut context = Context::from_waker(Waker::noop());
    while let Poll::Ready(Ok(Some(packet))) = pin!(io.read()).poll(&mut context) {
        packets.push(packet);
    }
    packets
}
