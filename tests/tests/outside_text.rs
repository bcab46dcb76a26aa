//! What others write, on terminals and in logs: no character that changes how a line reads comes
//! through, by whatever way it came in.
#![cfg(unix)]

use std::future::Future;
use std::io::Read as _;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::mqtt::PacketIo;
use common::session::greet::{Exchange, Wish};
use common::session::handshake::ResumeSecret;
use common::session::{Code, Live, RefusedCode, Role, SessionId, carry};
use common::websocket::{Data, WebSocket};
use common::wire::initiation;
use common::wire::twin::{BootId, SESSION_VERSION, SessionReport};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tests::program_hub::ProgramHub;
use tests::programs::{Program, binary, run};
use tests::raw_hub::{self, Stream};
use tests::{RawDevice, RawHub, RawService, raw_device, raw_service, soon};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Control characters, separators, and what changes the direction of text or is invisible.
fn characters() -> Vec<char> {
    let ranges = [
        0..=0x1f,
        0x7f..=0x9f,
        0x200b..=0x200f,
        0x2028..=0x202e,
        0x2066..=0x2069,
        0xfeff..=0xfeff,
    ];
    ranges
        .into_iter()
        .flatten()
        .filter_map(char::from_u32)
        .collect()
}

/// Texts of so many bytes at most with all of these characters, but for those to leave out. Each
/// begins with the mark, and would be a line of its own if it could.
fn texts(mark: &str, most: usize, without: &[char]) -> Vec<String> {
    let mut texts = vec![mark.to_owned()];
    for c in characters().into_iter().filter(|c| !without.contains(c)) {
        let piece = if c == '\n' {
            "\nforged".into()
        } else {
            format!("{c}.")
        };
        let last = texts.last_mut().unwrap();
        if last.len() + piece.len() > most {
            texts.push(format!("{mark}{piece}"));
        } else {
            last.push_str(&piece);
        }
    }
    texts
}

/// The same in one.
fn text(mark: &str) -> String {
    texts(mark, usize::MAX, &[]).remove(0)
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// Lines that somebody reads: none of the characters is in them, and none begins as another.
#[track_caller]
fn check(lines: &str, marks: &[&str]) {
    let bad = characters();
    for line in lines.split('\n') {
        let found: Vec<char> = line.chars().filter(|c| bad.contains(c)).collect();
        assert!(found.is_empty(), "{found:?} in {line:?}");
        assert!(!line.starts_with("forged"), "{lines}");
    }
    for mark in marks {
        assert!(lines.contains(mark), "nothing of {mark} in:\n{lines}");
    }
}

const KEY: &str = "AAECAwQFBgcICQoLDA0ODw==";

/// The arguments of a device-proxy for such a hub.
fn device_arguments(hub: &RawHub) -> Vec<String> {
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

fn device_string(hub: &RawHub) -> String {
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
fn request(hub: &RawHub, name: &str, number: u32) -> Vec<u8> {
    let url = format!("wss://localhost:{}/bridges/{number}", hub.https_port());
    let url = encoded(&url);
    format!("$iothub/streams/POST/{name}/?$rid={number}&$url={url}&$auth=t").into_bytes()
}

/// A Close of the server, with any reason.
fn close(code: u16, reason: &str) -> Vec<u8> {
    let length = u8::try_from(reason.len() + 2).unwrap();
    assert!(length < 126);
    [&[0x88, length][..], &code.to_be_bytes(), reason.as_bytes()].concat()
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

    /// Asks for a stream of this name.
    async fn request(&mut self, name: &str) {
        self.requests += 1;
        let topic = request(self.hub, name, self.requests);
        self.publish(&topic).await;
    }

    /// The same, and its leg.
    async fn leg(&mut self, name: &str) -> (Stream, String) {
        self.request(name).await;
        soon("a leg", self.hub.request()).await
    }

    /// The same, opened.
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

/// Waits for the answer to a Close; the connection ends when it is dropped.
async fn answered(stream: &mut Stream) {
    let mut bytes = [0; 1024];
    while let Ok(count @ 1..) = stream.read(&mut bytes).await {
        // A Close with a code is eight bytes, masked, and the last that comes.
        if count >= 8 && bytes[count - 8] == 0x88 {
            return;
        }
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

    // The answer to the upgrade of a leg: with all characters it is none, with the others it is.
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

    // A service that speaks sessions: badly, and with words about its end.
    let stream = device.open("_session.echo").await;
    let mut leg = WebSocket::server(stream, &[]);
    say(&mut leg, text("way-rubbish").into_bytes()).await;
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
        let live = Live::new(id, Role::Service);
        let carrier = live.attach(&live.freeze(), 0).unwrap();
        let (leg, already_read) = exchange.into_parts();
        live.reset(Code::Protocol, &words);
        soon("the end", carry(&live, carrier, leg, already_read)).await;
    }
    device.program.line("way-end").await;

    let marks = ["way-name", "way-close", "way-rubbish", "way-end"];
    check(&device.ended().await, &marks);
}

/// The lines of the official samples go to standard output.
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

async fn say(leg: &mut WebSocket<Stream>, bytes: Vec<u8>) {
    std::future::poll_fn(|cx| leg.poll_ready(cx)).await.unwrap();
    leg.start_send(Data::binary(Bytes::from(bytes))).unwrap();
    std::future::poll_fn(|cx| leg.poll_flush(cx)).await.unwrap();
}

/// On a terminal the log has colours, and only its own.
#[tokio::test]
async fn of_what_a_terminal_shows() {
    let hub = RawHub::start().await;
    let (terminal, theirs) = terminal();
    let mut program = tokio::process::Command::new(binary("device-proxy"))
        .args(device_arguments(&hub))
        .env("IOTHUB_DEVICE_CONNECTION_STRING", device_string(&hub))
        .env_remove("NO_COLOR")
        .stdin(Stdio::null())
        .stdout(theirs.try_clone().unwrap())
        .stderr(theirs)
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let shown = tokio::task::spawn_blocking(move || {
        let mut terminal = std::fs::File::from(terminal);
        let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
        // Its end is an error on Linux.
        while let Ok(count @ 1..) = terminal.read(&mut buffer) {
            all.extend_from_slice(&buffer[..count]);
        }
        String::from_utf8_lossy(&all).into_owned()
    });
    let mut io = hub.device().await.unwrap();
    for text in texts("way-name", usize::MAX, &[]) {
        let conceal = format!("\u{1b}[8m{text}");
        io.write(&raw_hub::publish(&request(&hub, &conceal, 1)))
            .await
            .unwrap();
    }
    let topic = raw_hub::publish(&request(&hub, "echo", 2));
    io.write(&topic).await.unwrap();
    let (mut stream, head) = soon("a leg", hub.request()).await;
    stream
        .write_all(raw_hub::switching(&head).as_bytes())
        .await
        .unwrap();
    stream
        .write_all(&close(1011, "way-close\u{1b}[8m\u{202e}\r"))
        .await
        .unwrap();
    answered(&mut stream).await;
    let id = program.id().and_then(|id| i32::try_from(id).ok());
    let id = id.and_then(rustix::process::Pid::from_raw).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    drop(io);
    soon("its end", program.wait()).await.unwrap();
    let shown = soon("all of it", shown).await.unwrap();
    // A terminal adds the carriage returns.
    let shown = shown.replace("\r\n", "\n");
    assert!(!shown.contains("\u{1b}[8m"), "{shown:?}");
    let mut plain = String::new();
    let mut rest = shown.as_str();
    let mut colours = 0;
    while let Some((before, behind)) = rest.split_once("\u{1b}[") {
        plain.push_str(before);
        let (colour, behind) = behind.split_once('m').unwrap();
        assert!(
            colour.bytes().all(|b| b.is_ascii_digit() || b == b';'),
            "{colour:?}"
        );
        colours += 1;
        rest = behind;
    }
    plain.push_str(rest);
    assert!(colours > 0, "it was no terminal: {shown}");
    check(&plain, &["way-name", "way-close"]);
}

/// A terminal's own end, and the end for its programs.
fn terminal() -> (std::os::fd::OwnedFd, std::fs::File) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap();
    let theirs = rustix::fs::open(
        &name,
        rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY,
        rustix::fs::Mode::empty(),
    );
    (ours, theirs.unwrap().into())
}

/// A certificate's names are shown where it is refused.
#[tokio::test]
async fn of_what_stands_in_a_certificate() {
    let key = KeyPair::generate().unwrap();
    for name in texts("way-subject", 60, &[]) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params
            .distinguished_name
            .push(DnType::CommonName, name.as_str());
        params
            .distinguished_name
            .push(DnType::OrganizationName, name.as_str());
        let certificate = params.self_signed(&key).unwrap();
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let hub = Arc::new(RawHub::start_with(certificate.der().clone(), der).await);
        // Something to trust.
        let other = RawHub::start().await;
        let ca_file = other.ca_file();
        let service = format!(
            "HostName=localhost:{};SharedAccessKeyName=service;SharedAccessKey={KEY}",
            hub.https_port()
        );
        let connection = device_string(&hub);
        let programs = [
            Program::start(
                "device-proxy",
                &["--echo", "--ca-file", ca_file.to_str().unwrap()],
                &[("IOTHUB_DEVICE_CONNECTION_STRING", connection.as_str())],
            ),
            Program::start(
                "service-proxy",
                &[
                    "connect",
                    "MyDevice",
                    "--ca-file",
                    ca_file.to_str().unwrap(),
                ],
                &[("IOTHUB_CONNECTION_STRING", service.as_str())],
            ),
        ];
        for mut program in programs {
            let output = tokio::select! {
                (_, output) = program.ended() => output,
                _ = hub.request() => unreachable!("it is not trusted"),
            };
            check(&output, &["way-subject"]);
        }
    }
}

/// What a hub answers to a service-proxy, and what then comes over the stream.
#[derive(Clone, Copy)]
enum Leg<'a> {
    /// Instead of the switch to WebSocket.
    Status(&'a str),
    /// A Close with this reason.
    Close(&'a str),
    /// Bytes in the place of a session.
    Rubbish(&'a str),
    /// A session is refused with these words.
    Refused(&'a str),
    /// A connection in it is refused with these words.
    Connection(&'a str),
    /// A session is ended with these words.
    End(&'a str),
}

/// Answers everything that a service-proxy asks, for ever.
async fn serve(hub: &RawHub, initiation: &str, twin: &str, leg: Leg<'_>) {
    loop {
        let (mut stream, head) = hub.request().await;
        if head.starts_with("POST") {
            raw_hub::answer(stream, initiation.as_bytes()).await;
        } else if !head.to_ascii_lowercase().contains("upgrade: websocket") {
            raw_hub::answer(stream, twin.as_bytes()).await;
        } else if let Leg::Status(reason) = leg {
            let text = format!("HTTP/1.1 403 {reason}\r\nX-Reason: {reason}\r\n\r\n");
            raw_hub::answer(stream, text.as_bytes()).await;
        } else {
            stream
                .write_all(raw_hub::switching(&head).as_bytes())
                .await
                .unwrap();
            if let Leg::Close(reason) = leg {
                stream.write_all(&close(1011, reason)).await.unwrap();
                answered(&mut stream).await;
                continue;
            }
            let mut leg_stream = WebSocket::server(stream, &[]);
            if let Leg::Rubbish(bytes) = leg {
                say(&mut leg_stream, bytes.as_bytes().to_vec()).await;
                leg_stream.close(1000, "", Duration::from_secs(1)).await;
                continue;
            }
            session(Exchange::new(leg_stream), leg).await;
        }
    }
}

/// The device's end of a session.
async fn session(mut exchange: Exchange<Stream>, leg: Leg<'_>) {
    let Ok(Wish::New { id, .. }) = exchange.greet(BootId::random()).await else {
        return;
    };
    if let Leg::Refused(words) = leg {
        let _ = exchange.refuse(Code::Limit, words).await;
        return exchange.close().await;
    }
    let live = Live::new(id, Role::Device);
    let carrier = live.attach(&live.freeze(), 0).unwrap();
    exchange.welcome(Duration::from_secs(60)).await.unwrap();
    let (stream, already_read) = exchange.into_parts();
    let refusing = async {
        while let Some(id) = live.next_incoming().await {
            match leg {
                Leg::Connection(words) => {
                    live.refuse(id, RefusedCode::TargetRefused, words.to_owned());
                }
                Leg::End(words) => live.reset(Code::Protocol, words),
                _ => {}
            }
        }
        std::future::pending().await
    };
    tokio::select! {
        _ = carry(&live, carrier, stream, already_read) => {}
        () = refusing => {}
    }
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// An accepted stream that leads here.
fn accepted(hub: &RawHub) -> String {
    let url = format!("wss://localhost:{}/bridges/x", hub.https_port());
    let headers = format!(
        "{}: True\r\n{}: {url}\r\n{}: t\r\n",
        initiation::IS_ACCEPTED,
        initiation::URL,
        initiation::AUTH_TOKEN
    );
    answer("200 OK", &headers, "")
}

/// A twin that says that the device speaks sessions, and more.
fn twin(words: &str) -> String {
    let report = SessionReport {
        version: SESSION_VERSION,
        boot_id: BootId::random(),
    };
    let document = serde_json::json!({
        "deviceId": words, "status": words, "statusReason": words,
        "properties": { "reported": report.to_patch(), "desired": { words: words } },
    });
    answer("200 OK", "", &document.to_string())
}

/// Runs a service-proxy to its end while the hub is served.
async fn service(hub: &RawHub, arguments: &[&str], serving: impl Future<Output = ()>) -> String {
    let connection = format!(
        "HostName=localhost:{};SharedAccessKeyName=service;SharedAccessKey={KEY}",
        hub.https_port()
    );
    let ca_file = hub.ca_file();
    let common = [
        "--log-level",
        "trace",
        "--ca-file",
        ca_file.to_str().unwrap(),
    ];
    let mut program = Program::start(
        "service-proxy",
        &[arguments, &common].concat(),
        &[("IOTHUB_CONNECTION_STRING", &connection)],
    );
    let is_listening = arguments[0] == "listen";
    let ending = async {
        if is_listening {
            let line = program.line("listening on 127.0.0.1:").await;
            let port = line.split("127.0.0.1:").nth(1).unwrap();
            let port: u16 = port.split(' ').next().unwrap().parse().unwrap();
            let mut client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            client.write_all(b"a line").await.unwrap();
            let _ = soon("the end", client.read_to_end(&mut Vec::new())).await;
            program.terminate();
        }
        program.ended().await.1
    };
    tokio::select! {
        output = ending => output,
        () = serving => unreachable!("it serves for ever"),
    }
}

#[tokio::test]
async fn of_what_a_hub_writes_to_a_service_proxy() {
    let hub = RawHub::start().await;
    let line: &[char] = &['\r', '\n', '\0'];
    let reason = texts("way-reason", usize::MAX, line).remove(0);
    let body = text("way-body");
    let json = serde_json::json!({ "Message": body, "ExceptionMessage": body, "errorCode": body });
    let header = texts("way-header", usize::MAX, line).remove(0);
    let is_accepted = initiation::IS_ACCEPTED;
    let (url, token) = (initiation::URL, initiation::AUTH_TOKEN);
    let refusals = [
        answer(
            "400 Bad Request",
            "Content-Type: application/json\r\n",
            &json.to_string(),
        ),
        answer("418 Odd", "Content-Type: text/plain\r\n", &body),
        answer(&format!("418 {reason}"), "", ""),
        answer(
            "404 Not Found",
            &format!("iothub-errorcode: {header}\r\n"),
            &body,
        ),
        answer(
            "429 Slow Down",
            &format!("Retry-After: {header}\r\n"),
            &body,
        ),
        answer("200 OK", &format!("{is_accepted}: {header}\r\n"), ""),
        answer(
            "200 OK",
            &format!("{is_accepted}: True\r\n{url}: {header}\r\n{token}: {header}\r\n"),
            "",
        ),
        answer(
            "200 OK",
            &format!("{is_accepted}: True\r\n{url}: wss://{header}/x\r\n{token}: t\r\n"),
            "",
        ),
    ];
    let plain = twin("x");
    let never: &[&[&str]] = &[
        &[
            "connect",
            "--session",
            "never",
            "--connect-timeout",
            "1",
            "--response-timeout",
            "1",
            "MyDevice",
        ],
        &["echo", "MyDevice", "--count", "1"],
        &[
            "listen",
            "--session",
            "never",
            "--connect-timeout",
            "1",
            "--response-timeout",
            "1",
            "MyDevice",
            "0",
        ],
    ];
    for (place, refusal) in refusals.iter().enumerate() {
        for arguments in never {
            let serving = serve(&hub, refusal, &plain, Leg::Status("x"));
            let output = service(&hub, arguments, serving).await;
            // A body that is not in the hub's form is not repeated.
            let mark = if place == 0 {
                "way-body"
            } else {
                "stream to MyDevice"
            };
            check(&output, &[mark]);
        }
    }

    // Over the stream.
    let accepted = accepted(&hub);
    for arguments in never {
        let serving = serve(&hub, &accepted, &plain, Leg::Status(&reason));
        let output = service(&hub, arguments, serving).await;
        check(&output, &["stream to MyDevice"]);
        for reason in texts("way-close", 120, &[]) {
            let serving = serve(&hub, &accepted, &plain, Leg::Close(&reason));
            // An echo test counts only.
            let mark = if arguments[0] == "echo" {
                "0 received"
            } else {
                "way-close"
            };
            check(&service(&hub, arguments, serving).await, &[mark]);
        }
    }
    let always = ["listen", "--session", "always", "MyDevice", "0"];
    let odd = text("way-rubbish");
    let serving = serve(&hub, &accepted, &plain, Leg::Rubbish(&odd));
    check(&service(&hub, &always, serving).await, &["way-rubbish"]);
    for words in texts("way-words", 150, &[]) {
        for leg in [
            Leg::Refused(&words),
            Leg::Connection(&words),
            Leg::End(&words),
        ] {
            let serving = serve(&hub, &accepted, &plain, leg);
            check(&service(&hub, &always, serving).await, &["way-words"]);
        }
    }

    // Twins: one with words in it, one that is none, one that is refused.
    let auto = ["listen", "--session", "auto", "MyDevice", "0"];
    for twin in [
        twin(&body),
        answer("200 OK", "", &body),
        refusals[0].clone(),
    ] {
        let serving = serve(&hub, &refusals[0], &twin, Leg::Status("x"));
        check(&service(&hub, &auto, serving).await, &["way-body"]);
    }
}

/// An MQTT CONNECT with any texts.
fn connect(client_id: &str, user_name: &str, password: &str) -> Vec<u8> {
    let mut rest = b"\0\x04MQTT\x04\xc2\0\xf0".to_vec();
    for text in [client_id, user_name, password] {
        rest.extend_from_slice(&u16::try_from(text.len()).unwrap().to_be_bytes());
        rest.extend_from_slice(text.as_bytes());
    }
    let length = rest.len();
    let length = [0x80 | (length & 0x7f) as u8, (length >> 7) as u8];
    [&[0x10], &length[..], &rest].concat()
}

#[tokio::test]
async fn of_what_strangers_and_services_write_to_a_hub() {
    let mut hub = ProgramHub::start().await;
    let connection = hub.admin(&["device", "create", "MyDevice"]);
    let key = common::connection_string::DeviceConnectionString::parse(&connection).unwrap();
    let owner = hub.admin(&["policy", "connection-string", "iothubowner"]);
    let owner = common::connection_string::ServiceConnectionString::parse(&owner).unwrap();
    let expiry = common::clock::unix_now() + 600;
    let good = raw_service::token(&owner, expiry);

    // Who it says to be, and its proof.
    let words = text("way-connect");
    let without = texts("way-connect", usize::MAX, &['\0']).remove(0);
    let encoded_words = encoded(&words);
    let forged = format!(
        "SharedAccessSignature sr={encoded_words}&sig={encoded_words}&se=1&skn={encoded_words}"
    );
    let raw = format!("SharedAccessSignature sr={words}&sig={words}&se={words}&skn={words}");
    for (client, user, password) in [
        (without.as_str(), without.as_str(), without.as_str()),
        (
            without.as_str(),
            "localhost/MyDevice/?api-version=2020-09-30",
            "x",
        ),
        (
            "MyDevice",
            "localhost/MyDevice/?api-version=2020-09-30",
            raw.as_str(),
        ),
        (
            "MyDevice",
            "localhost/MyDevice/?api-version=2020-09-30",
            forged.as_str(),
        ),
        (words.as_str(), words.as_str(), words.as_str()),
    ] {
        let mut device = RawDevice::at(hub.mqtts, hub.tls()).await;
        let _ = device.try_send(&connect(client, user, password)).await;
        device.ended().await;
    }
    // Topics, of a device that is let in.
    for topic in [
        format!("$iothub/streams/res/{without}/?$rid={without}"),
        format!("$iothub/twin/GET/?$rid={without}"),
        without.clone(),
        words.clone(),
    ] {
        let mut device = RawDevice::at(hub.mqtts, hub.tls()).await;
        device
            .hello(&key, &raw_device::password(&key, expiry))
            .await;
        device.subscribe().await;
        let _ = device.try_send(&raw_hub::publish(topic.as_bytes())).await;
        let _ = device.try_send(&[0xe0, 0]).await;
        device.ended().await;
    }

    // Requests: paths, names of streams, tokens. Short, so that it is the characters that count.
    let named = format!("SharedAccessSignature sr=x&sig=AAAA&se={expiry}&skn={encoded_words}");
    for token in [good.clone(), as_header(&raw), forged.clone(), named] {
        let service = RawService::at(hub.https, hub.tls(), token);
        for words in texts("way-path", 100, &[]) {
            let words = encoded(&words);
            for (method, path) in [
                ("GET", format!("/{words}")),
                ("GET", format!("/devices/{words}")),
                ("GET", format!("/devices/MyDevice/modules/{words}")),
                ("GET", format!("/twins/{words}")),
                ("POST", format!("/twins/{words}/streams/x")),
                ("POST", format!("/twins/MyDevice/streams/{words}")),
                (
                    "GET",
                    format!("/bridges/ih/{words}/d/{words}/sid/{words}/r/device"),
                ),
            ] {
                let call = service.call(
                    method.parse().unwrap(),
                    &format!("{path}?api-version=2020-09-30"),
                );
                let answer = soon("an answer", call.send()).await.unwrap();
                let status = answer.status();
                assert!(status.is_client_error(), "{path} {status}");
            }
        }
    }

    // What services write into the registry, in lists and details.
    let service = RawService::at(hub.https, hub.tls(), good);
    let data_dir = hub.data_dir();
    let admin = |arguments: &[&str], mark: &str| {
        let line = [arguments, &["--data-dir", &data_dir]].concat();
        let (ok, out, talk) = run("stream-hub", &line);
        assert!(ok, "{talk}");
        check(&out, &[mark]);
        check(&talk, &[]);
        out
    };
    for (number, reason) in texts("way-reason", 120, &[]).iter().enumerate() {
        let id = format!("Odd{number}");
        let put = |path: String, document: serde_json::Value| {
            let path = format!("{path}?api-version=2020-09-30");
            let call = service.call(reqwest::Method::PUT, &path);
            let call = call.header("content-type", "application/json");
            call.body(document.to_string()).send()
        };
        let device = serde_json::json!({
            "deviceId": id, "status": "disabled", "statusReason": reason
        });
        let answer = put(format!("/devices/{id}"), device).await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.status());
        let module = serde_json::json!({ "deviceId": id, "moduleId": "m", "managedBy": reason });
        let answer = put(format!("/devices/{id}/modules/m"), module)
            .await
            .unwrap();
        assert!(answer.status().is_success(), "{}", answer.status());
        admin(&["device", "show", &id], "way-reason");
        admin(&["module", "show", &id, "m"], "way-reason");
        admin(&["module", "list", &id, "--json"], "way-reason");
        // It is still what was written.
        let out = admin(&["device", "show", &id, "--json"], "way-reason");
        let value: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(value["statusReason"], *reason);
    }
    admin(&["device", "list"], "Odd0");
    admin(&["device", "list", "--json"], "way-reason");

    // The ends of a stream's two legs.
    let mut device = RawDevice::at(hub.mqtts, hub.tls()).await;
    device
        .hello(&key, &raw_device::password(&key, expiry))
        .await;
    device.subscribe().await;
    for reason in texts("way-close", 120, &[]) {
        let (answer, (request, leg)) =
            tokio::join!(service.initiate("MyDevice", "x", 10.0, 10.0), async {
                let request = device.request().await;
                device.answer(&request, true).await;
                let leg = device.leg(&request).await;
                (request, leg)
            });
        drop(request);
        let (url, token) = raw_service::accepted(&answer);
        let mut here = service.leg(&url, &token).await;
        here.start_close(4000, &reason).unwrap();
        std::future::poll_fn(|cx| here.poll_flush(cx))
            .await
            .unwrap();
        soon(
            "the hub's Close",
            std::future::poll_fn(|cx| here.poll_incoming(cx)),
        )
        .await
        .unwrap();
        drop(leg);
    }
    hub.program.line("with code 4000").await;
    hub.program.terminate();
    let (_, output) = hub.program.ended().await;
    check(&output, &["way-connect"]);
}

/// What a header may have.
fn as_header(text: &str) -> String {
    text.chars()
        .filter(|c| *c == '\t' || !c.is_ascii_control())
        .collect()
}

/// A person may have copied such a text, or a script may have it from elsewhere.
#[test]
fn of_what_stands_on_a_command_line() {
    for words in texts("way-argument", usize::MAX, &['\0']) {
        let words = words.as_str();
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().join("hub-data");
        let data_dir = data_dir.to_str().unwrap();
        let connection = format!("HostName={words};DeviceId={words};SharedAccessKey={KEY}");
        let target = format!("{words}=localhost:22");
        let host = format!("localhost\u{202e}{words}:22");
        let cases: &[(&str, &[&str])] = &[
            (
                "stream-hub",
                &["device", "create", words, "--data-dir", data_dir],
            ),
            (
                "stream-hub",
                &["device", "show", words, "--data-dir", data_dir],
            ),
            (
                "stream-hub",
                &["policy", "connection-string", words, "--data-dir", data_dir],
            ),
            ("stream-hub", &["device", "list", "--data-dir", words]),
            (
                "stream-hub",
                &["serve", "--hostname", words, "--data-dir", data_dir],
            ),
            ("stream-hub", &[words]),
            ("device-proxy", &[words]),
            ("device-proxy", &[&connection, "--echo"]),
            (
                "device-proxy",
                &["--connection-string-file", words, "--echo"],
            ),
            ("device-proxy", &["--target", &target]),
            ("device-proxy", &["--target", &host]),
            ("device-proxy", &["--echo", "--ca-file", words]),
            ("service-proxy", &["connect", words]),
            ("service-proxy", &["echo", "MyDevice", "--stream", words]),
            ("service-proxy", &["listen", "MyDevice", words]),
            (
                "service-proxy",
                &["--connection-string", &connection, "connect", "MyDevice"],
            ),
            (
                "service-proxy",
                &["--connection-string-file", words, "connect", "MyDevice"],
            ),
        ];
        for (program, arguments) in cases {
            let (ok, out, talk) = run(program, arguments);
            assert!(!ok, "{program} {arguments:?}");
            check(&out, &[]);
            check(&talk, &["error:"]);
        }
    }
}
