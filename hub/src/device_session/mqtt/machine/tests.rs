use common::identity::{DeviceId, RequestId};
use common::mqtt::PacketIo;
use common::wire::stream::StreamAnswer;
use common::wire::twin::TwinResponse;
use proptest::prelude::*;

use super::*;
use crate::device_session::event::TwinAnswer;

fn device() -> DeviceIdentity {
    DeviceIdentity::of_device(DeviceId::parse("dev1").unwrap())
}

fn hex(text: &str) -> Vec<u8> {
    text.split_whitespace()
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect()
}

/// Feeds raw bytes as a device would, one that takes answers about its twin.
async fn effects(bytes: &[u8]) -> Result<Vec<Effect>, Violation> {
    let filters = Subscriptions::from([(twin::RESPONSE_FILTER.to_owned(), 0)]);
    effects_of(&mut Machine::new(device(), filters), bytes).await
}

/// Feeds raw bytes as a device would and returns all effects.
async fn effects_of(machine: &mut Machine, bytes: &[u8]) -> Result<Vec<Effect>, Violation> {
    let (near, mut far) = tokio::io::duplex(1 << 16);
    tokio::io::AsyncWriteExt::write_all(&mut far, bytes)
        .await
        .unwrap();
    drop(far);
    let mut io = PacketIo::new(near, 1 << 16);
    let mut all = Vec::new();
    while let Some(packet) = io.read().await.map_err(|_| Violation::Malformed)? {
        all.extend(machine.receive(packet)?);
        // Their own test looks at these.
        all.retain(|effect| !matches!(effect, Effect::Store { .. }));
    }
    Ok(all)
}

#[tokio::test]
async fn the_vectors_of_both_sdks() {
    let c = hex(
        "82 33 00 02 00 16 24 69 6f 74 68 75 62 2f 73 74 72 65 61 6d 73 2f 50 4f 53 54 2f 23 00 00 15 24 69 6f 74 68 75 62 2f 73 74 72 65 61 6d 73 2f 72 65 73 2f 23 00",
    );
    assert_eq!(
        effects(&c).await.unwrap(),
        [
            Effect::Send(hex("90 04 00 02 00 00")),
            Effect::Event(DeviceEvent::StreamRequests(true))
        ]
    );
    let csharp = hex(
        "82 1b 00 01 00 16 24 69 6f 74 68 75 62 2f 73 74 72 65 61 6d 73 2f 50 4f 53 54 2f 23 00 82 1a 00 02 00 15 24 69 6f 74 68 75 62 2f 73 74 72 65 61 6d 73 2f 72 65 73 2f 23 00",
    );
    assert_eq!(
        effects(&csharp).await.unwrap(),
        [
            Effect::Send(hex("90 03 00 01 00")),
            Effect::Event(DeviceEvent::StreamRequests(true)),
            Effect::Send(hex("90 03 00 02 00")),
        ]
    );
    let accept = hex(
        "30 21 00 1f 24 69 6f 74 68 75 62 2f 73 74 72 65 61 6d 73 2f 72 65 73 2f 32 30 30 2f 3f 24 72 69 64 3d 31",
    );
    let answer = |accepted| {
        Effect::Event(DeviceEvent::StreamAnswer(StreamAnswer {
            request_id: RequestId::from(1),
            accepted,
        }))
    };
    assert_eq!(effects(&accept).await.unwrap(), [answer(true)]);
    let reject = hex(
        "30 21 00 1f 24 69 6f 74 68 75 62 2f 73 74 72 65 61 6d 73 2f 72 65 73 2f 34 30 30 2f 3f 24 72 69 64 3d 31",
    );
    assert_eq!(effects(&reject).await.unwrap(), [answer(false)]);
}

#[tokio::test]
async fn quality_of_service() {
    // QoS 1 telemetry to devices/dev1/messages/events/ with packet id 5.
    let topic = b"devices/dev1/messages/events/";
    let mut publish = vec![0x32, 2 + topic.len() as u8 + 2 + 2, 0, topic.len() as u8];
    publish.extend_from_slice(topic);
    publish.extend_from_slice(&[0, 5, b'h', b'i']);
    assert_eq!(
        effects(&publish).await.unwrap(),
        [
            Effect::Send(hex("40 02 00 05")),
            Effect::Event(DeviceEvent::Telemetry {
                properties: String::new(),
                payload: Bytes::from_static(b"hi"),
            })
        ]
    );
    publish[0] = 0x34;
    assert_eq!(effects(&publish).await, Err(Violation::Qos2));
}

#[tokio::test]
async fn filters_are_kept_in_one_spelling_and_only_those_that_are_granted() {
    let options = |qos| common::mqtt::SubOpts::new().set_qos(qos);
    let entries = [
        ("$IOTHUB/twin/RES/#", Qos::ExactlyOnce),
        ("devices/other/messages/devicebound/#", Qos::AtMostOnce),
        ("devices/dev1/messages/devicebound/#", Qos::AtMostOnce),
    ];
    let entries =
        entries.map(|(filter, qos)| common::mqtt::SubEntry::new(filter, options(qos)).unwrap());
    let subscribe = packet::Subscribe::builder()
        .packet_id(1u16)
        .entries(entries.to_vec());
    let subscribe = subscribe.build().unwrap();
    let mut machine = Machine::new(device(), Subscriptions::new());
    let effects = machine
        .receive(Packet::Subscribe(subscribe.clone()))
        .unwrap();
    let granted = Subscriptions::from([
        ("$iothub/twin/res/#".to_owned(), 1),
        ("devices/dev1/messages/devicebound/#".to_owned(), 0),
    ]);
    assert_eq!(effects[0], Effect::Store { is_new: true }, "before SUBACK");
    assert_eq!(machine.subscriptions(), &granted);
    let effects = machine.receive(Packet::Subscribe(subscribe)).unwrap();
    assert_eq!(effects[0], Effect::Store { is_new: false });
}

#[tokio::test]
async fn unknown_filters_are_refused_kindly_and_qos_2_becomes_1() {
    let subscribe = packet::Subscribe::builder()
        .packet_id(9u16)
        .entries(
            [
                ("#", Qos::AtMostOnce),
                ("$iothub/twin/res/#", Qos::ExactlyOnce),
            ]
            .map(|(filter, qos)| {
                let options = common::mqtt::SubOpts::new().set_qos(qos);
                common::mqtt::SubEntry::new(filter, options).unwrap()
            })
            .to_vec(),
        )
        .build()
        .unwrap();
    let sent = effects(&subscribe.to_continuous_buffer()).await.unwrap();
    assert_eq!(sent, [Effect::Send(hex("90 04 00 09 80 01"))]);
}

#[tokio::test]
async fn twin_requests_have_an_id_that_can_be_echoed() {
    let seen = async |topic: &[u8], payload: &[u8]| {
        let mut publish = vec![0x30, (2 + topic.len() + payload.len()) as u8, 0];
        publish.push(topic.len() as u8);
        publish.extend_from_slice(topic);
        publish.extend_from_slice(payload);
        effects(&publish).await
    };
    let id = |text: &str| RequestId::parse(text).unwrap();
    let twin = |request, body: &[u8]| {
        Effect::Event(DeviceEvent::Twin {
            request,
            body: body.to_vec(),
            is_answered: true,
        })
    };
    assert_eq!(
        seen(b"$iothub/twin/GET/?$rid=65535", b" ").await.unwrap(),
        [twin(TwinRequest::Get(id("65535")), b"")]
    );
    let topic = b"$iothub/twin/PATCH/properties/reported/?$rid=a-b";
    assert_eq!(
        seen(topic, b"{}").await.unwrap(),
        [twin(TwinRequest::PatchReported(id("a-b")), b"{}")]
    );
    for topic in [
        &b"$iothub/twin/GET/?$rid=a/b"[..],
        b"$iothub/twin/GET/?$rid=\x01",
        b"$iothub/twin/GET/?$rid=",
        b"$iothub/twin/GET/",
        b"$iothub/twin/PATCH/properties/desired/?$rid=1",
    ] {
        assert_eq!(seen(topic, b"").await.unwrap_or_default(), []);
    }
}

#[tokio::test]
async fn a_device_that_takes_no_twin_answers_gets_none() {
    let filters = Subscriptions::from([(twin::RESPONSE_FILTER.to_owned(), 0)]);
    let mut machine = Machine::new(device(), filters);
    let request_id = RequestId::from(1);
    let answer = DeviceCommand::TwinAnswer(TwinAnswer {
        response: TwinResponse {
            request_id: request_id.clone(),
            status: 204,
            version: Some(2),
        },
        body: String::new(),
        desired: None,
    });
    let topic = "$iothub/twin/res/204/?$rid=1&$version=2";
    assert_eq!(
        machine.send(&answer).unwrap(),
        Some(mqtt::publish(topic).unwrap())
    );
    let unsubscribe =
        hex("a2 16 00 03 00 12 24 69 6f 74 68 75 62 2f 74 77 69 6e 2f 72 65 73 2f 23");
    assert_eq!(
        effects_of(&mut machine, &unsubscribe).await.unwrap(),
        [Effect::Send(hex("b0 02 00 03"))]
    );
    assert_eq!(machine.send(&answer).unwrap(), None);
    let read = mqtt::publish(&TwinRequest::Get(request_id.clone()).to_topic()).unwrap();
    assert_eq!(effects_of(&mut machine, &read).await.unwrap(), []);
    let request = TwinRequest::PatchReported(request_id);
    let report = mqtt::publish_with(&request.to_topic(), b"{}").unwrap();
    assert_eq!(
        effects_of(&mut machine, &report).await.unwrap(),
        [Effect::Event(DeviceEvent::Twin {
            request,
            body: b"{}".to_vec(),
            is_answered: false
        })]
    );
}

#[tokio::test]
async fn desired_properties_and_method_calls_reach_who_subscribes_them() {
    let mut machine = Machine::new(device(), Subscriptions::new());
    for (filter, event) in [
        (twin::DESIRED_FILTER, DeviceEvent::DesiredUpdates(true)),
        (common::wire::method::FILTER, DeviceEvent::MethodCalls(true)),
    ] {
        let effects = effects_of(&mut machine, &mqtt::subscribe(1, &[filter]).unwrap())
            .await
            .unwrap();
        assert_eq!(effects.last(), Some(&Effect::Event(event)));
    }
    assert_eq!(machine.resume().len(), 2);

    let update = DeviceCommand::Desired(DesiredUpdate {
        version: 7,
        body: r#"{"$version":7}"#.to_owned(),
    });
    let topic = "$iothub/twin/PATCH/properties/desired/?$version=7";
    let expected = mqtt::publish_with(topic, br#"{"$version":7}"#).unwrap();
    assert_eq!(machine.send(&update).unwrap(), Some(expected));
    let call = DeviceCommand::MethodCall(MethodCall {
        request: common::wire::method::MethodRequest {
            name: common::identity::MethodName::parse("reboot").unwrap(),
            request_id: RequestId::from(12),
        },
        payload: Bytes::from_static(b"null"),
    });
    let expected = mqtt::publish_with("$iothub/methods/POST/reboot/?$rid=12", b"null").unwrap();
    assert_eq!(machine.send(&call).unwrap(), Some(expected));

    // Whoever waits for it gets the answer, subscribed or not.
    let answer = mqtt::publish_with("$iothub/methods/res/299/?$rid=12", br#""x""#).unwrap();
    let effects = effects_of(&mut machine, &answer).await.unwrap();
    let [Effect::Event(DeviceEvent::MethodAnswer { request, answer })] = &effects[..] else {
        panic!("{effects:?}");
    };
    assert_eq!(request.as_str(), "12");
    assert_eq!((answer.status, &answer.payload[..]), (299, &br#""x""#[..]));
}

#[tokio::test]
async fn messages_come_with_the_quality_that_was_subscribed() {
    let message = |sequence, deliveries| Message {
        sequence,
        deliveries,
        properties: "a=b".to_owned(),
        payload: Bytes::from_static(b"hi"),
    };
    let topic = "devices/dev1/messages/devicebound/a=b";
    let filter = "devices/dev1/messages/devicebound/#".to_owned();
    let mut machine = Machine::new(device(), Subscriptions::from([(filter.clone(), 1)]));
    assert_eq!(machine.resume(), [DeviceEvent::Messages(true)]);
    for (id, message) in [(1, message(7, 0)), (2, message(8, 1))] {
        let sent = machine.send(&DeviceCommand::Message(message.clone()));
        let is_repeated = message.deliveries > 0;
        let packet = mqtt::publish_at_least_once(topic, b"hi", id, is_repeated).unwrap();
        assert_eq!(sent.unwrap(), Some(packet));
        assert!(!machine.is_taken(&message));
    }
    let receipts = effects_of(&mut machine, &hex("40 02 00 02 40 02 00 02 40 02 00 09")).await;
    let taken = [Effect::Event(DeviceEvent::MessageTaken(8))];
    assert_eq!(receipts.unwrap(), taken, "once");
    assert!(machine.is_taken(&message(8, 1)) && !machine.is_taken(&message(7, 0)));

    let mut machine = Machine::new(device(), Subscriptions::from([(filter, 0)]));
    let sent = machine
        .send(&DeviceCommand::Message(message(9, 0)))
        .unwrap();
    assert_eq!(sent, Some(mqtt::publish_with(topic, b"hi").unwrap()));
    assert!(machine.is_taken(&message(9, 0)));
}

#[test]
fn earlier_connections_subscriptions_hold() {
    let filters = [common::wire::stream::REQUEST_FILTER, twin::RESPONSE_FILTER];
    let filters = filters.map(|filter| (filter.to_owned(), 0));
    let machine = Machine::new(device(), filters.into());
    assert_eq!(machine.resume(), [DeviceEvent::StreamRequests(true)]);
    assert_eq!(Machine::new(device(), Subscriptions::new()).resume(), []);
}

#[tokio::test]
async fn pings_disconnects_and_malformed_bytes() {
    assert_eq!(
        effects(&hex("c0 00 e0 00")).await.unwrap(),
        [Effect::Send(hex("d0 00")), Effect::Close]
    );
    assert_eq!(effects(&hex("d0 00")).await, Err(Violation::HubPacket));
    assert_eq!(effects(&hex("c1 00")).await, Err(Violation::Malformed));
    assert_eq!(
        effects(&b"GET / HTTP/1.1\r\n".repeat(9)).await,
        Err(Violation::Malformed)
    );
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _ = runtime.block_on(effects(&bytes));
    }

    #[test]
    fn bent_packets_never_panic(place in 0usize..53, byte in any::<u8>(), cut in 0usize..53) {
        let mut bytes = hex("82 33 00 02 00 16 24 69 6f 74 68 75 62 2f 73 74 72 65 61 6d 73 2f 50 4f 53 54 2f 23 00 00 15 24 69 6f 74 68 75 62 2f 73 74 72 65 61 6d 73 2f 72 65 73 2f 23 00");
        bytes[place] = byte;
        bytes.truncate(cut);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _ = runtime.block_on(effects(&bytes));
    }
}
