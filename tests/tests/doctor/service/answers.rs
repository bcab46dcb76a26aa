//! Faults of the hub's answers, and answers that are none.

use std::net::SocketAddr;

use common::doctor::Report;
use serde_json::json;
use tests::fake_hub::{FakeHub, Fault};

use crate::path::{at, string};
use crate::{Case, all_are_named, case, service};

async fn answering(api: tests::fake_hub::Answer, arguments: &[&str]) -> Report {
    at(
        Fault {
            api,
            ..Fault::default()
        },
        arguments,
    )
    .await
}

fn answers() -> Vec<Case> {
    vec![
        case(
            "a hub that forbids",
            "authentication",
            "status 403 Forbidden",
            answering(|_, _| ("403 Forbidden".to_owned(), String::new()), &["d"]),
        ),
        case(
            "a hub that throttles",
            "hub",
            "the hub throttles (429)",
            answering(|_, _| ("429 Slow".to_owned(), String::new()), &["d"]),
        ),
        case(
            "a hub that breaks",
            "hub",
            "status 500",
            answering(|_, _| ("500 Broken".to_owned(), String::new()), &["d"]),
        ),
        case(
            "a hub that is not ready",
            "hub",
            "status 503",
            answering(|_, _| ("503 Later".to_owned(), String::new()), &[]),
        ),
        case(
            "a server that is no hub, without a device",
            "hub",
            "is HostName really a hub?",
            answering(|_, _| ("404 Not Found".to_owned(), String::new()), &[]),
        ),
        case(
            "a server that is no hub",
            "stream",
            "is HostName really a hub with device streams?",
            answering(|_, _| ("404 Not Found".to_owned(), String::new()), &["d"]),
        ),
        case(
            "a hub that stops meanwhile",
            "hub",
            "cannot be reached",
            async {
                // TLS with HTTP, the WebSocket, and no more.
                at(
                    Fault {
                        connections: 2,
                        ..Fault::default()
                    },
                    &["d"],
                )
                .await
            },
        ),
        case(
            "a streaming endpoint that takes no WebSockets",
            "stream",
            "its streaming endpoint does not work",
            answering(without_legs, &["d"]),
        ),
        case(
            "a streaming endpoint elsewhere",
            "stream",
            "add that host to --streaming-hosts",
            answering(elsewhere, &["d"]),
        ),
    ]
}

/// A hub that accepts streams, whose legs it refuses.
fn without_legs(line: &str, address: SocketAddr) -> (String, String) {
    accepting(line, &format!("localhost:{}", address.port()))
}

fn elsewhere(line: &str, _: SocketAddr) -> (String, String) {
    accepting(line, "elsewhere.example")
}

fn accepting(line: &str, host: &str) -> (String, String) {
    if line.starts_with("GET /twins/") {
        let twin = json!({ "deviceId": "d", "connectionState": "Connected" });
        return ("200 OK".to_owned(), twin.to_string());
    }
    if line.contains("/streams/") {
        let head = format!(
            "200 OK\r\niothub-streaming-is-accepted: True\r\niothub-streaming-url: wss://{host}/bridges/0123456789abcdef0123456789abcdef/service\r\niothub-streaming-auth-token: t"
        );
        return (head, String::new());
    }
    if line.starts_with("GET /bridges/") {
        return ("403 Forbidden".to_owned(), String::new());
    }
    // It has no methods.
    ("501 Not Implemented".to_owned(), String::new())
}

#[tokio::test]
async fn faulty_answers_are_named() {
    all_are_named(answers(), 8).await;
}

#[tokio::test]
async fn a_hub_without_twins_and_methods_is_not_blamed() {
    // A basic hub: streams are all that it has here, and it rejects them.
    let hub = FakeHub::start(Fault {
        api: |line, _| {
            if line.contains("/streams/") {
                let head = "200 OK\r\niothub-streaming-is-accepted: False";
                (head.to_owned(), String::new())
            } else {
                ("501 Not Implemented".to_owned(), String::new())
            }
        },
        ..Fault::default()
    })
    .await;
    let ca_file = hub.ca_file();
    let report = service(
        &string(&hub.host()),
        &["d", "--ca-file", ca_file.to_str().unwrap()],
    )
    .await;
    assert!(report.stuck_at().is_none(), "{}", report.sentence());
}
