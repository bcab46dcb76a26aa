use common::admin::Metrics;
use common::identity::{DeviceId, DeviceIdentity, StreamId};

use super::*;
use crate::events::Stream;

#[derive(Debug, thiserror::Error)]
#[error("it broke")]
struct Broke;

/// As many kinds of events as a fleet of this size makes.
fn count(counts: &Counts, fleet: usize) {
    for number in 0..fleet {
        let device = DeviceId::parse(&format!("device-{number}")).unwrap();
        let device = DeviceIdentity::of_device(device);
        let port = u16::try_from(number).unwrap();
        let peer = std::net::SocketAddr::from(([10, 0, 0, 1], port));
        let (id, name) = (StreamId::random(), format!("target-{number}"));
        let policy = format!("operator-{number}");
        let stream = Stream {
            id: &id,
            device: &device,
            name: &name,
            policy: &policy,
            person: None,
            peer: &peer,
        };
        for event in [
            Event::DeviceConnected {
                device: &device,
                peer,
                transport: "mqtt",
            },
            Event::Stream(stream, Outcome::Accepted),
            Event::Stream(
                stream,
                Outcome::Established {
                    opening: Duration::from_millis(3),
                },
            ),
            Event::Stream(
                stream,
                Outcome::Closed {
                    ended_by: "device",
                    to_device: 1,
                    to_service: 2,
                    duration: Duration::from_secs(1),
                    end: &Broke,
                    kind: "closed",
                },
            ),
            Event::DeviceRefused {
                peer,
                transport: "mqtt",
                reason: &Broke,
                kind: "wrong_key",
            },
            Event::DeviceDisconnected {
                device: &device,
                peer,
                telemetry: 2,
                end: &Broke,
                kind: "lost",
            },
        ] {
            counts.count(&event);
        }
        counts.request("twins", http::StatusCode::OK, Duration::ZERO);
    }
}

fn series(text: &str) -> Vec<&str> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| Some(line.rsplit_once(' ')?.0))
        .collect()
}

#[test]
fn no_series_is_added_by_a_larger_fleet() {
    let counts = Counts::default();
    let metrics = Metrics::new("stream_hub", "1", |registry| counts.register(registry));
    count(&counts, 1);
    let before = metrics.text();
    count(&counts, 500);
    let after = metrics.text();
    assert_eq!(series(&before), series(&after));
    for line in [
        "stream_hub_stream_requests_total{outcome=\"accepted\"} 501",
        "stream_hub_streams_established_total 501",
        "stream_hub_streams_ended_total{end=\"closed\"} 501",
        "stream_hub_stream_opening_seconds_count 501",
        "stream_hub_auth_refused_total{who=\"device\",reason=\"wrong_key\"} 501",
        "stream_hub_telemetry_messages_total 1002",
        "stream_hub_http_requests_total{route=\"twins\",code=\"2xx\"} 501",
    ] {
        assert!(after.lines().any(|found| found == line), "{line}: {after}");
    }
}

#[test]
fn what_is_there_is_counted_down_again() {
    let counts = Counts::default();
    let metrics = Metrics::new("stream_hub", "1", |registry| counts.register(registry));
    let line = "\nstream_hub_device_sessions{transport=\"mqtt-ws\"} ";
    let first = counts.device_session("mqtt-ws");
    let second = counts.device_session("mqtt-ws");
    assert!(metrics.text().contains(&format!("{line}2\n")));
    drop(first);
    assert!(metrics.text().contains(&format!("{line}1\n")));
    drop(second);
    assert!(metrics.text().contains(&format!("{line}0\n")));
}
