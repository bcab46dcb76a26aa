//! Texts that a hub, and a service through it, send to a device-proxy.

use std::time::Duration;

use common::mqtt::PacketIo;
use common::session::SessionId;
use common::session::handshake::Exchange;
use common::session::proof::ResumeSecret;
use common::websocket::WebSocket;
use tests::messages::send;
use tests::programs::Program;
use tests::raw_hub::{self, Stream};
use tests::{RawHub, soon};
use tokio::io::AsyncWriteExt as _;

use crate::texts::{
    KEY, answered, characters, check, close, encoded, frame, left, reason, text, texts,
};

/// The frame that ends a session.
const RESET: u8 = 0x15;

/// The arguments of a device-proxy for such a hub.
pub(crate) fn device_arguments(hub: &RawHub) -> Vec<String> {
    [
        "--echo",
        "--target",
        "ssh=localhost:22",
        "--transport",
        "mqtt",
        "--log-level",
        "trace",
        "--mqtts-port",
        &hub.mqtts_port().to_string(),
        "--ca-file",
        hub.ca_file().to_str().unwrap(),
    ]
    .map(str::to_owned)
    .to_vec()
}

pub(crate) fn device_string(hub: &RawHub) -> String {
    format!(
        "HostName=localhost:{};DeviceId=MyDevice;SharedAccessKey={KEY}",
        hub.https_port()
    )
}

fn device(hub: &RawHub, options: &[&str]) -> Program {
    let arguments = device_arguments(hub);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let arguments = [&arguments, options].concat();
    let connection = device_string(hub);
    let environment = [("IOTHUB_DEVICE_CONNECTION_STRING", connection.as_str())];
    Program::start("device-proxy", &arguments, &environment)
}

/// The topic of a stream request.
pub(crate) fn request(hub: &RawHub, name: &str, number: u32) -> Vec<u8> {
    let url = format!("wss://localhost:{}/bridges/{number}", hub.https_port());
    let url = encoded(&url);
    format!("$iothub/streams/POST/{name}/?$rid={number}&$url={url}&$auth=t").into_bytes()
}

/// A device-proxy, its hub session, and the numbers of its stream requests.
struct Device<'a> {
    hub: &'a RawHub,
    program: Program,
    io: PacketIo<Stream>,
    requests: u32,
}

impl<'a> Device<'a> {
    async fn start(hub: &'a RawHub, options: &[&str]) -> Self {
        let program = device(hub, options);
        let io = hub.device().await.unwrap();
        Self {
            hub,
            program,
            io,
            requests: 0,
        }
    }

    async fn publish(&mut self, topic: &[u8]) {
        self.io.write(&raw_hub::publish(topic)).await.unwrap();
    }

    /// Requests a stream of this name.
    async fn request(&mut self, name: &str) {
        self.requests += 1;
        let topic = request(self.hub, name, self.requests);
        self.publish(&topic).await;
    }

    /// Requests a stream, and accepts its leg.
    async fn leg(&mut self, name: &str) -> (Stream, String) {
        self.request(name).await;
        soon("a leg", self.hub.request()).await
    }

    /// Requests a stream, accepts its leg, and answers the upgrade.
    async fn open(&mut self, name: &str) -> Stream {
        let (mut stream, head) = self.leg(name).await;
        let switching = raw_hub::switching(&head);
        stream.write_all(switching.as_bytes()).await.unwrap();
        stream
    }

    async fn ended(mut self) -> String {
        self.program.terminate();
        self.program.ended().await.1
    }
}

/// Data for the echo target, and a Close.
async fn data_and_close(stream: &mut Stream, data: &str, reason: &str) {
    let length = data.len().min(125);
    let mut bytes = vec![0x82, u8::try_from(length).unwrap()];
    bytes.extend_from_slice(&data.as_bytes()[..length]);
    bytes.extend_from_slice(&close(1011, reason));
    stream.write_all(&bytes).await.unwrap();
    answered(stream).await;
}

#[tokio::test]
async fn of_what_a_hub_writes_to_a_device_proxy() {
    let hub = RawHub::start().await;
    let mut device = Device::start(&hub, &[]).await;
    for text in texts("way-name", usize::MAX, &[]) {
        device.request(&text).await;
        let url = encoded(&text);
        for topic in [
            format!("$iothub/streams/POST/{text}"),
            format!("$iothub/streams/POST/x/?$rid={text}&$url=x&$auth=t"),
            format!("$iothub/streams/POST/x/?$rid=1&$url={url}&$auth=t"),
            format!("$iothub/streams/POST/x/?$rid=1&$url=x&$auth={text}&$ip={text}"),
            format!("$iothub/streams/POST/x/?$rid=1&$url=x&$auth=t&$ip=::1&$policy={url}"),
            format!("$iothub/twin/res/{text}/?$rid={text}"),
            text.clone(),
        ] {
            device.publish(topic.as_bytes()).await;
        }
    }
    // A host of a streaming endpoint.
    for text in ["way-host\u{202e}", "way-host\u{1b}[2J", "way-host\u{9b}"] {
        let url = encoded(&format!("wss://{text}:1/x"));
        let topic = format!("$iothub/streams/POST/x/?$rid=1&$url={url}&$auth=t");
        device.publish(topic.as_bytes()).await;
    }
    device.program.line("way-name").await;

    // The response to the upgrade of a leg: invalid with all characters, valid with the others.
    let ascii: Vec<char> = characters().into_iter().filter(char::is_ascii).collect();
    for (reason, line) in [
        (
            texts("way-status", usize::MAX, &['\r', '\n', '\0']),
            "upgrade at",
        ),
        (texts("way-status", usize::MAX, &ascii), "with 403"),
    ] {
        let (stream, _) = device.leg("echo").await;
        let reason = &reason[0];
        let text = format!("HTTP/1.1 403 {reason}\r\nX-Reason: {reason}\r\n\r\n");
        raw_hub::answer(stream, text.as_bytes()).await;
        device.program.line(line).await;
    }
    for reason in texts("way-close", 120, &[]) {
        let mut stream = device.open("echo").await;
        data_and_close(&mut stream, &reason, &reason).await;
    }
    device.program.line("way-close").await;

    // A service in session mode: malformed frames, and texts about the end of a session.
    let stream = device.open("_session.echo").await;
    let mut leg = WebSocket::server(stream, &[]);
    send(&mut leg, text("way-malformed").into_bytes()).await;
    device.program.line("came to no session").await;
    drop(leg);
    for words in texts("way-end", 150, &[]) {
        let stream = device.open("_session.echo").await;
        let mut exchange = Exchange::new(WebSocket::server(stream, &[]));
        exchange.greeting(Duration::from_secs(10)).await.unwrap();
        let (id, secret) = (SessionId::random(), ResumeSecret::random());
        exchange
            .hello(id, &secret, Duration::from_secs(60))
            .await
            .unwrap();
        let (mut leg, _) = exchange.into_parts();
        send(&mut leg, frame(RESET, None, &reason(1, &words))).await;
        left(leg).await;
    }
    device.program.line("way-end").await;

    let marks = ["way-name", "way-close", "way-malformed", "way-end"];
    check(&device.ended().await, &marks);
}

/// Lines in the format of the official samples go to standard output.
#[tokio::test]
async fn of_what_comes_in_the_lines_of_the_samples() {
    let hub = RawHub::start().await;
    let mut device = Device::start(&hub, &["--sample-output"]).await;
    for text in texts("way-name", usize::MAX, &[]) {
        device.request(&text).await;
    }
    for text in texts("way-data", 120, &[]) {
        let mut stream = device.open("echo").await;
        data_and_close(&mut stream, &text, "").await;
    }
    device.program.line("Sent stream data: way-data").await;
    check(
        &device.ended().await,
        &["Received stream request (way-name"],
    );
}
