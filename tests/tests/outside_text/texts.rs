//! Texts that would change how a line reads, and how they are carried.

use bytes::Bytes;
use common::websocket::{Data, Incoming, WebSocket};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tests::raw_hub::Stream;
use tokio::io::AsyncReadExt as _;

/// Control characters, separators, and what changes the direction of text or is invisible.
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

/// Texts of so many bytes at most with all of these characters, but for those to leave out. Each
/// begins with the mark, and would be a line of its own if it could.
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

/// The same in one.
pub(crate) fn text(mark: &str) -> String {
    texts(mark, usize::MAX, &[]).remove(0)
}

pub(crate) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// Lines that somebody reads: none of the characters is in them, and none begins as another.
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

/// A frame of a session's carrier, or with a connection of what is in it, as no program of
/// ours writes it.
pub(crate) fn frame(kind: u8, connection: Option<u32>, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let connection = connection.map(u32::to_be_bytes);
    let connection = connection.as_ref().map_or(&[][..], |it| it);
    [&[kind][..], &length, connection, payload].concat()
}

/// A reason and words for it.
pub(crate) fn reason(code: u8, words: &str) -> Vec<u8> {
    [&[code], words.as_bytes()].concat()
}

/// Sends a message.
pub(crate) async fn say(leg: &mut WebSocket<Stream>, bytes: Vec<u8>) {
    std::future::poll_fn(|cx| leg.poll_ready(cx)).await.unwrap();
    leg.start_send(Data::binary(Bytes::from(bytes))).unwrap();
    std::future::poll_fn(|cx| leg.poll_flush(cx)).await.unwrap();
}

/// Waits for the answer to a Close; the connection ends when it is dropped.
pub(crate) async fn answered(stream: &mut Stream) {
    let mut bytes = [0; 1024];
    while let Ok(count @ 1..) = stream.read(&mut bytes).await {
        // A Close with a code is eight bytes, masked, and the last that comes.
        if count >= 8 && bytes[count - 8] == 0x88 {
            return;
        }
    }
}

/// Waits until the other end closes.
pub(crate) async fn left(mut leg: WebSocket<Stream>) {
    while let Ok(Incoming::Data(_)) = std::future::poll_fn(|cx| leg.poll_incoming(cx)).await {}
}
