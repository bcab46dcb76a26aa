//! Tokens and topics: text that each request and each MQTT packet has.

use std::hint::black_box;

use common::clock::unix_now;
use common::hub_address::HubAddress;
use common::identity::{DeviceId, DeviceIdentity, Leg, RequestId, StreamId};
use common::sas_token::{SasToken, mint};
use common::secret::{Secret, SharedKey};
use common::wire::stream::{StreamAnswer, StreamRequest};
use common::wire::topics::{device_filter, device_publish, identity_from_user_name};
use criterion::{BenchmarkId, Criterion};
use hub::auth::StreamTokens;

pub(crate) fn tokens(c: &mut Criterion) {
    let mut group = c.benchmark_group("token");
    let hub = HubAddress::parse("myhub.example.net").unwrap();
    let key = SharedKey::random();
    let path = "devices/boiler-17";
    let expiry = unix_now() + 3600;
    let token = mint(&format!("myhub.example.net/{path}"), &key, None, expiry);
    let is_good = |text: &str| {
        let token = SasToken::parse(text).unwrap();
        token.expiry() > 0 && token.covers(&hub, path) && token.is_signed_by(&key)
    };
    assert!(is_good(token.expose()));
    group.bench_function("sas_verify", |b| {
        b.iter(|| is_good(black_box(token.expose())));
    });

    let tokens = StreamTokens::new("myhub");
    let (stream, leg) = (StreamId::random(), Leg::Device);
    let token = tokens.mint(stream, leg, expiry).unwrap();
    let header = format!("Bearer {}", token.expose());
    assert!(tokens.check(Some(&header), stream, leg).is_ok());
    group.bench_function("stream_verify", |b| {
        b.iter(|| tokens.check(black_box(Some(&header)), stream, leg));
    });
}

pub(crate) fn topics(c: &mut Criterion) {
    let mut group = c.benchmark_group("topic");
    let device = DeviceIdentity::of_device(DeviceId::parse("boiler-17").unwrap());
    let request_id = RequestId::parse("1f").unwrap();
    let request = StreamRequest {
        request_id: request_id.clone(),
        name: "ssh".to_owned(),
        url: "wss://myhub.example.net:443/bridges/0123456789abcdef".to_owned(),
        token: Secret::new("t".repeat(300)),
        initiator: None,
    };
    let request_topic = request.to_topic();
    assert_eq!(
        StreamRequest::from_topic(&request_topic),
        Ok(request.clone())
    );
    group.bench_function("stream_request", |b| {
        b.iter(|| StreamRequest::from_topic(black_box(&request_topic)));
    });
    let answer = StreamAnswer {
        request_id,
        accepted: true,
    };
    for (name, topic) in [
        ("stream_answer", answer.to_topic()),
        ("twin_get", "$iothub/twin/GET/?$rid=1f".to_owned()),
        ("telemetry", "devices/boiler-17/messages/events/".to_owned()),
    ] {
        group.bench_function(BenchmarkId::new("publish", name), |b| {
            b.iter(|| device_publish(black_box(&device), black_box(&topic)));
        });
    }
    for (name, filter) in [
        ("stream_requests", "$iothub/streams/POST/#"),
        ("devicebound", "devices/boiler-17/messages/devicebound/#"),
    ] {
        group.bench_function(BenchmarkId::new("filter", name), |b| {
            b.iter(|| device_filter(black_box(&device), black_box(filter)));
        });
    }
    let user_name = "myhub.example.net/boiler-17/?api-version=2020-09-30&DeviceClientType=x";
    group.bench_function("user_name", |b| {
        b.iter(|| identity_from_user_name(black_box(user_name)));
    });
}
