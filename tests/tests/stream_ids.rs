//! All programs that carry a stream log it with the same id, and the hub logs one outcome of each
//! stream.

use common::identity::StreamId;
use common::wire::stream::StreamRequest;
use tests::raw_service::accepted;
use tests::target::Behaviour;
use tests::{RawDevice, RawService, Target, TestDevice, TestHub, TestService, logs, soon, wait};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;

/// A program, as its lines name it, and part of the text of one line.
type Line = (&'static str, &'static str);

/// The id in the hub's line about an accepted stream of this device.
async fn id_of(device: &str) -> String {
    let accepted = logs::line(&["stream accepted", &format!("device={device} ")]).await;
    let (_, id) = accepted.split_once(" stream=").expect(&accepted);
    let id: String = id.chars().take_while(char::is_ascii_hexdigit).collect();
    assert_eq!(id.len(), 32, "{accepted}");
    id
}

/// Opens and closes a connection to a device of this name, and finds these lines by the id of its
/// stream.
async fn found_by_id(device: &str, session: &str, lines: &[Line]) {
    logs::keep_debug();
    let hub = TestHub::start().await;
    let connection = hub.create(device).await;
    let target = Target::start(Behaviour::Echo).await;
    let to = target.address.to_string();
    let _device = TestDevice::start(&hub, &connection, &["--target", &to]).await;
    let service = TestService::listen(&hub, &["--session", session, device, "0:ssh"]).await;
    let mut local = service.connect().await;
    local.write_all(b"hello").await.unwrap();
    let mut back = [0; 5];
    local.read_exact(&mut back).await.unwrap();
    drop(local);
    if session == "never" {
        wait("the stream's end", || hub.state.legs.count() == 0).await;
    }
    // A session ends with the program.
    service.shut_down().await;
    wait("no stream", || hub.state.legs.count() == 0).await;

    let stream = format!(" stream={}", id_of(device).await);
    for (program, what) in lines {
        logs::line(&[program, what, &stream]).await;
    }
}

#[tokio::test]
async fn of_a_plain_stream() {
    let lines = [
        ("hub::", "stream accepted"),
        ("hub::", "stream closed"),
        ("device_proxy::", "stream opened"),
        ("device_proxy::", "stream closed"),
        ("service_proxy::", "tunnel opened"),
        ("service_proxy::", "tunnel closed"),
    ];
    found_by_id("Plain", "never", &lines).await;
}

#[tokio::test]
async fn of_a_session() {
    let lines = [
        ("hub::", "stream accepted"),
        ("hub::", "stream closed"),
        ("device_proxy::", "session opened"),
        ("service_proxy::", "session opened"),
    ];
    found_by_id("InSession", "always", &lines).await;
}

/// The hub's lines of this stream that say what became of it in the end.
fn ends(stream: &str) -> Vec<String> {
    let of_stream = logs::lines(&["hub::", stream]).into_iter();
    let is_end = |line: &String| {
        let ends = [
            " stream ended",
            " stream closed",
            " stream rejected",
            " no stream:",
        ];
        ends.iter().any(|text| line.contains(text))
    };
    of_stream.filter(is_end).collect()
}

/// A stream whose device has been asked; how the service goes on with it is the story.
struct Initiated {
    hub: TestHub,
    device: RawDevice,
    request: StreamRequest,
    asking: tokio::task::JoinHandle<reqwest::Response>,
    /// Its field.
    stream: String,
    /// What the line of its end has beside that.
    fields: [String; 4],
}

async fn initiated(id: &'static str) -> Initiated {
    logs::keep_debug();
    let hub = TestHub::start().await;
    let connection = hub.create(id).await;
    let mut device = RawDevice::connect(&hub, &connection).await;
    let service = RawService::new(&hub).await;
    let asking = tokio::spawn(async move { service.initiate(id, "ssh", 20.0, 20.0).await });
    let request = device.request().await;
    let stream = StreamId::of_url(&request.url).unwrap();
    let of_device = format!("device={id} ");
    let fields = [
        of_device.as_str(),
        "name=ssh ",
        "policy=service ",
        "peer=127.0.0.1:",
    ];
    Initiated {
        hub,
        device,
        request,
        asking,
        stream: format!(" stream={stream} "),
        fields: fields.map(str::to_owned),
    }
}

impl Initiated {
    async fn accept(&mut self) {
        self.device.answer(&self.request, true).await;
        let response = soon("the answer", &mut self.asking).await.unwrap();
        accepted(&response);
    }

    /// Its one end is this, with who has asked for it.
    async fn ended(&self, text: &str) {
        wait("no stream", || self.hub.state.legs.count() == 0).await;
        logs::line(&[text, &self.stream]).await;
        let ends = ends(&self.stream);
        assert!(ends.len() == 1 && ends[0].contains(text), "{ends:#?}");
        let has = |field: &String| ends[0].contains(field.as_str());
        assert!(self.fields.iter().all(has), "{ends:#?}");
    }
}

#[tokio::test]
async fn an_accepted_stream_without_legs_has_an_end() {
    let mut late = initiated("NoLegs").await;
    late.accept().await;
    let over = Instant::now() + hub::limits::LEG_ARRIVAL;
    late.hub.state.legs.expire(over);
    let text = "stream ended before its legs came: the time for its legs is over";
    late.ended(text).await;

    let mut revoked = initiated("NoLegsDeleted").await;
    revoked.accept().await;
    revoked.hub.delete("NoLegsDeleted").await;
    let text = "stream ended before its legs came: the identity was disabled, deleted or damaged";
    revoked.ended(text).await;
}

#[tokio::test]
async fn an_accepted_stream_with_one_leg_has_an_end() {
    let mut late = initiated("OneLeg").await;
    late.accept().await;
    let _leg = late.device.leg(&late.request).await;
    logs::line(&["leg connected", &late.stream, "leg=device"]).await;
    let over = Instant::now() + hub::limits::LEG_ARRIVAL;
    late.hub.state.legs.expire(over);
    let text = "stream ended before its other leg came: the time for its legs is over";
    late.ended(text).await;

    let mut lost = initiated("OneLegLost").await;
    lost.accept().await;
    drop(lost.device.leg(&lost.request).await);
    lost.ended("stream ended before its other leg came: the device's leg was lost")
        .await;
}

#[tokio::test]
async fn a_leg_that_comes_and_goes_before_the_accept_makes_no_second_end() {
    let mut early = initiated("EarlyLeg").await;
    drop(early.device.leg(&early.request).await);
    let response = soon("the answer", &mut early.asking).await.unwrap();
    assert_eq!(response.status(), 404);
    early
        .ended("no stream: Timed out waiting for device to connect.")
        .await;
}

#[tokio::test]
async fn an_initiation_whose_caller_goes_away_has_an_end() {
    let alone = initiated("CallerGone").await;
    alone.asking.abort();
    alone
        .ended("no stream: given up before the device answered")
        .await;
}
