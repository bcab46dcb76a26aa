mod utf8;

use bytes::BufMut as _;
use proptest::prelude::*;
use tokio_tungstenite::tungstenite;
use tungstenite::Message as Foreign;
use tungstenite::protocol::Role;

use super::*;

const LIMIT: usize = 1 << 20;

fn frame(is_final: bool, opcode: Opcode, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let header = Header {
        is_final,
        opcode,
        mask,
        length: payload.len() as u64,
    };
    let mut bytes = Vec::new();
    header.write(&mut bytes);
    let start = bytes.len();
    bytes.put_slice(payload);
    mask::apply(&mut bytes[start..], mask.unwrap_or_default());
    bytes
}

fn data(kind: Kind, bytes: &[u8]) -> Event {
    Event::Data(Data::new(kind, Bytes::copy_from_slice(bytes)))
}

fn all(decoder: &mut Decoder) -> Result<Vec<Event>, ViolationError> {
    let mut events = Vec::new();
    while let Some(event) = decoder.next_event()? {
        events.push(event);
    }
    Ok(events)
}

fn client(bytes: &[u8]) -> Result<Vec<Event>, ViolationError> {
    all(&mut Decoder::new(false, LIMIT, bytes))
}

/// RFC 6455, 5.7.
#[test]
fn the_examples_of_the_standard() {
    let hello = data(Kind::Text, b"Hello");
    assert_eq!(
        client(&[0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]).unwrap(),
        [hello]
    );
    let masked = [
        0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
    ];
    let mut server = Decoder::new(true, LIMIT, &masked);
    assert_eq!(all(&mut server).unwrap(), [data(Kind::Text, b"Hello")]);
    let fragmented = [0x01, 0x03, 0x48, 0x65, 0x6c, 0x80, 0x02, 0x6c, 0x6f];
    assert_eq!(
        client(&fragmented).unwrap(),
        [Event::Nothing, data(Kind::Text, b"Hello")]
    );
    let ping = [0x89, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f];
    assert_eq!(
        client(&ping).unwrap(),
        [Event::Ping(Bytes::from_static(b"Hello"))]
    );
}

#[test]
fn control_frames_come_between_fragments() {
    let mut bytes = frame(false, Opcode::Binary, None, b"one ");
    bytes.extend(frame(true, Opcode::Pong, None, b""));
    bytes.extend(frame(true, Opcode::Continuation, None, b"two"));
    let expected = [Event::Nothing, Event::Pong, data(Kind::Binary, b"one two")];
    assert_eq!(client(&bytes).unwrap(), expected);
}

#[test]
fn empty_messages_are_nothing() {
    let mut bytes = frame(true, Opcode::Binary, None, b"");
    bytes.extend(frame(true, Opcode::Text, None, b""));
    assert_eq!(client(&bytes).unwrap(), [Event::Nothing, Event::Nothing]);
}

#[test]
fn large_messages_come_in_pieces_of_the_same_type() {
    let binary = vec![7; 2 * limits::STREAM_MESSAGE + 1];
    let lengths: Vec<usize> = client(&frame(true, Opcode::Binary, None, &binary))
        .unwrap()
        .iter()
        .map(|event| match event {
            Event::Data(data) => data.len(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(lengths, [limits::STREAM_MESSAGE, limits::STREAM_MESSAGE, 1]);

    // A character crosses the boundary.
    let text = format!("a{}", "ö".repeat(limits::STREAM_MESSAGE));
    let mut joined = String::new();
    for event in client(&frame(true, Opcode::Text, None, text.as_bytes())).unwrap() {
        let Event::Data(piece) = event else {
            panic!("{event:?}")
        };
        assert_eq!(piece.kind(), Kind::Text);
        assert!(piece.len() <= limits::STREAM_MESSAGE);
        joined += std::str::from_utf8(&piece.into_bytes()).unwrap();
    }
    assert_eq!(joined, text);
}

#[test]
fn the_limit_counts_all_fragments() {
    let whole = vec![1; LIMIT];
    assert!(client(&frame(true, Opcode::Binary, None, &whole)).is_ok());
    let mut bytes = frame(false, Opcode::Binary, None, &whole);
    bytes.extend(frame(true, Opcode::Continuation, None, b"x"));
    assert_eq!(
        client(&bytes),
        Err(ViolationError::TooLarge { limit: LIMIT })
    );
    // Refused because of its header, before its payload arrives.
    let head = frame(true, Opcode::Binary, None, &vec![0; LIMIT + 1]);
    assert_eq!(
        client(&head[..10]),
        Err(ViolationError::TooLarge { limit: LIMIT })
    );
}

#[test]
fn violations_are_refused() {
    let text = |bytes: &[u8]| frame(true, Opcode::Text, None, bytes);
    let close = |bytes: &[u8]| frame(true, Opcode::Close, None, bytes);
    let twice = |first, second| {
        let mut bytes = frame(false, first, None, b"x");
        bytes.extend(frame(true, second, None, b"y"));
        bytes
    };
    for (bytes, why) in [
        (
            frame(true, Opcode::Binary, Some([1; 4]), b"x"),
            ViolationError::Masked,
        ),
        (
            frame(true, Opcode::Continuation, None, b"x"),
            ViolationError::Continuation,
        ),
        (
            twice(Opcode::Binary, Opcode::Binary),
            ViolationError::Interrupted,
        ),
        (text(&[0xC3, 0x28]), ViolationError::Text),
        (text(&[0xC3]), ViolationError::Text),
        (close(&[3]), ViolationError::Close),
        (close(&1005u16.to_be_bytes()), ViolationError::Close),
        (close(&999u16.to_be_bytes()), ViolationError::Close),
        (close(&[3, 0xE8, 0xFF]), ViolationError::Reason),
    ] {
        assert_eq!(client(&bytes), Err(why), "{bytes:02x?}");
    }
    let unmasked = frame(true, Opcode::Binary, None, b"x");
    assert_eq!(
        all(&mut Decoder::new(true, LIMIT, &unmasked)),
        Err(ViolationError::Unmasked)
    );
}

#[test]
fn close_frames_are_read_and_cleaned() {
    let bytes = frame(true, Opcode::Close, None, b"\x03\xE8by\x1be");
    let expected = CloseFrame {
        code: 1000,
        reason: "bye".into(),
    };
    assert_eq!(client(&bytes).unwrap(), [Event::Close(expected)]);
    let silent = CloseFrame {
        code: CloseFrame::NO_CODE,
        reason: String::new(),
    };
    let bytes = frame(true, Opcode::Close, None, b"");
    assert_eq!(client(&bytes).unwrap(), [Event::Close(silent)]);
}

fn messages() -> impl Strategy<Value = Vec<Foreign>> {
    let message = prop_oneof![
        prop::collection::vec(any::<u8>(), 1..40_000).prop_map(Foreign::binary),
        "[a-zäöü€😀]{1,200}".prop_map(Foreign::text),
        prop::collection::vec(any::<u8>(), 0..125).prop_map(|bytes| Foreign::Ping(bytes.into())),
    ];
    prop::collection::vec(message, 1..12)
}

proptest! {
    /// Messages of another implementation are decoded, in pieces of any size.
    #[test]
    fn messages_of_another_implementation_are_decoded(
        messages in messages(),
        cuts in prop::collection::vec(1usize..9000, 1..40),
        role in prop_oneof![Just(Role::Client), Just(Role::Server)],
    ) {
        let mut written = Vec::new();
        let mut foreign = tungstenite::WebSocket::from_raw_socket(std::io::Cursor::new(&mut written), role, None);
        for message in &messages {
            foreign.send(message.clone()).unwrap();
        }
        drop(foreign);
        let mut decoder = Decoder::new(role == Role::Client, LIMIT, &[]);
        let mut events = Vec::new();
        let mut rest = written.as_slice();
        for cut in cuts.into_iter().cycle() {
            let (now, later) = rest.split_at(cut.min(rest.len()));
            decoder.buffer().extend_from_slice(now);
            events.extend(all(&mut decoder).unwrap());
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        let expected: Vec<Event> = messages
            .into_iter()
            .map(|message| match message {
                Foreign::Binary(bytes) => data(Kind::Binary, &bytes),
                Foreign::Text(text) => data(Kind::Text, text.as_bytes()),
                Foreign::Ping(bytes) => Event::Ping(bytes),
                other => panic!("{other:?}"),
            })
            .collect();
        prop_assert_eq!(events, expected);
    }

    /// Any bytes are decoded or refused, and no more data is returned than was sent.
    #[test]
    fn malformed_input_is_harmless(bytes in prop::collection::vec(any::<u8>(), 0..4000), is_server: bool) {
        let mut decoder = Decoder::new(is_server, LIMIT, &bytes);
        let mut taken = 0;
        while let Ok(Some(event)) = decoder.next_event() {
            if let Event::Data(data) = event {
                taken += data.len();
            }
        }
        prop_assert!(taken <= bytes.len());
        prop_assert!(decoder.missing() >= 1);
    }
}
