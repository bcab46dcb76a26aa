//! Texts that would change how a line reads, and the messages that carry them.

use common::websocket::{Incoming, WebSocket};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tests::raw_hub::Stream;
use tokio::io::AsyncReadExt as _;

/// Control characters, separators, and characters that change the direction of text or are
/// invisible.
pub(crate) fn characters() -> Vec<char> {
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

/// Texts of at most this many bytes that contain all of these characters but the excluded ones.
/// Each begins with the marker, and tries to be a line of its own.
pub(crate) fn texts(mark: &str, most: usize, without: &[char]) -> Vec<String> {
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

/// All characters in one text.
pub(crate) fn text(mark: &str) -> String {
    texts(mark, usize::MAX, &[]).remove(0)
}

pub(crate) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// Checks lines for display: none of the characters is in them, and no line begins with the marker.
#[track_caller]
pub(crate) fn check(lines: &str, marks: &[&str]) {
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

pub(crate) const KEY: &str = "AAECAwQFBgcICQoLDA0ODw==";

/// A Close of the server, with any reason.
pub(crate) fn close(code: u16, reason: &str) -> Vec<u8> {
    let length = u8::try_from(reason.len() + 2).unwrap();
    assert!(length < 126);
    [&[0x88, length][..], &code.to_be_bytes(), reason.as_bytes()].concat()
}

/// A frame of a session's carrier, or of a connection in it, as none of our programs would write
/// it.
pub(crate) fn frame(kind: u8, connection: Option<u32>, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let connection = connection.map(u32::to_be_bytes);
    let connection = connection.as_ref().map_or(&[][..], |it| it);
    [&[kind][..], &length, connection, payload].concat()
}

/// A reason and a text.
pub(crate) fn reason(code: u8, words: &str) -> Vec<u8> {
    [&[code], words.as_bytes()].concat()
}

/// Waits for the answer to a Close; dropping the stream then ends the connection.
pub(crate) async fn answered(stream: &mut Stream) {
    let mut bytes = [0; 1024];
    while let Ok(count @ 1..) = stream.read(&mut bytes).await {
        // A Close with a code is eight bytes, masked, and the last frame.
        if count >= 8 && bytes[count - 8] == 0x88 {
            return;
        }
    }
}

/// Waits until the other end closes.
pub(crate) async fn left(mut leg: WebSocket<Stream>) {
    while let Ok(Incoming::Data(_)) = std::future::poll_fn(|cx| leg.poll_incoming(cx)).await {}
}
