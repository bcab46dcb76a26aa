//! All programs that carry a stream log it with the same id.

use tests::target::Behaviour;
use tests::{Target, TestDevice, TestHub, TestService, logs, wait};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

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
    logs::keep();
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
