use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

use super::*;
use crate::report;

/// A host that answers the upgrade with what `answer` makes of the request's key, and leaves.
async fn asked(answer: impl FnOnce(&str) -> String) -> Result<Bytes, ConnectError> {
    asked_via(&Via::default(), answer).await
}

/// The same through a proxy, perhaps.
async fn asked_via(via: &Via, answer: impl FnOnce(&str) -> String) -> Result<Bytes, ConnectError> {
    let (near, mut far) = duplex(1 << 16);
    let uri = Uri::from_static("wss://h.example.net/p");
    let header = (header::AUTHORIZATION, HeaderValue::from_static("Bearer x"));
    let host = async {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            far.read_buf(&mut request).await.unwrap();
        }
        let request = String::from_utf8(request).unwrap();
        let key = request
            .lines()
            .find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "))
            .unwrap();
        let accept = derive_accept_key(key.as_bytes());
        far.write_all(answer(&accept).as_bytes()).await.unwrap();
        drop(far);
    };
    let (result, ()) = tokio::join!(
        upgrade(near, uri, ("h.example.net", 443, via), header),
        host
    );
    result.map(|(_, read)| read)
}

#[tokio::test]
async fn what_comes_behind_the_answer_is_kept() {
    let answer = |accept: &str| {
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\n\
             connection: keep-alive, Upgrade\r\nsec-websocket-accept: {accept}\r\n\r\nfirst"
        )
    };
    assert_eq!(asked(answer).await.unwrap(), "first");
}

#[tokio::test]
async fn a_failure_names_its_cause_once_and_no_secret() {
    let endless = format!("HTTP/1.1 101 OK\r\nx: {}", "y".repeat(20_000));
    for (answer, cause) in [
        ("HTTP/1.1 1", "it ended without a Close"),
        (
            "SSH-2.0-x\r\n",
            "WebSocket protocol error: httparse error: invalid HTTP version",
        ),
        (&endless, "its answer is too long"),
        (
            "HTTP/1.1 101 OK\r\n\r\n",
            "its answer is not that of a WebSocket server",
        ),
    ] {
        let error = asked(|_| answer.to_owned()).await.unwrap_err();
        assert_eq!(
            report::chain(&error),
            format!("the WebSocket upgrade at h.example.net:443 failed: {cause}")
        );
        assert!(!format!("{error:?}").contains("Bearer"), "{error:?}");
    }
}

#[tokio::test]
async fn other_answers_are_refused() {
    let refused = asked(|_| "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n".into()).await;
    assert!(
        matches!(&refused, Err(ConnectError::Refused { status, .. }) if status.as_u16() == 401),
        "{refused:?}"
    );
    for head in [
        "upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: rubbish",
        "upgrade: websocket\r\nconnection: upgrade",
        "upgrade: h2c\r\nconnection: upgrade",
        "x: y",
    ] {
        let answer = format!("HTTP/1.1 101 Switching Protocols\r\n{head}\r\n\r\n");
        let refused = asked(|_| answer).await;
        assert!(
            matches!(refused, Err(ConnectError::Handshake { .. })),
            "{head}: {refused:?}"
        );
    }
    let endless = format!(
        "HTTP/1.1 101 Switching Protocols\r\nx: {}",
        "y".repeat(20_000)
    );
    let refused = asked(|_| endless).await;
    assert!(
        matches!(refused, Err(ConnectError::Handshake { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn behind_a_proxy_a_strange_answer_is_explained() {
    let via = Via::proxy(&"proxy.corp:3128".into());
    let through = async |answer: &str| {
        let answer = answer.to_owned();
        report::chain(&asked_via(&via, |_| answer).await.unwrap_err())
    };
    for answer in [
        "HTTP/1.1 403 Forbidden\r\n\r\n",
        "HTTP/1.1 101 OK\r\n\r\n",
        "HTTP/1.1 1",
    ] {
        let text = through(answer).await;
        assert!(
            text.contains(" through the proxy proxy.corp:3128")
                && text.contains("let WebSockets through"),
            "{text}"
        );
    }
    let text = through("HTTP/1.1 404 Not Found\r\n\r\n").await;
    assert!(
        !text.contains("WebSockets through"),
        "a hub answers so, too: {text}"
    );
}
