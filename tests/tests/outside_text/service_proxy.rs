//! Texts that a hub, and a device through it, send to a service-proxy.

use std::future::Future;

use common::session::handshake::{Exchange, SessionRequest};
use common::websocket::{Incoming, WebSocket};
use common::wire::initiation;
use common::wire::twin::{BootId, SESSION_VERSION, SessionReport};
use tests::messages::send;
use tests::programs::Program;
use tests::raw_hub::{self, Stream};
use tests::{RawHub, soon};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::texts::{KEY, answered, check, close, frame, left, reason, text, texts};

/// Frames of a session.
const WELCOME: u8 = 0x03;
const REFUSED: u8 = 0x06;
const DATA: u8 = 0x10;
const ACK: u8 = 0x12;
const END: u8 = 0x14;
const RESET: u8 = 0x15;
/// And one of a connection in it.
const CONNECTION_REFUSED: u8 = 0x03;

/// How a hub answers a service-proxy, and what then arrives over the stream.
#[derive(Clone, Copy)]
enum Leg<'a> {
    /// Instead of the upgrade to WebSocket.
    Status(&'a str),
    /// A Close with this reason.
    Close(&'a str),
    /// Bytes instead of a session's frames.
    Malformed(&'a str),
    /// A session is refused with this text.
    Refused(&'a str),
    /// A connection in it is refused with this text.
    Connection(&'a str),
    /// A session is ended with this text.
    End(&'a str),
}

/// Answers all requests of a service-proxy, without end.
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
            if let Leg::Malformed(bytes) = leg {
                send(&mut leg_stream, bytes.as_bytes().to_vec()).await;
                left(leg_stream).await;
                continue;
            }
            session(Exchange::new(leg_stream), leg).await;
        }
    }
}

/// The device's end of a session: sends the greeting, reads the request, and answers with a text.
async fn session(mut exchange: Exchange<Stream>, leg: Leg<'_>) {
    let Ok(SessionRequest::New { .. }) = exchange.greet(BootId::random()).await else {
        return;
    };
    let (mut stream, already_read) = exchange.into_parts();
    match leg {
        Leg::Refused(words) => send(&mut stream, frame(REFUSED, None, &reason(5, words))).await,
        Leg::End(words) => send(&mut stream, frame(RESET, None, &reason(1, words))).await,
        Leg::Connection(words) => {
            send(&mut stream, frame(WELCOME, None, &60u32.to_be_bytes())).await;
            if already_read.is_empty() {
                let open = std::future::poll_fn(|cx| stream.poll_incoming(cx)).await;
                assert!(matches!(open, Ok(Incoming::Data(_))), "{open:?}");
            }
            let refused = frame(CONNECTION_REFUSED, Some(1), &reason(1, words));
            let data = [&0u64.to_be_bytes()[..], &refused].concat();
            send(&mut stream, frame(DATA, None, &data)).await;
            // The service-proxy would wait for unacknowledged bytes at the end. It has sent an OPEN
            // and its client's data.
            let acknowledged = [&22u64.to_be_bytes()[..], &0u32.to_be_bytes()].concat();
            while let Ok(Incoming::Data(data)) =
                std::future::poll_fn(|cx| stream.poll_incoming(cx)).await
            {
                let bytes = data.into_bytes();
                if bytes.ends_with(b"a line") {
                    send(&mut stream, frame(ACK, None, &acknowledged)).await;
                }
                if bytes.ends_with(&frame(END, None, &[])) {
                    return;
                }
            }
        }
        Leg::Status(_) | Leg::Close(_) | Leg::Malformed(_) => {}
    }
    left(stream).await;
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

/// A twin with a session report and more.
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
            // A body that is not in the hub's format is not shown.
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
            // An echo test only prints counts.
            let mark = if arguments[0] == "echo" {
                "0 received"
            } else {
                "way-close"
            };
            check(&service(&hub, arguments, serving).await, &[mark]);
        }
    }
    let always = ["listen", "--session", "always", "MyDevice", "0"];
    let odd = text("way-malformed");
    let serving = serve(&hub, &accepted, &plain, Leg::Malformed(&odd));
    check(&service(&hub, &always, serving).await, &["way-malformed"]);
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

    // Twins: one with texts in it, one that is malformed, one that is refused.
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
