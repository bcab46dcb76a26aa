//! What proxies on the way to a hub answer: to HTTP CONNECT with all our ways to log in, and to
//! SOCKS5.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::net::proxy::connect::{self, Answer};
use common::net::proxy::socks::{self, Destination};
use common::net::proxy::{Credentials, Login, Scheme};

use crate::pieces::{Pieces, finished};

/// Requests of one attempt, as the dialer has them.
const REQUESTS: usize = 6;
const TARGET: &str = "hub.example.net:443";
/// Stands in an input for the rest of its line in base64, as a message of NTLM is sent.
const ENCODED: &[u8] = b"%base64 ";

/// Gives a proxy's bytes to everything that asks one. The first byte says the size of the pieces and
/// who we are.
pub fn run(input: &[u8]) {
    let Some((first, bytes)) = input.split_first() else {
        return;
    };
    let piece = usize::from(first >> 2) + 1;
    let credentials = match first & 3 {
        0 => None,
        1 => Some("ada:lovelace"),
        2 => Some("CORP\\ada:lovelace"),
        _ => Some("ada@corp.example:pass:word"),
    };
    let credentials = credentials.map(|text| Credentials::parse(text).expect("credentials"));
    let encoded = encoded(bytes);
    for scheme in [
        None,
        Some(Scheme::Basic),
        Some(Scheme::Ntlm),
        Some(Scheme::Negotiate),
    ] {
        http(&encoded, piece, credentials.as_ref(), scheme);
    }
    for destination in [
        Destination::Name("hub.example.net", 443),
        Destination::Address(([192, 0, 2, 1], 443).into()),
    ] {
        socks5(bytes, piece, credentials.as_ref(), destination);
    }
}

/// With what stands for messages in base64 in its place.
fn encoded(bytes: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::new();
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let place = line.windows(ENCODED.len()).position(|part| part == ENCODED);
        let Some(at) = place else {
            encoded.extend_from_slice(line);
            continue;
        };
        let (before, message) = line.split_at(at);
        let message = &message[ENCODED.len()..];
        let message = message.strip_suffix(b"\r\n").unwrap_or(message);
        encoded.extend_from_slice(before);
        encoded.extend_from_slice(STANDARD.encode(message).as_bytes());
        encoded.extend_from_slice(b"\r\n");
    }
    encoded
}

/// Asks as often as the dialer does, over one connection.
fn http(bytes: &[u8], piece: usize, credentials: Option<&Credentials>, scheme: Option<Scheme>) {
    let mut login = Login::new(credentials.cloned(), scheme);
    let mut stream = Pieces::new(bytes, piece);
    let mut asked = 0;
    for _ in 0..REQUESTS {
        let answer = finished(connect::ask(&mut stream, TARGET, &mut login));
        asked += 1;
        match answer {
            Ok(Answer::Again { is_reusable: true }) => {}
            Ok(Answer::Open(early)) => {
                // What stands behind the answer is the target's, and no byte of it is lost.
                let rest = [&early[..], stream.unread()].concat();
                assert!(bytes.ends_with(&rest));
                break;
            }
            Ok(Answer::Again { is_reusable: false }) | Err(_) => break,
        }
    }
    let written = std::str::from_utf8(stream.written()).expect("text");
    assert!(written.ends_with("\r\n\r\n"));
    let requests: Vec<_> = written.split_terminator("\r\n\r\n").collect();
    assert_eq!(requests.len(), asked, "{written}");
    for request in requests {
        let mut lines = request.split("\r\n");
        assert_eq!(
            lines.next(),
            Some("CONNECT hub.example.net:443 HTTP/1.1"),
            "{request}"
        );
        let sent = lines.filter(|line| line.starts_with("Proxy-Authorization: "));
        assert!(sent.count() <= usize::from(credentials.is_some()));
    }
}

fn socks5(
    bytes: &[u8],
    piece: usize,
    credentials: Option<&Credentials>,
    destination: Destination<'_>,
) {
    let stream = Pieces::new(bytes, piece);
    if let Ok(stream) = finished(socks::ask(stream, destination, credentials)) {
        // What it has read is what a proxy that lets us through sends, and no more.
        let read = &bytes[..bytes.len() - stream.unread().len()];
        let chosen = read.get(..2).expect("a method");
        assert!(matches!(chosen, [5, 0 | 2]), "{chosen:?}");
        let skipped = if chosen[1] == 2 { 4 } else { 2 };
        let reply = read.get(skipped..).expect("a reply");
        assert!(reply.starts_with(&[5, 0, 0]), "{reply:?}");
        let address = match reply[3] {
            1 => 4,
            4 => 16,
            _ => 1 + usize::from(reply[4]),
        };
        assert_eq!(reply.len(), 4 + address + 2);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn corpus() {
        crate::corpus::play("proxy_answers", super::run);
    }
}
