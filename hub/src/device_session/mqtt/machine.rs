//! The hub's side of an MQTT session after CONNECT: packets in, effects out. No I/O
//! and no clock.

use common::identity::{DeviceIdentity, RequestId};
use common::mqtt::{Packet, Qos, SubackReturnCode, packet};
use common::wire::stream::StreamAnswer;
use common::wire::topics::{self, DeviceFilter, DevicePublish};
use common::wire::twin::TwinRequest;

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

/// What is to be done about a packet.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// Write these bytes.
    Send(Vec<u8>),
    /// These filters are granted, with their QoS; to be kept before what follows.
    Granted(Vec<(String, u8)>),
    /// These filters are given up; to be forgotten before what follows.
    GivenUp(Vec<String>),
    /// A telemetry message, which goes nowhere yet.
    Telemetry,
    /// The device takes stream requests, or no longer.
    StreamRequests(bool),
    /// The device has answered a stream request.
    Answer(StreamAnswer),
    /// The device takes answers to twin requests, or no longer.
    TwinResponses(bool),
    /// The device wants its twin.
    TwinGet(RequestId),
    /// The device reports properties.
    TwinPatch {
        /// Names the request in the answer.
        request_id: RequestId,
        /// The patch, not looked at yet; no larger than an MQTT packet.
        body: Vec<u8>,
    },
    /// The device has sent Close.
    Disconnect,
}

/// Judges one packet.
///
/// # Errors
/// [`Violation`]: the session must end.
pub fn receive(identity: &DeviceIdentity, packet: Packet) -> Result<Vec<Effect>, Violation> {
    let build = |bytes: Option<Vec<u8>>| bytes.map(Effect::Send).ok_or(Violation::Malformed);
    match packet {
        Packet::Publish(publish) => {
            let mut effects = Vec::with_capacity(2);
            check_topic(identity, publish.topic_name())?;
            if publish.dup() && publish.qos() == Qos::AtMostOnce {
                return Err(Violation::Malformed);
            }
            match publish.qos() {
                Qos::ExactlyOnce => return Err(Violation::Qos2),
                Qos::AtLeastOnce => {
                    let id = publish.packet_id().filter(|id| *id != 0);
                    let id = id.ok_or(Violation::Malformed)?;
                    effects.push(build(puback(id))?);
                }
                Qos::AtMostOnce => {}
            }
            // Telemetry is received and goes nowhere; the retain flag is ignored.
            match topics::device_publish(identity, publish.topic_name()) {
                DevicePublish::StreamAnswer(answer) => effects.push(Effect::Answer(answer)),
                // One SDK sends a blank with it.
                DevicePublish::Twin(TwinRequest::Get(id)) => effects.push(Effect::TwinGet(id)),
                DevicePublish::Twin(TwinRequest::PatchReported(request_id)) => {
                    let body = publish.payload().as_slice().to_vec();
                    effects.push(Effect::TwinPatch { request_id, body });
                }
                DevicePublish::Telemetry => effects.push(Effect::Telemetry),
                DevicePublish::Known => {}
                DevicePublish::Unknown => return Err(Violation::ForeignTopic),
            }
            Ok(effects)
        }
        Packet::Subscribe(subscribe) => {
            let mut codes = Vec::new();
            let mut wanted = Vec::new();
            for entry in subscribe.entries() {
                check_filter(identity, entry.topic_filter())?;
                let filter = topics::device_filter(identity, entry.topic_filter());
                wanted.push(filter);
                codes.push(match (filter, entry.sub_opts().qos()) {
                    (DeviceFilter::Unknown, _) => SubackReturnCode::Failure,
                    (_, Qos::AtMostOnce) => SubackReturnCode::SuccessMaximumQos0,
                    // QoS 2 is granted as 1.
                    _ => SubackReturnCode::SuccessMaximumQos1,
                });
            }
            let granted = wanted.iter().zip(subscribe.entries());
            let granted: Vec<_> = granted
                .filter(|(filter, _)| **filter != DeviceFilter::Unknown)
                .map(|(_, entry)| {
                    let filter = topics::canonical_filter(entry.topic_filter());
                    let qos = u8::from(entry.sub_opts().qos() != Qos::AtMostOnce);
                    (filter.to_owned(), qos)
                })
                .collect();
            let mut effects = vec![
                Effect::Granted(granted),
                build(suback(subscribe.packet_id(), codes))?,
            ];
            effects.extend(subscriptions(&wanted, true));
            Ok(effects)
        }
        Packet::Unsubscribe(unsubscribe) => {
            for filter in unsubscribe.entries() {
                check_filter(identity, filter.as_str())?;
            }
            let filters = unsubscribe.entries().iter();
            let dropped: Vec<_> = filters
                .map(|filter| topics::device_filter(identity, filter.as_str()))
                .collect();
            let given_up = unsubscribe.entries().iter();
            let given_up = given_up
                .map(|filter| topics::canonical_filter(filter.as_str()).to_owned())
                .collect();
            let mut effects = vec![
                Effect::GivenUp(given_up),
                build(unsuback(unsubscribe.packet_id()))?,
            ];
            effects.extend(subscriptions(&dropped, false));
            Ok(effects)
        }
        Packet::Pingreq => Ok(vec![build(pingresp())?]),
        Packet::Disconnect => Ok(vec![Effect::Disconnect]),
        // Receipts of messages that this hub never sends with QoS 1 mean nothing.
        Packet::Puback(_) => Ok(Vec::new()),
        Packet::Connect(_) => Err(Violation::SecondConnect),
        Packet::Connack(_) | Packet::Suback(_) | Packet::Unsuback(_) | Packet::Pingresp => {
            Err(Violation::HubPacket)
        }
    }
}

/// What follows the identity's own path. Ids stand raw in topics, and may contain `#` and
/// `+`, which mean nothing there.
fn without_own_path<'a>(identity: &DeviceIdentity, topic: &'a str) -> &'a str {
    topic
        .strip_prefix(&identity.resource_path())
        .filter(|rest| rest.starts_with('/'))
        .unwrap_or(topic)
}

/// MQTT 3.1.1, 3.3.2.1 and 4.7.3: a topic name has no wildcards, no U+0000, and a length.
fn check_topic(identity: &DeviceIdentity, topic: &str) -> Result<(), Violation> {
    let free = without_own_path(identity, topic);
    if topic.is_empty() || free.contains(['#', '+', '\0']) {
        return Err(Violation::BadTopic);
    }
    Ok(())
}

/// MQTT 3.1.1, 4.7.1 and 4.7.3: a wildcard is a level of its own, and `#` the last one.
fn check_filter(identity: &DeviceIdentity, filter: &str) -> Result<(), Violation> {
    let free = without_own_path(identity, filter);
    let mut levels = free.split('/').peekable();
    while let Some(level) = levels.next() {
        let is_alone = level.len() == 1;
        let is_last = levels.peek().is_none();
        if (level.contains('#') && !(is_alone && is_last)) || (level.contains('+') && !is_alone) {
            return Err(Violation::BadFilter);
        }
    }
    if filter.is_empty() || free.contains('\0') {
        return Err(Violation::BadFilter);
    }
    Ok(())
}

/// What it means to subscribe these filters, or to give them up.
fn subscriptions(filters: &[DeviceFilter], wanted: bool) -> impl Iterator<Item = Effect> {
    let has = |filter| filters.contains(&filter);
    let streams = has(DeviceFilter::StreamRequests).then_some(Effect::StreamRequests(wanted));
    let twins = has(DeviceFilter::TwinResponses).then_some(Effect::TwinResponses(wanted));
    [streams, twins].into_iter().flatten()
}

fn puback(id: u16) -> Option<Vec<u8>> {
    let packet = packet::Puback::builder().packet_id(id).build().ok()?;
    Some(packet.to_continuous_buffer())
}

fn suback(id: u16, codes: Vec<SubackReturnCode>) -> Option<Vec<u8>> {
    let builder = packet::Suback::builder().packet_id(id).return_codes(codes);
    Some(builder.build().ok()?.to_continuous_buffer())
}

fn unsuback(id: u16) -> Option<Vec<u8>> {
    let packet = packet::Unsuback::builder().packet_id(id).build().ok()?;
    Some(packet.to_continuous_buffer())
}

fn pingresp() -> Option<Vec<u8>> {
    let packet = packet::Pingresp::builder().build().ok()?;
    Some(packet.to_continuous_buffer())
}

#[cfg(test)]
mod tests {
    use common::identity::{DeviceId, RequestId};
    use common::mqtt::PacketIo;
    use proptest::prelude::*;

    use super::*;

    fn device() -> DeviceIdentity {
        DeviceIdentity::of_device(DeviceId::parse("dev1").unwrap())
    }

    fn hex(text: &str) -> Vec<u8> {
        text.split_whitespace()
            .map(|byte| u8::from_str_radix(byte, 16).unwrap())
            .collect()
    }

    /// Feeds raw bytes as a device would and returns all effects.
    async fn effects(bytes: &[u8]) -> Result<Vec<Effect>, Violation> {
        let (near, mut far) = tokio::io::duplex(1 << 16);
        tokio::io::AsyncWriteExt::write_all(&mut far, bytes)
            .await
            .unwrap();
        drop(far);
        let mut io = PacketIo::new(near, 1 << 16);
        let mut all = Vec::new();
        while let Some(packet) = io.read().await.map_err(|_| Violation::Malformed)? {
            all.extend(receive(&device(), packet)?);
            // Their own test looks at these.
            all.retain(|effect| !matches!(effect, Effect::Granted(_) | Effect::GivenUp(_)));
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
                Effect::StreamRequests(true)
            ]
        );
        let csharp = hex(
            "82 1b 00 01 00 16 24 69 6f 74 68 75 62 2f 73 74 72 65 61 6d 73 2f 50 4f 53 54 2f 23 00 82 1a 00 02 00 15 24 69 6f 74 68 75 62 2f 73 74 72 65 61 6d 73 2f 72 65 73 2f 23 00",
        );
        assert_eq!(
            effects(&csharp).await.unwrap(),
            [
                Effect::Send(hex("90 03 00 01 00")),
                Effect::StreamRequests(true),
                Effect::Send(hex("90 03 00 02 00")),
            ]
        );
        let accept = hex(
            "30 21 00 1f 24 69 6f 74 68 75 62 2f 73 74 72 65 61 6d 73 2f 72 65 73 2f 32 30 30 2f 3f 24 72 69 64 3d 31",
        );
        let answer = |accepted| {
            Effect::Answer(StreamAnswer {
                request_id: RequestId::from(1),
                accepted,
            })
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
            [Effect::Send(hex("40 02 00 05")), Effect::Telemetry]
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
        let subscribe = Packet::Subscribe(subscribe.build().unwrap());
        assert_eq!(
            receive(&device(), subscribe).unwrap()[0],
            Effect::Granted(vec![
                ("$iothub/twin/res/#".to_owned(), 1),
                ("devices/dev1/messages/devicebound/#".to_owned(), 0),
            ])
        );
    }

    #[test]
    fn an_id_with_wildcards_means_itself_in_its_own_topics() {
        let id = DeviceIdentity::of_device(DeviceId::parse("a+b#c").unwrap());
        assert_eq!(check_topic(&id, "devices/a+b#c/messages/events/"), Ok(()));
        assert_eq!(
            check_topic(&id, "devices/a+b#cd/messages/events/"),
            Err(Violation::BadTopic)
        );
        assert_eq!(
            check_topic(&id, "devices/a+b#c/messages/events/x=+"),
            Err(Violation::BadTopic)
        );
        let own = "devices/a+b#c/messages/devicebound/#";
        assert_eq!(check_filter(&id, own), Ok(()));
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
        assert_eq!(
            sent,
            [
                Effect::Send(hex("90 04 00 09 80 01")),
                Effect::TwinResponses(true)
            ]
        );
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
        assert_eq!(
            seen(b"$iothub/twin/GET/?$rid=65535", b" ").await.unwrap(),
            [Effect::TwinGet(id("65535"))]
        );
        let topic = b"$iothub/twin/PATCH/properties/reported/?$rid=a-b";
        assert_eq!(
            seen(topic, b"{}").await.unwrap(),
            [Effect::TwinPatch {
                request_id: id("a-b"),
                body: b"{}".to_vec()
            }]
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
        let unsubscribe =
            hex("a2 16 00 03 00 12 24 69 6f 74 68 75 62 2f 74 77 69 6e 2f 72 65 73 2f 23");
        assert_eq!(
            effects(&unsubscribe).await.unwrap(),
            [
                Effect::Send(hex("b0 02 00 03")),
                Effect::TwinResponses(false)
            ]
        );
    }

    #[tokio::test]
    async fn pings_goodbyes_and_nonsense() {
        assert_eq!(
            effects(&hex("c0 00 e0 00")).await.unwrap(),
            [Effect::Send(hex("d0 00")), Effect::Disconnect]
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
}
