//! What strangers and local programs send first: to the proxy port of service-proxy, to the admin
//! listeners, to the hub's ports; and what a status socket answers.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;

use common::admin::{self, Metrics, NotReady, Program};
use common::outside::is_unprintable;
use common::status;
use hub::listeners::{amqp, head};
use serde_json::Value;
use service_proxy::host_names::HostNames;
use service_proxy::local::socks::request::{self, Client};
use service_proxy::local::socks::{Kind, Protocol, Refusal, Unasked};
use tokio::runtime::{Builder, Runtime};

use crate::pieces::{Pieces, finished};

/// Gives a peer's first bytes to everything that reads them, in pieces of a size that the first byte
/// says.
pub fn run(input: &[u8]) {
    let Some((size, bytes)) = input.split_first() else {
        return;
    };
    let piece = usize::from(*size) + 1;
    proxy_port(bytes, piece);
    admin_port(bytes, piece);
    hub_ports(bytes, piece);
    status_document(bytes);
}

impl Client for Pieces<'_> {
    async fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let next = self.next(buffer.len());
        buffer[..next.len()].copy_from_slice(next);
        Ok(next.len())
    }
}

/// A request asks for one host and port, and takes no byte behind it; all others have an answer that
/// is none of success.
fn proxy_port(bytes: &[u8], piece: usize) {
    let mut socket = Pieces::new(bytes, piece);
    match finished(request::read(&mut socket)) {
        Ok((protocol, asked)) => {
            let taken = bytes.len() - socket.unread().len();
            if protocol == Protocol::Http {
                assert!(bytes[..taken].ends_with(b"\n"));
            }
            let _ = HostNames::default().find(&asked.host, &asked.port);
            let before = socket.written().len();
            finished(request::accept(&mut socket, protocol)).expect("it takes everything");
            check_answer(protocol, &socket.written()[before..], true);
            assert_eq!(bytes.len() - socket.unread().len(), taken);
        }
        Err(Unasked::Refused(protocol, refusal)) => {
            let before = socket.written().len();
            let refusing = request::refuse(&mut socket, protocol, &refusal);
            finished(refusing).expect("it takes everything");
            check_answer(protocol, &socket.written()[before..], false);
        }
        // Those that it does not understand are answered by a failure, if at all.
        Err(Unasked::Foreign(_)) => match socket.written() {
            [] | [0, 0x5b, ..] | [5, 0xff] => {}
            [5, 0, rest @ ..] => assert!(!rest.starts_with(&[5, 0]), "{rest:?}"),
            other => panic!("{other:?}"),
        },
        Err(Unasked::Lost(_)) => {}
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let refusal = Refusal {
            kind: Kind::NotAllowed,
            text: text.to_owned(),
        };
        let mut socket = Pieces::new(&[], 1);
        finished(request::refuse(&mut socket, Protocol::Http, &refusal)).expect("it ends");
        check_answer(Protocol::Http, socket.written(), false);
    }
}

fn check_answer(protocol: Protocol, answer: &[u8], is_success: bool) {
    match protocol {
        Protocol::Socks5 => {
            assert_eq!((answer.len(), answer[0]), (10, 5));
            assert_eq!(answer[1] == 0, is_success);
        }
        Protocol::Http => {
            let text = std::str::from_utf8(answer).expect("text");
            let (head, body) = text.split_once("\r\n\r\n").expect("a head");
            assert_eq!(head.starts_with("HTTP/1.1 2"), is_success, "{head}");
            assert!(is_success || body.lines().count() <= 1, "{body}");
        }
    }
}

/// A program that is never ready.
struct Admin(Metrics);

impl Program for Admin {
    fn metrics(&self) -> &Metrics {
        &self.0
    }

    fn not_ready(&self) -> Pin<Box<dyn Future<Output = NotReady> + Send + '_>> {
        Box::pin(std::future::ready(vec!["it is a test".to_owned()]))
    }
}

thread_local! {
    static ADMIN: RefCell<Option<(Runtime, Admin)>> = const { RefCell::new(None) };
}

/// Each client that does not leave has one answer, and one of success only to GET and HEAD.
fn admin_port(bytes: &[u8], piece: usize) {
    ADMIN.with_borrow_mut(|admin| {
        let (runtime, program) = admin.get_or_insert_with(|| {
            let runtime = Builder::new_current_thread().enable_time().build();
            let metrics = Metrics::new("test", "0", |_| {});
            (runtime.expect("a runtime"), Admin(metrics))
        });
        for is_open in [false, true] {
            let mut socket = Pieces::new(bytes, piece);
            runtime.block_on(admin::serve(&mut socket, program, is_open));
            let answer = socket.written();
            if answer.is_empty() {
                continue;
            }
            let answer = std::str::from_utf8(answer).expect("text");
            assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
            if answer.starts_with("HTTP/1.1 200 ") {
                // Empty lines may stand before a request.
                let request = bytes.trim_ascii_start();
                assert!(request.starts_with(b"GET /") || request.starts_with(b"HEAD /"));
            }
        }
    });
}

/// The head of a first request is what the client has sent, and nothing is lost of what is behind
/// it; what is AMQP is never more than refused.
fn hub_ports(bytes: &[u8], piece: usize) {
    let mut stream = Pieces::new(bytes, piece);
    match finished(head::read_head(&mut stream)) {
        Some(head) => assert_eq!([&head[..], stream.unread()].concat(), bytes),
        None => {
            let answer = stream.written();
            assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431 "));
        }
    }
    let mut stream = Pieces::new(bytes, piece);
    let conversation = finished(amqp::converse(&mut stream, "hub.example.net"));
    let closes = |written: &[u8]| {
        let reason = b"amqp:not-implemented";
        written.windows(reason.len()).any(|part| part == reason)
    };
    assert_eq!(conversation.is_ok(), closes(stream.written()));
}

/// What another program says of itself is printed without anything that a terminal obeys.
fn status_document(bytes: &[u8]) {
    let Ok(document) = serde_json::from_slice::<Value>(bytes) else {
        return;
    };
    for width in [None, Some(40)] {
        let text = status::print(std::slice::from_ref(&document), width);
        assert!(
            !text.chars().any(|it| it != '\n' && is_unprintable(it)),
            "{text:?}"
        );
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn corpus() {
        crate::corpus::play("listeners", super::run);
    }
}
