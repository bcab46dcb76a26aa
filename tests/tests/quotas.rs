//! What each policy and device may have: who is over it is refused with the limit's name and the time
//! after which it may come again, is slowed, or is ended; and nobody else notices.

use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::clock::unix_now;
use common::identity::StreamName;
use common::mqtt::ConnectReturnCode;
use common::websocket::{CloseFrame, Incoming};
use hub::limits::{Limit, Limits, Share};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use service_proxy::config::Config;
use service_proxy::sample_output::SampleOutput;
use service_proxy::stream::StreamOpener;
use tests::raw_device::password;
use tests::raw_service::{Leg, accepted, refusal};
use tests::{RawDevice, RawService, TestDevice, TestHub, logs, messages, service, soon};

/// Limits of each device.
fn of_devices(share: Share) -> Limits {
    Limits {
        each_device: share,
        ..Limits::default()
    }
}

/// Limits of each policy.
fn of_policies(share: Share) -> Limits {
    Limits {
        each_policy: share,
        ..Limits::default()
    }
}

/// Seconds of `Retry-After`.
fn retry_after(response: &Response) -> u64 {
    let text = response.headers()["retry-after"].to_str().unwrap();
    text.parse().unwrap()
}

/// Asks until it is refused with 429; how often it was not.
async fn until_throttled<F: Future<Output = Response>>(ask: impl Fn() -> F) -> (usize, Response) {
    for count in 0..200 {
        let response = ask().await;
        if response.status() == 429 {
            return (count, response);
        }
    }
    panic!("never throttled");
}

async fn says(response: Response, code: u32, text: &str) {
    assert!((1..=86_400).contains(&retry_after(&response)));
    let status = response.status();
    let body: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
    let message = body["Message"].as_str().unwrap();
    assert!(message.contains(text), "{message}");
    assert_eq!(u32::from(status.as_u16()), code / 1_000, "{message}");
}

async fn join(service: &RawService, id: &str) -> Leg {
    let response = service.initiate(id, "echo", 5.0, 5.0).await;
    let (url, token) = accepted(&response);
    service.leg(&url, &token).await
}

async fn echo(leg: &mut Leg, bytes: usize) -> Result<(), CloseFrame> {
    messages::send(leg, Bytes::from(vec![b'x'; bytes])).await;
    let mut back = 0;
    while back < bytes {
        match soon("the echo", poll_fn(|cx| leg.poll_incoming(cx))).await {
            Ok(Incoming::Data(data)) => back += data.len(),
            Ok(Incoming::Closed(close)) => return Err(close),
            Err(error) => panic!("{error}"),
        }
    }
    Ok(())
}

#[tokio::test]
async fn initiations_of_a_device_have_a_rate_and_service_proxy_waits_for_it() {
    logs::keep();
    let hub = TestHub::start_with(of_devices(Share::NONE.with(Limit::Initiations, 1))).await;
    let (busy, other) = (hub.create("busy").await, hub.create("quiet").await);
    let _busy = TestDevice::start(&hub, &busy, &["--echo"]).await;
    let _other = TestDevice::start(&hub, &other, &["--echo"]).await;
    let raw = RawService::new(&hub).await;
    let (count, refused) = until_throttled(|| raw.initiate("busy", "echo", 5.0, 5.0)).await;
    assert!(count >= 10, "ten may come at once");
    says(
        refused,
        429_001,
        "the device's limit initiations-per-second is reached",
    )
    .await;
    logs::line(&[
        "limit reached",
        "busy",
        "limit=initiations-per-second",
        "whose=device",
    ])
    .await;
    assert_eq!(raw.initiate("quiet", "echo", 5.0, 5.0).await.status(), 200);

    let policy = hub.policy("service").await;
    let Config::Echo(config) = service::config(&hub, &policy, &["echo", "busy"]) else {
        panic!("not echo");
    };
    let opener = StreamOpener::new(&config.hub, SampleOutput::Off).unwrap();
    let name = StreamName::parse("echo").unwrap();
    // Sooner or later one comes before its time, and waits; none fails.
    let told = || !logs::lines(&["stream to busy", "the hub throttles (429"]).is_empty();
    while !told() {
        opener.open(&busy.identity, &name).await.unwrap();
    }
    let line = logs::line(&["the hub throttles (429", "trying again in"]).await;
    assert!(line.contains("initiations-per-second"), "{line}");
}

#[tokio::test]
async fn each_kind_of_request_of_a_policy_has_its_own_rate() {
    let few = Share::NONE
        .with(Limit::Methods, 1)
        .with(Limit::TwinWrites, 1)
        .with(Limit::Requests, 1);
    let hub = TestHub::start_with(of_policies(few)).await;
    hub.create("d").await;
    let owner = RawService::with_policy(&hub, "iothubowner").await;
    let other = RawService::new(&hub).await;
    let method = r#"{"methodName":"m","connectTimeoutInSeconds":0,"responseTimeoutInSeconds":5}"#;
    let change = r#"{"tags":{"a":1}}"#;
    for (verb, path, body, name) in [
        (
            Method::POST,
            "/twins/d/methods",
            method,
            "methods-per-second",
        ),
        (Method::PATCH, "/twins/d", change, "twin-writes-per-second"),
        (Method::GET, "/twins/d", "", "requests-per-second"),
    ] {
        let ask = |service: &RawService| {
            let path = format!("{path}?api-version=2020-09-30");
            let call = service.call(verb.clone(), &path).body(body);
            let call = call.header("content-type", "application/json").send();
            async move { call.await.unwrap() }
        };
        let (count, refused) = until_throttled(|| ask(&owner)).await;
        assert!(count >= 10, "{name}: {count}");
        says(
            refused,
            429_001,
            &format!("the policy's limit {name} is reached"),
        )
        .await;
        assert_ne!(ask(&other).await.status(), 429, "{name}");
    }
}

/// The job of this number: tags for all devices.
fn job(number: usize) -> Value {
    json!({
        "jobId": format!("j{number}"),
        "type": "scheduleUpdateTwin",
        "updateTwin": { "tags": { "job": number }, "etag": "*" },
        "queryCondition": "*",
    })
}

#[tokio::test]
async fn jobs_that_are_made_too_fast_are_refused() {
    let hub = TestHub::start_with(of_policies(Share::NONE.with(Limit::Requests, 1))).await;
    let owner = RawService::with_policy(&hub, "iothubowner").await;
    let numbers = AtomicUsize::new(0);
    let make = async || {
        let number = numbers.fetch_add(1, Relaxed);
        let path = format!("/jobs/v2/j{number}?api-version=2021-04-12");
        let call = owner.call(Method::PUT, &path).body(job(number).to_string());
        call.send().await.unwrap()
    };
    let (count, refused) = until_throttled(&make).await;
    assert!(count >= 10, "ten may come at once");
    says(
        refused,
        429_001,
        "the policy's limit requests-per-second is reached",
    )
    .await;
    let metrics = hub.metrics().await;
    let line = "stream_hub_limit_hits_total{limit=\"requests-per-second\"} 1";
    assert!(metrics.lines().any(|found| found == line), "{metrics}");
    // It was not made, and another policy may make it.
    let other = RawService::new(&hub).await;
    let path = format!("j{count}");
    let body = job(count);
    assert_eq!(other.make_job(&path, &body).await.unwrap()["jobId"], path);
}

#[tokio::test]
async fn a_job_waits_for_the_rate_at_which_its_policy_may_work_on_devices() {
    logs::keep();
    let hub = TestHub::start_with(of_policies(Share::NONE.with(Limit::JobDevices, 2))).await;
    for number in 0..26 {
        hub.create(&format!("paced{number}")).await;
    }
    let owner = RawService::with_policy(&hub, "iothubowner").await;
    let started = Instant::now();
    owner.make_job("j1", &job(1)).await.unwrap();
    let ended = owner.ended_job("j1").await;
    assert_eq!(ended["status"], "completed", "{ended}");
    assert_eq!(ended["deviceJobStatistics"]["succeededCount"], 26);
    // Twenty at once, and two a second after that.
    let took = started.elapsed();
    assert!(took >= Duration::from_secs(2), "{took:?}");
    logs::line(&[
        "limit reached",
        "policy=iothubowner",
        "limit=job-devices-per-second",
        "whose=policy",
    ])
    .await;
}

#[tokio::test]
async fn streams_at_once_have_a_number_for_each_device_and_policy() {
    for (limits, text) in [
        (
            of_devices(Share::NONE.with(Limit::Streams, 1)),
            "the device's limit streams",
        ),
        (
            of_policies(Share::NONE.with(Limit::Streams, 1)),
            "the policy's limit streams",
        ),
    ] {
        let hub = TestHub::start_with(limits).await;
        let connection = hub.create("d").await;
        let _device = TestDevice::start(&hub, &connection, &["--echo"]).await;
        let service = RawService::new(&hub).await;
        let mut leg = join(&service, "d").await;
        echo(&mut leg, 10).await.unwrap();
        let refused = service.initiate("d", "echo", 5.0, 5.0).await;
        says(refused, 429_001, text).await;
        drop(leg);
        tests::wait("its end", || hub.state.legs.count() == 0).await;
        echo(&mut join(&service, "d").await, 10).await.unwrap();
    }
}

#[tokio::test]
async fn a_device_has_its_bytes_of_a_day_and_a_restart_does_not_give_more() {
    logs::keep();
    let limits = Limits {
        devices: vec![(
            "metered".into(),
            Share::NONE.with(Limit::BytesPerDay, 300_000),
        )],
        ..Limits::default()
    };
    let hub = TestHub::start_with(limits.clone()).await;
    let connections = [hub.create("metered").await, hub.create("free").await];
    let start = async |hub: &TestHub| {
        let connections = connections.each_ref().map(|connection| {
            let mut connection = connection.clone();
            connection.host = hub.state.address.clone();
            connection
        });
        let first = TestDevice::start(hub, &connections[0], &["--echo"]).await;
        (
            first,
            TestDevice::start(hub, &connections[1], &["--echo"]).await,
        )
    };
    let devices = start(&hub).await;
    let service = RawService::new(&hub).await;
    let mut free = join(&service, "free").await;
    let mut leg = join(&service, "metered").await;
    let mut echoed = 0;
    let close = loop {
        match echo(&mut leg, 10_000).await {
            Ok(()) => echoed += 10_000,
            Err(close) => break close,
        }
        assert!(echoed < 300_000, "both ways are more than its day");
    };
    assert_eq!(close.code, CloseFrame::POLICY);
    assert_eq!(close.reason, "limit bytes-per-day of the device");
    let refused = service.initiate("metered", "echo", 5.0, 5.0).await;
    says(
        refused,
        403_002,
        "the device's limit bytes-per-day is reached",
    )
    .await;
    logs::line(&["limit reached", "metered", "limit=bytes-per-day"]).await;
    echo(&mut free, 10_000).await.unwrap();
    drop(free);
    drop(devices);

    let hub = hub.restart_with(limits).await;
    let _devices = start(&hub).await;
    let service = RawService::new(&hub).await;
    soon("what was stored", async {
        loop {
            let asked = service.initiate("metered", "echo", 5.0, 5.0).await;
            if asked.status() == 403 {
                assert_eq!(refusal(asked).await, (403, 403_002));
                return;
            }
        }
    })
    .await;
    echo(&mut join(&service, "free").await, 400_000)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_stream_over_its_rate_is_slowed_and_loses_nothing() {
    let rate = 100_000;
    let limits = Limits {
        devices: vec![("slow".into(), Share::NONE.with(Limit::BytesPerSecond, rate))],
        ..Limits::default()
    };
    let hub = TestHub::start_with(limits).await;
    let (slow, fast) = (hub.create("slow").await, hub.create("fast").await);
    let _slow = TestDevice::start(&hub, &slow, &["--echo"]).await;
    let _fast = TestDevice::start(&hub, &fast, &["--echo"]).await;
    let service = RawService::new(&hub).await;
    let mut leg = join(&service, "slow").await;
    let started = Instant::now();
    for _ in 0..20 {
        echo(&mut leg, 10_000).await.unwrap();
    }
    // Four seconds' worth both ways, of which one may come at once; what is small goes at once too.
    let took = started.elapsed();
    assert!(took >= Duration::from_secs(2), "{took:?}");
    let mut leg = join(&service, "fast").await;
    for _ in 0..100 {
        echo(&mut leg, 60_000).await.unwrap();
    }
}

#[tokio::test]
async fn a_device_that_connects_too_often_waits_and_only_its_newest_connection_does() {
    logs::keep();
    let hub = TestHub::start_with(of_devices(Share::NONE.with(Limit::Connects, 10))).await;
    let (storm, other) = (hub.create("storm").await, hub.create("calm").await);
    let hello = async |connection| {
        let mut device = RawDevice::open(&hub).await;
        let password = password(connection, unix_now() + 3600);
        let verdict = device.hello(connection, &password).await;
        (device, verdict)
    };
    let is_waiting = || !logs::lines(&["limit reached", "storm", "connects-per-minute"]).is_empty();
    let mut last = None;
    while !is_waiting() {
        let (device, verdict) = hello(&storm).await;
        assert_eq!(verdict, ConnectReturnCode::Accepted);
        last = Some(device);
    }
    drop(last);
    // Its turn comes every six seconds; of two that wait for one, the newer gets it.
    let before = logs::lines(&["limit reached", "storm"]).len();
    let (older, newer) = tokio::join!(hello(&storm), async {
        tests::wait("the older one's waiting", || {
            logs::lines(&["limit reached", "storm"]).len() > before
        })
        .await;
        assert_eq!(hello(&other).await.1, ConnectReturnCode::Accepted);
        hello(&storm).await
    });
    assert_eq!(older.1, ConnectReturnCode::ServerUnavailable);
    assert_eq!(newer.1, ConnectReturnCode::Accepted);
}

#[tokio::test]
async fn a_device_that_asks_too_much_of_its_twin_is_answered_so() {
    let hub = TestHub::start_with(of_devices(Share::NONE.with(Limit::TwinRequests, 1))).await;
    let connection = hub.create("d").await;
    let mut device = RawDevice::connect(&hub, &connection).await;
    device.subscribe_twin().await;
    for count in 0..200 {
        let topic = format!("$iothub/twin/PATCH/properties/reported/?$rid={count}");
        device.publish(&topic, br#"{"a":1}"#).await;
        let (response, body) = device.twin_response().await;
        if response.status == 204 {
            continue;
        }
        assert!(count >= 10, "ten may come at once");
        assert_eq!(response.status, 429);
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["errorCode"], 429_001);
        let message = body["message"].as_str().unwrap();
        assert!(message.contains("twin-requests-per-second"), "{message}");
        // The session goes on.
        device.send(&[0xc0, 0]).await;
        assert!(device.answers_ping().await);
        return;
    }
    panic!("never refused");
}

#[tokio::test]
async fn telemetry_that_is_too_fast_is_read_later_and_nothing_is_lost() {
    let hub = TestHub::start_with(of_devices(Share::NONE.with(Limit::Telemetry, 2))).await;
    let connection = hub.create("d").await;
    let mut device = RawDevice::connect(&hub, &connection).await;
    let started = Instant::now();
    for number in 0..26 {
        let topic = "devices/d/messages/events/";
        device.publish(topic, format!("{number}").as_bytes()).await;
    }
    device.send(&[0xc0, 0]).await;
    assert!(device.answers_ping().await);
    // Twenty at once, and two a second after that.
    let took = started.elapsed();
    assert!(took >= Duration::from_secs(2), "{took:?}");
    let identity = &connection.identity.device;
    let read = hub
        .state
        .telemetry
        .read(None, Some(identity), 100, tokio::time::Instant::now());
    assert_eq!(read.await.messages.len(), 26);
}
