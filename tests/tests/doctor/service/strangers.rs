//! Devices that are no device-proxy, played by hand.

use common::clock::unix_now;
use common::doctor::Report;
use common::identity::RequestId;
use common::mqtt::{self, Packet};
use common::wire::method::{self, MethodRequest, MethodResponse};
use common::wire::stream::StreamRequest;
use serde_json::{Value, json};
use tests::target::Behaviour;
use tests::{RawDevice, TestHub, wait};

use crate::{Case, all_are_named, case, service_at};

/// What a device by hand does.
#[derive(Clone, Copy)]
struct ByHand {
    /// What it answers to the method; none: it takes no methods.
    view: Option<fn() -> Value>,
    /// What becomes of a stream: rejected, or accepted and silent, or accepted and closed.
    stream: Behaviour,
    is_accepted: bool,
    answers_method: bool,
}

const REJECTS: ByHand = ByHand {
    view: None,
    stream: Behaviour::Silent,
    is_accepted: false,
    answers_method: true,
};

async fn by_hand(what: ByHand, arguments: &[&str]) -> Report {
    let hub = TestHub::start().await;
    let connection = hub.create("d").await;
    let mut device = RawDevice::connect(&hub, &connection).await;
    if what.view.is_some() {
        device.subscribe_to(method::FILTER).await;
    }
    wait("its session", || {
        hub.state.presence.is_subscribed(&connection.identity)
    })
    .await;
    let serving = async {
        let mut legs = Vec::new();
        loop {
            let Packet::Publish(message) = device.packet_without_limit().await else {
                continue;
            };
            if let Some(call) = MethodRequest::from_topic(message.topic_name()) {
                if what.answers_method {
                    let view = what.view.map_or(Value::Null, |view| view());
                    answer(&mut device, &call.request_id, &view).await;
                }
            } else if let Ok(request) = StreamRequest::from_topic(message.topic_name()) {
                device.answer(&request, what.is_accepted).await;
                if what.is_accepted {
                    let leg = device.leg(&request).await;
                    if what.stream == Behaviour::Silent {
                        legs.push(leg);
                    } else {
                        tokio::spawn(break_at_a_word(leg));
                    }
                }
            }
        }
    };
    let arguments = [&["d"], arguments].concat();
    tokio::select! {
        report = service_at(&hub, &arguments) => report,
        () = serving => unreachable!(),
    }
}

/// Ends a leg as soon as something comes.
async fn break_at_a_word(mut leg: tests::raw_device::DeviceLeg) {
    let _ = std::future::poll_fn(|cx| leg.poll_incoming(cx)).await;
}

async fn answer(device: &mut RawDevice, id: &RequestId, view: &Value) {
    let response = MethodResponse {
        request_id: id.clone(),
        status: 200,
    };
    let packet = mqtt::publish_with(&response.to_topic(), view.to_string().as_bytes());
    device.send(&packet.unwrap()).await;
}

fn view(seconds: i64) -> Value {
    json!({
        "status": { "version": "0", "targets": ["echo"] },
        "unixTime": unix_now().checked_add_signed(seconds).unwrap(),
        "targets": [{ "name": "echo", "outcome": "ok", "detail": "built in" }],
    })
}

fn strangers() -> Vec<Case> {
    vec![
        case(
            "another program, without sessions",
            "session",
            "another program",
            by_hand(REJECTS, &[]),
        ),
        case(
            "another program, where sessions are wanted",
            "session",
            "--session always allows nothing else",
            by_hand(REJECTS, &["--session", "always"]),
        ),
        case(
            "a device that rejects a target",
            "stream",
            "rejects a stream to ssh",
            by_hand(REJECTS, &["--target", "ssh"]),
        ),
        case(
            "a device whose clock is wrong",
            "device-clock",
            "s behind the device's",
            by_hand(
                ByHand {
                    view: Some(|| view(7200)),
                    ..REJECTS
                },
                &[],
            ),
        ),
        case(
            "a stream that stalls",
            "round-trip",
            "the stream stalls",
            by_hand(
                ByHand {
                    view: Some(|| view(0)),
                    is_accepted: true,
                    ..REJECTS
                },
                &[],
            ),
        ),
        case(
            "a stream that breaks",
            "round-trip",
            "0 of 5 messages came back",
            by_hand(
                ByHand {
                    view: Some(|| view(0)),
                    is_accepted: true,
                    stream: Behaviour::CloseAtOnce,
                    ..REJECTS
                },
                &[],
            ),
        ),
        case(
            "a device that answers no method",
            "view",
            "did not answer",
            by_hand(
                ByHand {
                    view: Some(|| view(0)),
                    answers_method: false,
                    ..REJECTS
                },
                &[],
            ),
        ),
    ]
}

#[tokio::test]
async fn strange_devices_are_named() {
    all_are_named(strangers(), 7).await;
}
