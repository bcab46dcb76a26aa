use proptest::prelude::*;

use super::*;

type Frames = Vec<(ConnectionId, Inner)>;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// Every frame of connection 258 with its bytes.
fn vectors() -> [(&'static str, Inner); 7] {
    let refused = Inner::Refused {
        code: RefusedCode::TargetRefused,
        text: "no".to_owned(),
    };
    [
        ("01 000000 00000102", Inner::Open),
        ("02 000000 00000102", Inner::Opened),
        ("03 000003 00000102  01 6e6f", refused),
        (
            "04 000005 00000102  68656c6c6f",
            Inner::Data(Bytes::from_static(b"hello")),
        ),
        ("05 000000 00000102", Inner::Fin),
        ("06 000000 00000102", Inner::Rst),
        (
            "07 000008 00000102  0000000000020000",
            Inner::Credit(128 << 10),
        ),
    ]
}

/// All frames in pieces of these sizes, in turn; pieces of one data frame are joined.
fn decode(bytes: &[u8], sizes: &[usize]) -> Result<Frames, Malformed> {
    let mut decoder = InnerDecoder::default();
    let mut frames: Frames = Vec::new();
    let mut rest = Bytes::copy_from_slice(bytes);
    let mut sizes = sizes.iter().cycle();
    let mut is_continued = false;
    while !rest.is_empty() {
        let size = sizes.next().map_or(rest.len(), |size| *size);
        let mut piece = rest.split_to(size.clamp(1, rest.len()));
        while let Some((id, frame)) = decoder.next(&mut piece)? {
            match (frames.last_mut(), frame) {
                (Some((known, Inner::Data(bytes))), Inner::Data(more)) if is_continued => {
                    assert_eq!(*known, id);
                    *bytes = [&bytes[..], &more[..]].concat().into();
                }
                (_, frame) => frames.push((id, frame)),
            }
            is_continued = matches!(&decoder.state, State::Data { .. });
        }
        assert!(piece.is_empty(), "nothing is left over");
    }
    Ok(frames)
}

fn encode(id: ConnectionId, frame: &Inner) -> Vec<u8> {
    let mut out = BytesMut::new();
    frame.encode(id, &mut out);
    out.to_vec()
}

#[test]
fn fixed_bytes() {
    let id = ConnectionId(0x102);
    for (text, frame) in vectors() {
        let bytes = hex(text);
        assert_eq!(encode(id, &frame), bytes, "{frame:?}");
        let expected = [(id, frame)];
        assert_eq!(decode(&bytes, &[]).unwrap(), expected, "whole");
        assert_eq!(decode(&bytes, &[1]).unwrap(), expected, "byte by byte");
        let declared = u32::from_be_bytes([0, bytes[1], bytes[2], bytes[3]]) as usize;
        assert_eq!(HEADER + declared, bytes.len());
    }
}

#[test]
fn a_header_in_place_is_the_header() {
    let in_place = [&data_header(ConnectionId(9), 5)[..], b"bytes"].concat();
    let frame = Inner::Data(Bytes::from_static(b"bytes"));
    assert_eq!(encode(ConnectionId(9), &frame), in_place);
}

#[test]
fn extensions_are_skipped() {
    let fin = hex("05 000000 00000102");
    let expected = vec![(ConnectionId(0x102), Inner::Fin); 2];
    for kind in [0x80, 0x9a, 0xff] {
        for length in [0, 1, 513, 70_000_usize] {
            let header = header(kind, length, ConnectionId(77));
            let extension = [&header[..], &vec![0xEE; length]].concat();
            let bytes = [&extension[..], &fin, &extension, &fin].concat();
            for sizes in [&[][..], &[3], &[1, 4096]] {
                assert_eq!(decode(&bytes, sizes).unwrap(), expected);
            }
        }
    }
}

#[test]
fn other_unknown_frames_are_malformed() {
    for kind in (0..0x80).filter(|kind| !(1..=7).contains(kind)) {
        let bytes = [&header(kind, 3, ConnectionId(1))[..], b"abc"].concat();
        assert_eq!(decode(&bytes, &[]), Err(Malformed), "{kind:#x}");
    }
}

#[test]
fn invalid_frames_are_malformed() {
    for text in [
        "01 000201 00000001",                 // a control frame that is too long
        "06 ffffff 00000001",                 // the same
        "03 000000 00000001",                 // a refusal without a reason
        "07 000007 00000001  00000000000200", // a truncated credit
    ] {
        assert_eq!(decode(&hex(text), &[]), Err(Malformed), "{text}");
        assert_eq!(decode(&hex(text), &[1]), Err(Malformed), "{text}");
    }
}

#[test]
fn data_is_returned_before_its_frame_is_complete() {
    let mut decoder = InnerDecoder::default();
    let mut piece = Bytes::from(hex("04 ffffff 00000003 61"));
    let first = (ConnectionId(3), Inner::Data(Bytes::from_static(b"a")));
    assert_eq!(decoder.next(&mut piece).unwrap(), Some(first));
    let mut piece = Bytes::from_static(b"bc");
    let next = (ConnectionId(3), Inner::Data(Bytes::from_static(b"bc")));
    assert_eq!(decoder.next(&mut piece).unwrap(), Some(next));
    assert_eq!(decoder.next(&mut piece).unwrap(), None);
}

#[test]
fn the_longest_text_fits_in_its_frame() {
    for letter in ["x", "ß", "€", "𝄞"] {
        let refused = Inner::Refused {
            code: RefusedCode::Unreachable,
            text: letter.repeat(9999),
        };
        let frames = decode(&encode(ConnectionId(1), &refused), &[]).unwrap();
        let [(_, Inner::Refused { text, .. })] = &frames[..] else {
            panic!("{frames:?}")
        };
        assert!(!text.is_empty() && text.len() <= crate::limits::TEXT);
        assert!(text.starts_with(letter));
    }
}

fn any_frame() -> impl Strategy<Value = (ConnectionId, Inner)> {
    let bytes = proptest::collection::vec(any::<u8>(), 1..300);
    let refused = (any::<u8>(), "[a-zäöü€ ]{0,60}").prop_map(|(code, text)| Inner::Refused {
        code: RefusedCode::from_u8(code),
        text,
    });
    let frame = prop_oneof![
        Just(Inner::Open),
        Just(Inner::Opened),
        refused,
        bytes.prop_map(|bytes| Inner::Data(bytes.into())),
        Just(Inner::Fin),
        Just(Inner::Rst),
        any::<u64>().prop_map(Inner::Credit),
    ];
    (any::<u32>().prop_map(ConnectionId), frame)
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        Just(vec![1]),
        proptest::collection::vec(1_usize..80, 1..8),
        Just(vec![usize::MAX]),
    ]
}

proptest! {
    #[test]
    fn round_trip(frames in proptest::collection::vec(any_frame(), 1..12), sizes in sizes()) {
        let mut bytes = Vec::new();
        for (id, frame) in &frames {
            let encoded = encode(*id, frame);
            let declared = u32::from_be_bytes([0, encoded[1], encoded[2], encoded[3]]);
            prop_assert_eq!(HEADER + declared as usize, encoded.len());
            bytes.extend_from_slice(&encoded);
        }
        prop_assert_eq!(decode(&bytes, &sizes).unwrap(), frames);
    }

    #[test]
    fn perturbed_frames_are_harmless(
        frames in proptest::collection::vec(any_frame(), 1..8),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), 0_u32..8), 0..6),
        cut in any::<prop::sample::Index>(),
        sizes in sizes(),
    ) {
        let encoded = frames.iter().map(|(id, frame)| encode(*id, frame));
        let mut bytes = encoded.collect::<Vec<_>>().concat();
        for (place, bit) in flips {
            let place = place.index(bytes.len());
            bytes[place] ^= 1 << bit;
        }
        bytes.truncate(cut.index(bytes.len()) + 1);
        // The sizes of the pieces make no difference.
        prop_assert_eq!(decode(&bytes, &sizes).ok(), decode(&bytes, &[]).ok());
    }

    #[test]
    fn random_bytes_are_harmless(
        bytes in proptest::collection::vec(any::<u8>(), 0..2000),
        sizes in sizes(),
    ) {
        prop_assert_eq!(decode(&bytes, &sizes).ok(), decode(&bytes, &[]).ok());
    }
}
