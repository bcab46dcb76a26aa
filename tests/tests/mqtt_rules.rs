//! MQTT with devices: sessions that persist across connections, where telemetry goes, and what the
//! hub refuses.

use common::clock::unix_now;
use common::mqtt::{ConnectReturnCode, Packet};
use common::wire::twin;
use tests::raw_device::password;
use tests::{RawDevice, RawService, TestHub};

const TWIN_GET: &str = "$iothub/twin/GET/?$rid=1";

/// Requests the twin and receives it.
async fn reads_twin(device: &mut RawDevice) {
    device.publish(TWIN_GET, b" ").await;
    let (response, _) = device.twin_response().await;
    assert_eq!((response.request_id.as_str(), response.status), ("1", 200));
}

/// A request sent before the response topic is subscribed is never answered.
async fn reads_no_twin(device: &mut RawDevice) {
    device.publish(TWIN_GET, b" ").await;
    device.subscribe_twin().await;
    device.publish("$iothub/twin/GET/?$rid=2", b" ").await;
    let (response, _) = device.twin_response().await;
    assert_eq!(response.request_id.as_str(), "2");
}

/// UNSUBSCRIBE of the twin's response topic.
async fn unsubscribe_twin(device: &mut RawDevice) {
    let filter = twin::RESPONSE_FILTER.as_bytes();
    let mut bytes = vec![0xa2, 4 + filter.len() as u8, 0, 9, 0, filter.len() as u8];
    bytes.extend_from_slice(filter);
    device.send(&bytes).await;
    assert!(matches!(device.packet().await, Packet::Unsuback(_)));
}

#[tokio::test]
async fn subscriptions_outlive_connections_and_hubs() {
    let hub = TestHub::start().await;
    let ids = ["d", "d/m"];
    let mut connections = Vec::new();
    for id in ids {
        let connection = hub.create(id).await;
        let (mut device, present) = RawDevice::resume(&hub, &connection, false).await;
        assert!(!present, "{id}");
        device.send(&[0xc0, 0]).await;
        assert!(device.answers_ping().await);
        let (mut device, present) = RawDevice::resume(&hub, &connection, false).await;
        assert!(!present, "{id} has subscribed nothing yet");
        device.subscribe().await;
        device.subscribe_twin().await;

        // While the old connection is still there.
        let (mut second, present) = RawDevice::resume(&hub, &connection, false).await;
        assert!(present, "{id}");
        reads_twin(&mut second).await;
        device.ended().await;
        connections.push(connection);
    }
    let hub = hub.restart().await;
    let service = RawService::new(&hub).await;
    for (id, connection) in ids.iter().zip(&connections) {
        let (mut device, present) = RawDevice::resume(&hub, connection, false).await;
        assert!(present, "{id}");
        reads_twin(&mut device).await;
        let path = id.replace('/', "/modules/");
        let path = format!("/twins/{path}/streams/s?api-version=2020-09-30");
        let request = service.call(reqwest::Method::POST, &path).send();
        let (response, ()) = tokio::join!(request, async {
            let request = device.request().await;
            device.answer(&request, false).await;
        });
        assert_eq!(response.unwrap().status(), 200, "{id}");

        unsubscribe_twin(&mut device).await;
        let (mut device, present) = RawDevice::resume(&hub, connection, false).await;
        assert!(present, "{id} still takes stream requests");
        reads_no_twin(&mut device).await;

        let (mut device, present) = RawDevice::resume(&hub, connection, true).await;
        assert!(!present, "{id} wants a clean session");
        device.subscribe_twin().await;
        reads_twin(&mut device).await;
        let (_, present) = RawDevice::resume(&hub, connection, false).await;
        assert!(!present, "a clean session leaves nothing");
    }
}

#[tokio::test]
async fn an_identity_that_is_made_anew_has_no_session() {
    let hub = TestHub::start().await;
    let old = [hub.create("d").await, hub.create("d/m").await];
    for connection in &old {
        let (mut device, _) = RawDevice::resume(&hub, connection, false).await;
        device.subscribe_twin().await;
        let (_, present) = RawDevice::resume(&hub, connection, false).await;
        assert!(present);
    }
    hub.delete("d").await;
    for connection in [hub.create("d").await, hub.create("d/m").await] {
        let (_, present) = RawDevice::resume(&hub, &connection, false).await;
        assert!(!present, "{}", connection.identity);
    }
}

/// A packet with this first byte; its length fits one byte.
fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    [&[first, u8::try_from(body.len()).unwrap()], body].concat()
}

fn text(text: &[u8]) -> Vec<u8> {
    [&u16::try_from(text.len()).unwrap().to_be_bytes(), text].concat()
}

fn publish(first: u8, topic: &[u8], rest: &[u8]) -> Vec<u8> {
    packet(first, &[&text(topic), rest].concat())
}

fn filters(first: u8, id: [u8; 2], filters: &[(&[u8], &[u8])]) -> Vec<u8> {
    let entries = filters
        .iter()
        .flat_map(|(filter, qos)| [text(filter), qos.to_vec()].concat());
    packet(first, &id.into_iter().chain(entries).collect::<Vec<_>>())
}

#[tokio::test]
async fn what_is_not_mqtt_ends_the_session() {
    let hub = TestHub::start().await;
    let connection = hub.create("d").await;
    hub.create("other").await;
    hub.create("d/m").await;
    let own = b"devices/d/messages/events/";
    let twin = twin::RESPONSE_FILTER.as_bytes();
    let subscribe = |id, entries: &[(&[u8], &[u8])]| filters(0x82, id, entries);
    for (what, bytes) in [
        ("DUP with QoS 0", publish(0x38, own, b"x")),
        ("QoS 3", publish(0x36, own, &[0, 1])),
        ("QoS 2", publish(0x34, own, &[0, 1])),
        ("a packet id of zero", publish(0x32, own, &[0, 0])),
        ("no packet id", publish(0x32, own, &[])),
        ("no topic", publish(0x30, b"", b"x")),
        (
            "# in a topic",
            publish(0x30, b"devices/d/messages/events/#", b""),
        ),
        (
            "+ in a topic",
            publish(0x30, b"devices/d/messages/events/a=+", b""),
        ),
        (
            "U+0000 in a topic",
            publish(0x30, b"devices/d/messages/events/\0", b""),
        ),
        (
            "a topic that is no UTF-8",
            publish(0x30, b"devices/d/messages/events/\xff", b""),
        ),
        (
            "a surrogate in a topic",
            publish(0x30, b"devices/d/messages/events/\xed\xa0\x80", b""),
        ),
        (
            "another device's topic",
            publish(0x30, b"devices/other/messages/events/", b""),
        ),
        (
            "its module's topic",
            publish(0x30, b"devices/d/modules/m/messages/events/", b""),
        ),
        (
            "a name that begins alike",
            publish(0x30, b"devices/d2/messages/events/", b""),
        ),
        ("any other topic", publish(0x32, b"hello", &[0, 1])),
        (
            "another $iothub topic",
            publish(0x30, b"$iothub/hello", b""),
        ),
        ("reserved bits of QoS", subscribe([0, 1], &[(twin, &[4])])),
        (
            "QoS 3 in SUBSCRIBE",
            subscribe([0, 1], &[(twin, &[0]), (twin, &[3])]),
        ),
        ("nothing to subscribe", subscribe([0, 1], &[])),
        ("SUBSCRIBE with id 0", subscribe([0, 0], &[(twin, &[0])])),
        (
            "SUBSCRIBE with other flags",
            filters(0x80, [0, 1], &[(twin, &[0])]),
        ),
        ("SUBSCRIBE without QoS", subscribe([0, 1], &[(twin, &[])])),
        ("an empty filter", subscribe([0, 1], &[(b"", &[0])])),
        ("a filter with U+0000", subscribe([0, 1], &[(b"a\0", &[0])])),
        (
            "a filter that is no UTF-8",
            subscribe([0, 1], &[(b"\xff", &[0])]),
        ),
        ("a#", subscribe([0, 1], &[(b"a#", &[0])])),
        ("a/#/b", subscribe([0, 1], &[(b"a/#/b", &[0])])),
        ("a/b+/c", subscribe([0, 1], &[(b"a/b+/c", &[0])])),
        (
            "UNSUBSCRIBE of a bad filter",
            filters(0xa2, [0, 1], &[(b"a/#/b", b"")]),
        ),
        ("nothing to unsubscribe", filters(0xa2, [0, 1], &[])),
        (
            "UNSUBSCRIBE with id 0",
            filters(0xa2, [0, 0], &[(twin, b"")]),
        ),
        ("PUBACK with id 0", vec![0x40, 2, 0, 0]),
        ("PUBACK with flags", vec![0x42, 2, 0, 1]),
        ("PINGREQ with flags", vec![0xc1, 0]),
        ("PINGREQ with a body", vec![0xc0, 1, 0]),
        ("DISCONNECT with flags", vec![0xe1, 0]),
        ("a reserved packet type", vec![0x00, 0]),
        ("AUTH of MQTT 5", vec![0xf0, 0]),
        (
            "a length of five bytes",
            vec![0x30, 0xff, 0xff, 0xff, 0xff, 0x01],
        ),
        ("a second CONNECT", hello(&connection, 0xc2, None)),
        ("a hub's packet", vec![0xd0, 0]),
    ] {
        let (mut device, _) = RawDevice::resume(&hub, &connection, true).await;
        device.send(&bytes).await;
        // Then a packet that the hub would answer if it had not ended the session.
        let _ = device.try_send(&[0xc0, 0]).await;
        assert!(!device.answers_ping().await, "{what}");
    }
}

#[tokio::test]
async fn what_official_clients_send_passes() {
    let hub = TestHub::start().await;
    for id in ["d", "d/m"] {
        let connection = hub.create(id).await;
        let own = connection.identity.resource_path();
        let (mut device, _) = RawDevice::resume(&hub, &connection, true).await;
        for topic in [
            format!("{own}/messages/events/"),
            format!("{own}/messages/events/%24.ct=application%2Fjson&a%20b=c%2Bd"),
            format!("{own}/messages/events"),
            "$iothub/methods/res/200/?$rid=1".to_owned(),
            "$iothub/twin/PATCH/properties/reported/?$rid=1".to_owned(),
            "$iothub/streams/res/200/?$rid=1".to_owned(),
            TWIN_GET.to_owned(),
        ] {
            device.send(&publish(0x30, topic.as_bytes(), b"{}")).await;
            device.send(&[0xc0, 0]).await;
            assert!(device.answers_ping().await, "{topic}");
        }
        // A duplicate with QoS 1, and a retained message.
        let topic = format!("{own}/messages/events/");
        for first in [0x3a, 0x31] {
            let rest: &[u8] = if first == 0x3a { &[0, 5] } else { &[] };
            device.send(&publish(first, topic.as_bytes(), rest)).await;
        }
        device.send(&[0xc0, 0]).await;
        assert!(device.answers_ping().await, "{topic}");
        let others = [
            filters(0x82, [0, 1], &[(b"+/x", &[0]), (b"#", &[2])]),
            filters(0xa2, [0, 1], &[(b"#", b"")]),
        ];
        for bytes in others {
            device.send(&bytes).await;
            device.send(&[0xc0, 0]).await;
            assert!(device.answers_ping().await);
        }
    }
}

/// CONNECT with these flags, and another client id or more fields before the user name.
fn hello(
    connection: &common::connection_string::DeviceConnectionString,
    flags: u8,
    other: Option<(&[u8], &[u8])>,
) -> Vec<u8> {
    let id = connection.identity.to_string();
    let (client_id, will) = other.unwrap_or((id.as_bytes(), b""));
    let mut body = [&text(b"MQTT")[..], &[4, flags, 0, 60]].concat();
    body.extend(text(client_id));
    body.extend_from_slice(will);
    if flags & 0x80 != 0 {
        body.extend(text(
            format!("localhost/{id}/?api-version=2020-09-30").as_bytes(),
        ));
    }
    if flags & 0x40 != 0 {
        body.extend(text(password(connection, unix_now() + 3600).as_bytes()));
    }
    let length = [(body.len() % 128) as u8 | 0x80, (body.len() / 128) as u8];
    [&[0x10], &length[..], &body].concat()
}

#[tokio::test]
async fn connects_have_rules() {
    let hub = TestHub::start().await;
    let connection = hub.create("d").await;
    let will = |topic: &[u8]| [text(topic), text(b"bye")].concat();
    let good = will(b"devices/d/messages/events/");
    let with = |flags, will: &[u8]| hello(&connection, flags, Some((b"d", will)));
    for (what, bytes, verdict) in [
        (
            "as every SDK",
            with(0xc2, b""),
            Some(ConnectReturnCode::Accepted),
        ),
        (
            "a will",
            with(0xee, &good),
            Some(ConnectReturnCode::Accepted),
        ),
        ("the reserved flag", with(0xc3, b""), None),
        ("a will's QoS without a will", with(0xca, b""), None),
        ("a will to retain without a will", with(0xe2, b""), None),
        ("a will of QoS 3", with(0xde, &good), None),
        ("a will to nowhere", with(0xc6, &will(b"")), None),
        ("a will to #", with(0xc6, &will(b"a/#")), None),
        ("a will to U+0000", with(0xc6, &will(b"a\0")), None),
        ("a password without a name", with(0x42, b""), None),
        (
            "no client id, and no clean session",
            hello(&connection, 0xc0, Some((b"", b""))),
            Some(ConnectReturnCode::IdentifierRejected),
        ),
        (
            "U+0000 in a client id",
            hello(&connection, 0xc2, Some((b"d\0", b""))),
            None,
        ),
        (
            "a client id that is no UTF-8",
            hello(&connection, 0xc2, Some((b"\xff", b""))),
            None,
        ),
        ("another packet", vec![0xc0, 0], None),
        (
            "something behind it",
            {
                let mut bytes = with(0xc2, b"");
                bytes[1] += 1;
                bytes.push(0);
                bytes
            },
            None,
        ),
    ] {
        let mut device = RawDevice::open(&hub).await;
        device.send(&bytes).await;
        assert_eq!(device.verdict().await, verdict, "{what}");
    }
}
