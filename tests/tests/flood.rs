//! Limits against peers that send too much: a hub with endpoints elsewhere, thousands of
//! unauthenticated connections, endless refusals.

use std::sync::Arc;
use std::time::Duration;

use common::identity::{RequestId, StreamName};
use common::secret::Secret;
use common::wire::initiation::InitiationResult;
use common::wire::stream::StreamRequest;
use common::wire::twin::BootId;
use device_proxy::streams::Streams;
use service_proxy::config::Config;
use service_proxy::sample_output::SampleOutput;
use service_proxy::stream::StreamOpener;
use tests::raw_service::accepted;
use tests::{RawService, TestDevice, TestHub, device, logs, service, soon};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn a_hub_cannot_have_a_device_speak_to_another_host() {
    logs::keep();
    let hub = TestHub::start().await;
    let connection = hub.create("d").await;
    let internal = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = internal.local_addr().unwrap().port();
    let config = device::config(&hub, &connection, &["--echo"]);
    let (answers, mut outbox) = mpsc::channel(8);
    let stop = CancellationToken::new();
    let (_policy, policy) = watch::channel(Arc::new(config.policy()));
    let streams = Streams::new(&config, policy, BootId::random(), answers, stop.clone());
    let request = |name: &str, host: &str| StreamRequest {
        request_id: RequestId::parse("r1").unwrap(),
        name: name.to_owned(),
        url: format!("wss://{host}:{port}/bridges/x"),
        token: Secret::new("t"),
        initiator: None,
    };
    // In session mode too.
    for name in ["led-astray", "_session.echo"] {
        streams.request(request(name, "127.0.0.1"));
        let answer = soon("an answer", outbox.recv()).await.unwrap();
        assert!(!answer.accepted, "{name}");
        streams.request(request(name, "user@localhost"));
        let answer = soon("an answer", outbox.recv()).await.unwrap();
        assert!(!answer.accepted, "{name}");
    }
    let line = logs::line(&["led-astray", "streaming endpoint", "--streaming-hosts"]).await;
    assert!(line.contains(&format!("127.0.0.1:{port}")), "{line}");
    assert!(line.contains("only localhost may be"), "{line}");
    // No connection was made for the refused ones; an accepted stream dials while its answer is
    // sent.
    streams.request(request("as-it-should-be", "localhost"));
    let answer = soon("an answer", outbox.recv()).await.unwrap();
    assert!(answer.accepted);
    let (_first, _) = soon("the leg", internal.accept()).await.unwrap();
    let second = tokio::time::timeout(Duration::from_millis(100), internal.accept());
    assert!(
        second.await.is_err(),
        "more than the allowed one was dialled"
    );
    stop.cancel();
    soon("the streams' end", streams.drain()).await;
}

#[tokio::test]
async fn a_device_has_its_number_of_streams_whatever_is_asked_of_it() {
    let hub = TestHub::start().await;
    let connection = hub.create("d").await;
    let options = ["--echo", "--max-streams", "2"];
    let _device = TestDevice::start(&hub, &connection, &options).await;
    let service = RawService::new(&hub).await;
    let mut legs = Vec::new();
    for _ in 0..2 {
        let answer = soon("an answer", service.initiate("d", "echo", 5.0, 5.0)).await;
        let (url, token) = accepted(&answer);
        legs.push(service.leg(&url, &token).await);
    }
    let is_accepted = async |name: &str| {
        let answer = soon("an answer", service.initiate("d", name, 5.0, 5.0)).await;
        // It is the device that takes it or not.
        assert_eq!(answer.status(), 200, "{name}");
        matches!(
            InitiationResult::from_headers(answer.headers()).unwrap(),
            InitiationResult::Accepted { .. }
        )
    };
    // A session is a stream, too.
    for name in ["echo", "_session.echo"] {
        assert!(!is_accepted(name).await, "{name}");
    }
    // Where one has ended there is room again.
    drop(legs.pop());
    soon("room for another", async {
        while !is_accepted("echo").await {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn streaming_hosts_narrows_and_widens_at_both_ends() {
    let hub = TestHub::start().await;
    let narrow = hub.create("narrow").await;
    let wide = hub.create("wide").await;
    let elsewhere = ["--echo", "--streaming-hosts", "streams.example.net"];
    let _narrow = TestDevice::start(&hub, &narrow, &elsewhere).await;
    let both = ["--echo", "--streaming-hosts", "*.example.net,LocalHost"];
    let _wide = TestDevice::start(&hub, &wide, &both).await;
    let raw = RawService::new(&hub).await;
    let answer = raw.initiate("narrow", "echo", 5.0, 5.0).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["iothub-streaming-is-accepted"], "False");

    let policy = hub.policy("service").await;
    let opener = |arguments: &[&str]| {
        let line = [&["echo", "wide"], arguments].concat();
        let Config::Echo(config) = service::config(&hub, &policy, &line) else {
            panic!("not echo");
        };
        StreamOpener::new(&config.hub, SampleOutput::Off).unwrap()
    };
    let echo = StreamName::parse("echo").unwrap();
    opener(&[]).open(&wide.identity, &echo).await.unwrap();
    let error = opener(&["--streaming-hosts", "streams.example.net:443"])
        .open(&wide.identity, &echo)
        .await
        .map(|_| ())
        .unwrap_err();
    let refused = common::report::chain(&error);
    assert!(
        refused.contains("localhost:") && refused.contains("only streams.example.net:443 may be"),
        "{refused}"
    );
}
