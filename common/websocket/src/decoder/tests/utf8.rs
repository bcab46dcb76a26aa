//! Texts of Autobahn's cases 6, in one frame and byte by byte in fragments: valid UTF-8 arrives,
//! and other texts fail at the first invalid byte.

use super::*;

const VALID: &[&[u8]] = &[
    // 6.1 and 6.2: empty, and characters of two and three bytes.
    b"",
    "Hello-µ@ßöäüàá-UTF-8!!".as_bytes(),
    "κόσμε".as_bytes(),
    // 6.5: four bytes.
    "\u{1d11e}".as_bytes(),
    // 6.6 and 6.7: first and last of each length.
    b"\0",
    b"\x7f",
    b"\xc2\x80",
    b"\xdf\xbf",
    b"\xe0\xa0\x80",
    b"\xef\xbf\xbf",
    b"\xf0\x90\x80\x80",
    // 6.9 and 6.22: around the surrogates, the last code point, and noncharacters.
    b"\xed\x9f\xbf",
    b"\xee\x80\x80",
    b"\xef\xbf\xbd",
    b"\xf4\x8f\xbf\xbf",
    b"\xef\xbf\xbe",
    b"\xf0\x9f\xbf\xbe",
    b"\xf0\x9f\xbf\xbf",
    b"\xf3\xaf\xbf\xbe",
    b"\xf4\x8f\xbf\xbe",
    // 6.23: replacements and others of the special block.
    b"\xef\xbf\xb9",
    b"\xef\xbf\xbc",
];

const INVALID: &[&[u8]] = &[
    // 6.3 and 6.4: in the middle of a text.
    b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
    b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90\x80\x80edited",
    // 6.8 and 6.10: of five and six bytes, and above the last code point.
    b"\xf8\x88\x80\x80\x80",
    b"\xfc\x84\x80\x80\x80\x80",
    b"\xf7\xbf\xbf\xbf",
    b"\xfb\xbf\xbf\xbf\xbf",
    b"\xfd\xbf\xbf\xbf\xbf\xbf",
    b"\xf4\x90\x80\x80",
    // 6.11 and 6.12: continuation bytes without a start.
    b"\x80",
    b"\xbf",
    b"\x80\xbf",
    b"\x80\xbf\x80\xbf\x80\xbf",
    // 6.13: start bytes without a continuation.
    b"\xc0 \xc1 \xc2 ",
    b"\xe0 \xe1 \xe2 ",
    b"\xf0 \xf1 ",
    b"\xf8 \xf9 ",
    b"\xfc ",
    // 6.14: the last continuation byte is missing.
    b"\xc0",
    b"\xe0\x80",
    b"\xf0\x80\x80",
    b"\xdf",
    b"\xef\xbf",
    b"\xf7\xbf\xbf",
    // 6.15: many of them in a row.
    b"\xc0\xe0\x80\xf0\x80\x80\xf8\x80\x80\x80",
    // 6.16: never allowed.
    b"\xfe",
    b"\xff",
    b"\xfe\xfe\xff\xff",
    // 6.17 and 6.18: overlong encodings.
    b"\xc0\xaf",
    b"\xe0\x80\xaf",
    b"\xf0\x80\x80\xaf",
    b"\xf8\x80\x80\x80\xaf",
    b"\xc1\xbf",
    b"\xe0\x9f\xbf",
    b"\xf0\x8f\xbf\xbf",
    // 6.19: overlong NUL.
    b"\xc0\x80",
    b"\xe0\x80\x80",
    b"\xf0\x80\x80\x80",
    // 6.20 and 6.21: surrogates, alone and in pairs.
    b"\xed\xa0\x80",
    b"\xed\xad\xbf",
    b"\xed\xae\x80",
    b"\xed\xaf\xbf",
    b"\xed\xb0\x80",
    b"\xed\xbe\x80",
    b"\xed\xbf\xbf",
    b"\xed\xa0\x80\xed\xb0\x80",
    b"\xed\xaf\xbf\xed\xbf\xbf",
];

/// Sends a text in fragments of one byte and an empty last one. Returns how many fragments were
/// accepted, and what arrived.
fn by_bytes(text: &[u8]) -> (usize, Result<Vec<u8>, ViolationError>) {
    let mut decoder = Decoder::new(false, LIMIT, &[]);
    let mut seen = Vec::new();
    let empty: &[u8] = &[];
    for (at, piece) in text.chunks(1).chain([empty]).enumerate() {
        let opcode = match at {
            0 => Opcode::Text,
            _ => Opcode::Continuation,
        };
        let bytes = frame(at == text.len(), opcode, None, piece);
        decoder.buffer().put_slice(&bytes);
        match all(&mut decoder) {
            Err(error) => return (at, Err(error)),
            Ok(events) => {
                for event in events {
                    if let Event::Data(data) = event {
                        seen.extend_from_slice(&data.into_bytes());
                    }
                }
            }
        }
    }
    (text.len(), Ok(seen))
}

#[test]
fn valid_texts_arrive() {
    for text in VALID {
        let expected = match text {
            [] => Event::Nothing,
            _ => data(Kind::Text, text),
        };
        let whole = frame(true, Opcode::Text, None, text);
        assert_eq!(client(&whole), Ok(vec![expected]), "{text:02x?}");
        assert_eq!(by_bytes(text), (text.len(), Ok(text.to_vec())));
    }
}

#[test]
fn invalid_texts_fail_at_the_first_invalid_byte() {
    for text in INVALID {
        let whole = frame(true, Opcode::Text, None, text);
        assert_eq!(client(&whole), Err(ViolationError::Text), "{text:02x?}");
        // The shortest prefix that cannot become valid; else the end of the message.
        let is_invalid = |end: &usize| {
            let error = std::str::from_utf8(&text[..*end]).err();
            error.is_some_and(|error| error.error_len().is_some())
        };
        let expected = (1..=text.len()).find(is_invalid);
        let at = expected.map_or(text.len(), |end| end - 1);
        let seen = by_bytes(text);
        assert_eq!(seen, (at, Err(ViolationError::Text)), "{text:02x?}");
        let reason = [&[3, 0xe8], *text].concat();
        let close = frame(true, Opcode::Close, None, &reason);
        assert_eq!(client(&close), Err(ViolationError::Reason), "{text:02x?}");
    }
}
