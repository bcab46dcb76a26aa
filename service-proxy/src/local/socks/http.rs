//! HTTP/1: the method CONNECT (RFC 9110, section 9.3.6), and a sentence for everything else.

use common::outside::printable;
use http::StatusCode;
use tokio::io::AsyncReadExt as _;

use super::asked::{Asked, Protocol, Unasked, refused};
use super::refusal::{Kind, Refusal};
use super::request::Client;

/// The tunnel is open.
pub(super) const SUCCESS: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";
/// Largest head of a request: as browsers and servers have it.
const HEAD: usize = 16 << 10;
/// The most lines of a head.
const LINES: usize = 100;

/// The answer that refuses a request.
pub(super) fn refusal(refusal: &Refusal) -> Vec<u8> {
    let status = refusal.kind.status();
    let allow = if status == StatusCode::METHOD_NOT_ALLOWED {
        "Allow: CONNECT\r\n"
    } else {
        ""
    };
    let body = printable(&refusal.text);
    format!(
        "HTTP/1.1 {} {}\r\n{allow}Content-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}\n",
        status.as_u16(),
        status.canonical_reason().unwrap_or_default(),
        body.len() + 1,
    )
    .into_bytes()
}

/// Reads the head of a request, and nothing behind it.
pub(super) async fn read<S: Client>(socket: &mut S) -> Result<Asked, Unasked> {
    let mut head = Vec::new();
    let mut peeked = [0; 1024];
    loop {
        // Parsed before it is taken, so that what stands behind the head stays in the socket.
        let count = socket.peek(&mut peeked).await?;
        let new = peeked.get(..count).unwrap_or_default();
        if new.is_empty() {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
        let before = head.len();
        head.extend_from_slice(new);
        let parsed = parse(&head);
        let end = match &parsed {
            Ok(Some((end, _))) => end.saturating_sub(before),
            Ok(None) | Err(_) => count,
        };
        let taken = peeked.get_mut(..end).unwrap_or_default();
        socket.read_exact(taken).await?;
        match parsed {
            Ok(Some((_, asked))) => return Ok(asked),
            Ok(None) if head.len() < HEAD => {}
            Ok(None) => {
                let text = format!("the head of the request is larger than {HEAD} bytes");
                return Err(refused(Protocol::Http, Kind::Malformed, text));
            }
            Err(refusal) => return Err(Unasked::Refused(Protocol::Http, refusal)),
        }
    }
}

/// The length of a head, and what it asks for; `None` while it has no end.
fn parse(bytes: &[u8]) -> Result<Option<(usize, Asked)>, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; LINES];
    let mut request = httparse::Request::new(&mut headers);
    let end = match request.parse(bytes) {
        Ok(httparse::Status::Complete(end)) => end,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => {
            let text = format!("the request is not HTTP/1: {error}");
            return Err(Refusal::new(Kind::Malformed, text));
        }
    };
    let (method, target) = (
        request.method.unwrap_or_default(),
        request.path.unwrap_or_default(),
    );
    if method != "CONNECT" {
        let text = format!(
            "{method} is not supported: this proxy only makes tunnels (CONNECT); for http:// URLs use it as a SOCKS5 proxy (socks5h)"
        );
        return Err(Refusal::new(Kind::Command, text));
    }
    match target.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() => Ok(Some((
            end,
            Asked {
                host: host.to_owned(),
                port: port.to_owned(),
            },
        ))),
        _ => {
            let text = format!("{target:?} is not HOST:PORT");
            Err(Refusal::new(Kind::Malformed, text))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt as _;

    use super::super::asked::tests::pair;
    use super::*;

    fn asked(text: &str) -> Result<Option<(String, String)>, Kind> {
        match parse(text.as_bytes()) {
            Ok(Some((end, asked))) => {
                assert_eq!(end, text.len());
                Ok(Some((asked.host, asked.port)))
            }
            Ok(None) => Ok(None),
            Err(refusal) => Err(refusal.kind),
        }
    }

    #[test]
    fn host_and_port_are_asked_for() {
        let pair = |host: &str, port: &str| Ok(Some((host.to_owned(), port.to_owned())));
        let head = "Host: x\r\nProxy-Connection: keep-alive\r\n\r\n";
        assert_eq!(
            asked(&format!("CONNECT MyDevice.device:22 HTTP/1.1\r\n{head}")),
            pair("MyDevice.device", "22")
        );
        assert_eq!(
            asked("CONNECT MyDevice.device:ssh HTTP/1.0\r\n\r\n"),
            pair("MyDevice.device", "ssh")
        );
        assert_eq!(
            asked("CONNECT [::1]:22 HTTP/1.1\r\n\r\n"),
            pair("[::1]", "22")
        );
        assert_eq!(asked("CONNECT MyDevice.dev"), Ok(None));
        for (text, kind) in [
            (
                "GET http://MyDevice.device/ HTTP/1.1\r\n\r\n",
                Kind::Command,
            ),
            ("CONNECT MyDevice.device HTTP/1.1\r\n\r\n", Kind::Malformed),
            ("CONNECT :22 HTTP/1.1\r\n\r\n", Kind::Malformed),
            ("CONNECT a:1 HTTP/3.0\r\n\r\n", Kind::Malformed),
            ("CONNECT a:1\u{7} HTTP/1.1\r\n\r\n", Kind::Malformed),
        ] {
            assert_eq!(asked(text), Err(kind), "{text}");
        }
    }

    #[tokio::test]
    async fn nothing_behind_the_head_is_taken() {
        let head = format!(
            "CONNECT a.device:22 HTTP/1.1\r\nX: {}\r\n\r\n",
            "y".repeat(3000)
        );
        let (mut client, mut socket) = pair().await;
        client.write_all(head.as_bytes()).await.unwrap();
        client.write_all(b"early").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(read(&mut socket).await.unwrap().host, "a.device");
        let mut rest = Vec::new();
        socket.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"early");
    }

    #[tokio::test]
    async fn an_endless_head_is_refused() {
        let (mut client, mut socket) = pair().await;
        let sending = async move {
            let _ = client
                .write_all(b"CONNECT a.device:22 HTTP/1.1\r\nX: ")
                .await;
            let _ = client.write_all(&vec![b'y'; 2 * HEAD]).await;
            client
        };
        let (read, _client) = tokio::join!(read(&mut socket), sending);
        let Err(Unasked::Refused(_, refusal)) = read else {
            panic!("it was not refused")
        };
        assert_eq!(refusal.kind, Kind::Malformed);
    }

    #[test]
    fn a_refusal_is_an_answer_of_one_sentence() {
        let text = "no\u{1b}[2J stream\r\nX: y";
        let answer = refusal(&Refusal::new(Kind::Command, text));
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 405 Method Not Allowed\r\nAllow: CONNECT\r\n"));
        assert!(head.contains(&format!("Content-Length: {}", body.len())));
        assert_eq!(body.lines().count(), 1, "{body}");
        assert!(!body.contains('\u{1b}'));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_request_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(Some((end, _))) = parse(&bytes) {
                prop_assert!(end <= bytes.len());
            }
        }
    }
}
