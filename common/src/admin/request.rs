//! One request, and its answer; then the connection is closed.

use std::net::IpAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

/// How long a client may take to ask.
const ASKING: Duration = Duration::from_secs(5);
/// How long it may take to read the answer.
const TAKING: Duration = Duration::from_secs(10);
/// Largest head of a request.
const HEAD: usize = 8 << 10;
/// Most header lines.
const HEADERS: usize = 64;
/// The most that is read behind the head before the connection is closed.
const REST: u64 = 64 << 10;

/// Plain text.
pub(super) const TEXT: &str = "text/plain; charset=utf-8";

/// What there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Metrics,
    Health,
    Readiness,
}

/// What there is instead of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refused {
    NotHttp,
    TooLarge,
    TooSlow,
    /// The request came to a name that is not this machine's: a web page may have made a browser
    /// ask (DNS rebinding).
    OtherHost,
    NoSuchPath,
    OtherMethod,
}

/// Reads one request, writes what `answer` has for it, and ends the connection. Ends by itself.
pub(super) async fn converse<S>(
    socket: &mut S,
    is_open: bool,
    answer: impl AsyncFnOnce(Asked) -> Vec<u8>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let head = match timeout(ASKING, read_head(socket)).await {
        Ok(Ok(head)) => read(&head, is_open),
        Ok(Err(Some(refused))) => Err(refused),
        // It has left.
        Ok(Err(None)) => return,
        Err(_) => Err(Refused::TooSlow),
    };
    let mut response = match head {
        Ok((asked, _)) => answer(asked).await,
        Err(refused) => refuse(refused),
    };
    if let Ok((_, true)) = head {
        let end = find_end(&response).unwrap_or(response.len());
        response.truncate(end);
    }
    let _ = timeout(TAKING, async {
        socket.write_all(&response).await?;
        socket.shutdown().await?;
        // What is not read yet would make the system cut the connection, and the answer with it.
        let mut rest = socket.take(REST);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    })
    .await;
}

/// The head of a request, with its empty line; `None` as error: the client has left.
async fn read_head<S: AsyncRead + Unpin>(socket: &mut S) -> Result<Vec<u8>, Option<Refused>> {
    let mut head = Vec::with_capacity(1024);
    loop {
        let mut part = [0; 1024];
        match socket.read(&mut part).await {
            Ok(0) | Err(_) => return Err(None),
            Ok(length) => head.extend(part.iter().take(length)),
        }
        if let Some(end) = find_end(&head) {
            head.truncate(end);
            return Ok(head);
        }
        if head.len() >= HEAD {
            return Err(Some(Refused::TooLarge));
        }
    }
}

/// Where a head ends, behind its empty line.
fn find_end(bytes: &[u8]) -> Option<usize> {
    let at = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    Some(at + 4)
}

/// What is asked for, and whether for the head of the answer alone.
fn read(head: &[u8], is_open: bool) -> Result<(Asked, bool), Refused> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => return Err(Refused::TooLarge),
        _ => return Err(Refused::NotHttp),
    }
    let mut hosts = request
        .headers
        .iter()
        .filter(|header| header.name.eq_ignore_ascii_case("host"));
    if !is_open && !hosts.all(|host| is_here(host.value)) {
        return Err(Refused::OtherHost);
    }
    let path = request.path.unwrap_or_default();
    let path = path.split('?').next().unwrap_or_default();
    let asked = match path {
        "/metrics" => Asked::Metrics,
        "/healthz" => Asked::Health,
        "/readyz" => Asked::Readiness,
        _ => return Err(Refused::NoSuchPath),
    };
    match request.method {
        Some("GET") => Ok((asked, false)),
        Some("HEAD") => Ok((asked, true)),
        _ => Err(Refused::OtherMethod),
    }
}

/// Whether a Host header names an address or this machine, and not some name that a web page has
/// for it.
fn is_here(host: &[u8]) -> bool {
    let Ok(host) = std::str::from_utf8(host) else {
        return false;
    };
    let host = host.trim();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

fn refuse(refused: Refused) -> Vec<u8> {
    let (code, reason, text) = match refused {
        Refused::NotHttp => (400, "Bad Request", "this is no request of HTTP/1.1\n"),
        Refused::TooLarge => (
            431,
            "Request Header Fields Too Large",
            "the head of the request is too large\n",
        ),
        Refused::TooSlow => (408, "Request Timeout", "the request took too long\n"),
        Refused::OtherHost => (
            403,
            "Forbidden",
            "ask by the address or as localhost: other names are refused\n",
        ),
        Refused::NoSuchPath => (
            404,
            "Not Found",
            "there are /metrics, /healthz and /readyz\n",
        ),
        Refused::OtherMethod => (405, "Method Not Allowed", "there are GET and HEAD\n"),
    };
    respond(code, reason, TEXT, text)
}

/// An answer, after which the connection is closed.
pub(super) fn respond(code: u16, reason: &str, kind: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    let allow = if code == 405 {
        "Allow: GET, HEAD\r\n"
    } else {
        ""
    };
    format!(
        "HTTP/1.1 {code} {reason}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{allow}Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(head: &str, is_open: bool) -> Result<(Asked, bool), Refused> {
        read(head.as_bytes(), is_open)
    }

    #[test]
    fn three_paths_and_two_methods() {
        for (line, expected) in [
            ("GET /metrics", Ok((Asked::Metrics, false))),
            ("GET /metrics?name[]=up", Ok((Asked::Metrics, false))),
            ("HEAD /healthz", Ok((Asked::Health, true))),
            ("GET /readyz", Ok((Asked::Readiness, false))),
            ("GET /", Err(Refused::NoSuchPath)),
            ("GET /metrics/", Err(Refused::NoSuchPath)),
            ("GET http://127.0.0.1/metrics", Err(Refused::NoSuchPath)),
            ("POST /metrics", Err(Refused::OtherMethod)),
        ] {
            let head = format!("{line} HTTP/1.1\r\nHost: 127.0.0.1:9464\r\n\r\n");
            assert_eq!(asked(&head, false), expected, "{line}");
        }
        assert_eq!(asked("\x16\x03\x01\r\n\r\n", false), Err(Refused::NotHttp));
        let many = "a: b\r\n".repeat(HEADERS + 1);
        let head = format!("GET /metrics HTTP/1.1\r\n{many}\r\n");
        assert_eq!(asked(&head, false), Err(Refused::TooLarge));
    }

    #[test]
    fn a_page_in_a_browser_cannot_ask_by_a_name_of_its_own() {
        for (host, is_taken) in [
            ("127.0.0.1:9464", true),
            ("[::1]:9464", true),
            ("[::1]", true),
            ("localhost", true),
            ("LocalHost:80", true),
            ("evil.example", false),
            ("evil.example:9464", false),
            ("127.0.0.1.evil.example", false),
            ("", false),
        ] {
            let head = format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n");
            assert_eq!(asked(&head, false).is_ok(), is_taken, "{host}");
            assert!(asked(&head, true).is_ok(), "{host}");
        }
        // Two of them are no way around it.
        let head = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n";
        assert_eq!(asked(head, false), Err(Refused::OtherHost));
    }
}
