//! The WebSocket decoder on any bytes.

use std::io::{self, Cursor, Read, Write};

use bytes::Bytes;
use device_stream_websocket::{Decoder, Event, Kind, ViolationError};
use tungstenite::Message;
use tungstenite::protocol::{Role, WebSocketConfig};

/// Largest message: small, so that a short input can exceed it.
const LIMIT: usize = 4 << 10;

/// Decodes bytes as frames, whole, in pieces, and with another implementation. All must give the
/// same messages. The first byte selects the end that reads, four more are the sizes of the pieces.
///
/// # Panics
/// When they differ.
pub fn frames(input: &[u8]) {
    let Some((first, rest)) = input.split_first() else {
        return;
    };
    let is_server = first % 2 == 1;
    let (sizes, bytes) = rest.split_at(rest.len().min(4));
    let whole = ours(is_server, bytes, &[]);
    assert_eq!(whole, ours(is_server, bytes, sizes));
    let (received, violation) = whole;
    let (other, is_violation) = theirs(is_server, bytes);
    if violation.is_none() && !is_violation {
        assert_eq!(received, other);
    } else {
        // The order of the checks determines how much is received before the violation.
        assert!(received.iter().zip(&other).all(|(one, other)| one == other));
    }
}

/// What a peer has sent, up to its Close.
#[derive(Debug, PartialEq, Eq)]
enum Received {
    Data(Kind, Bytes),
    Ping(Bytes),
    Pong,
    Close,
}

fn ours(is_server: bool, bytes: &[u8], sizes: &[u8]) -> (Vec<Received>, Option<ViolationError>) {
    let mut decoder = Decoder::new(is_server, LIMIT, &[]);
    let mut received = Vec::new();
    let mut rest = bytes;
    let mut sizes = sizes.iter().cycle();
    while !rest.is_empty() {
        let size = sizes.next().map_or(rest.len(), |size| usize::from(*size));
        let (piece, later) = rest.split_at(size.clamp(1, rest.len()));
        decoder.buffer().extend_from_slice(piece);
        rest = later;
        loop {
            match decoder.next_event() {
                Ok(Some(Event::Data(data))) => {
                    received.push(Received::Data(data.kind(), data.into_bytes()))
                }
                Ok(Some(Event::Nothing)) => {}
                Ok(Some(Event::Ping(payload))) => received.push(Received::Ping(payload)),
                Ok(Some(Event::Pong)) => received.push(Received::Pong),
                Ok(Some(Event::Close(_))) => {
                    received.push(Received::Close);
                    return (received, None);
                }
                Ok(None) => break,
                Err(violation) => return (received, Some(violation)),
            }
            assert!(decoder.missing() >= 1);
        }
    }
    (received, None)
}

/// Bytes to read; written bytes are discarded.
struct Recorded<'a>(Cursor<&'a [u8]>);

impl Read for Recorded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Recorded<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What the other implementation received, and whether it found a violation.
fn theirs(is_server: bool, bytes: &[u8]) -> (Vec<Received>, bool) {
    let role = if is_server {
        Role::Server
    } else {
        Role::Client
    };
    let config = WebSocketConfig::default()
        .max_message_size(Some(LIMIT))
        .max_frame_size(Some(LIMIT));
    let recorded = Recorded(Cursor::new(bytes));
    let mut socket = tungstenite::WebSocket::from_raw_socket(recorded, role, Some(config));
    let mut received = Vec::new();
    loop {
        match socket.read() {
            Ok(Message::Binary(bytes)) => received.push(Received::Data(Kind::Binary, bytes)),
            Ok(Message::Text(text)) => received.push(Received::Data(Kind::Text, text.into())),
            Ok(Message::Ping(payload)) => received.push(Received::Ping(payload)),
            Ok(Message::Pong(_)) => received.push(Received::Pong),
            Ok(Message::Close(_)) => {
                received.push(Received::Close);
                return (received, false);
            }
            Ok(Message::Frame(_)) => {}
            Err(error) => {
                let is_end = matches!(
                    error,
                    tungstenite::Error::Protocol(
                        tungstenite::error::ProtocolError::ResetWithoutClosingHandshake
                    )
                );
                return (received, !is_end);
            }
        }
        // Our decoder ignores empty messages.
        if matches!(received.last(), Some(Received::Data(_, bytes)) if bytes.is_empty()) {
            received.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use device_stream_websocket::{Header, Opcode, mask};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_corpus_of_the_fuzz_target() {
        crate::corpus::play("websocket_frames", frames);
    }

    proptest! {
        /// Frames of any kind in any order, and in any pieces.
        #[test]
        fn any_frames_are_decoded_as_by_another_implementation(
            is_server: bool,
            sizes: [u8; 4],
            pieces in prop::collection::vec(
                (any::<bool>(), 0usize..6, any::<[u8; 4]>(), prop::collection::vec(any::<u8>(), 0..140)),
                1..8,
            ),
        ) {
            let opcodes = [
                Opcode::Continuation,
                Opcode::Text,
                Opcode::Binary,
                Opcode::Close,
                Opcode::Ping,
                Opcode::Pong,
            ];
            let mut input = vec![u8::from(is_server)];
            input.extend(sizes);
            for (is_final, opcode, mask, payload) in pieces {
                let mask = is_server.then_some(mask);
                let header = Header {
                    is_final,
                    opcode: opcodes[opcode],
                    mask,
                    length: payload.len() as u64,
                };
                header.write(&mut input);
                let start = input.len();
                input.extend(payload);
                mask::apply(&mut input[start..], mask.unwrap_or_default());
            }
            super::frames(&input);
        }
    }
}
