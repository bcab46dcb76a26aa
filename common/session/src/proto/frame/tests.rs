use proptest::prelude::*;

use super::*;
use crate::proto::proof::Prover;

const BOOT: &str = "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf";
const SECRET: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const ID: &str = "202122232425262728292a2b2c2d2e2f";
const CHALLENGE: &str = "303132333435363738393a3b3c3d3e3f";
/// HMAC-SHA-256 by another implementation: the service's and the device's.
const PROOFS: [&str; 2] = [
    "ef848bc7a1319071240c47de70b330bd9c80a5fb3f2676419aaa7f5c1cc37bb9",
    "b9ca35ae39f7f43f6a5fe85d5fa84e61024eba550fd5ac02dca1b5a0ab2713f3",
];
const RECEIVED: u64 = 0x0102_0304_0506_0708;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn array<const N: usize>(text: &str) -> [u8; N] {
    hex(text).try_into().unwrap()
}

/// Every frame with its bytes.
fn vectors() -> Vec<(String, Frame)> {
    let challenge = Challenge(array(CHALLENGE));
    let [service, device] = PROOFS;
    let greeting = Greeting {
        lowest: 1,
        highest: 3,
        boot_id: BootId::from_bytes(array(BOOT)),
        challenge,
    };
    let hello = Frame::Hello {
        version: 1,
        id: SessionId(array(ID)),
        secret: ResumeSecret::from_bytes(array(SECRET)),
        grace: Duration::from_secs(1800),
    };
    let resume = Frame::Resume {
        version: 1,
        id: SessionId(array(ID)),
        received: RECEIVED,
        challenge,
        proof: Proof(array(service)),
    };
    let resumed = Frame::Resumed {
        received: RECEIVED,
        proof: Proof(array(device)),
    };
    let data = |wants_ack| Frame::Data {
        offset: 0x10_0000_0002,
        bytes: Bytes::from_static(b"hello"),
        wants_ack,
    };
    let ack = Frame::Ack {
        received: 0x10_0000_0007,
        delay: Duration::from_micros(25_000),
        arrived: None,
    };
    let timed = Frame::Ack {
        received: 0x10_0000_0007,
        delay: Duration::ZERO,
        arrived: Some(0x0102_0304_0506),
    };
    let refused = Frame::Refused {
        code: Code::Unknown,
        text: "gone".to_owned(),
    };
    let reset = Frame::Reset {
        code: Code::Protocol,
        text: "a gap in the stream".to_owned(),
    };
    [
        (
            format!("01 000026  44535301 01 03 {BOOT} {CHALLENGE}"),
            Frame::Greeting(greeting),
        ),
        (format!("02 000035  01 {ID} {SECRET} 00000708"), hello),
        (
            "03 000004  00000708".to_owned(),
            Frame::Welcome {
                grace: Duration::from_secs(1800),
            },
        ),
        (
            format!("04 000049  01 {ID} 0102030405060708 {CHALLENGE} {service}"),
            resume,
        ),
        (format!("05 000028  0102030405060708 {device}"), resumed),
        ("06 000005  02 676f6e65".to_owned(), refused),
        (
            "10 00000d  0000001000000002 68656c6c6f".to_owned(),
            data(false),
        ),
        (
            "11 00000d  0000001000000002 68656c6c6f".to_owned(),
            data(true),
        ),
        ("12 00000c  0000001000000007 000061a8".to_owned(), ack),
        (
            "12 000014  0000001000000007 00000000 0000010203040506".to_owned(),
            timed,
        ),
        ("13 000000".to_owned(), Frame::Ping),
        ("14 000000".to_owned(), Frame::End),
        (
            "15 000014  01 612067617020696e207468652073747265616d".to_owned(),
            reset,
        ),
        (
            "16 000001  06".to_owned(),
            Frame::Detach {
                code: Code::Stopping,
            },
        ),
    ]
    .into()
}

/// All frames in pieces of these sizes, in turn; pieces of one data frame are joined.
fn decode(bytes: &[u8], sizes: &[usize]) -> Result<Vec<Frame>, Malformed> {
    let mut decoder = Decoder::default();
    let mut frames: Vec<Frame> = Vec::new();
    let mut rest = Bytes::copy_from_slice(bytes);
    let mut sizes = sizes.iter().cycle();
    let mut is_continued = false;
    while !rest.is_empty() {
        let size = sizes.next().map_or(rest.len(), |size| *size);
        let mut piece = rest.split_to(size.clamp(1, rest.len()));
        while let Some(frame) = decoder.next(&mut piece)? {
            match (frames.last_mut(), frame) {
                (
                    Some(Frame::Data {
                        offset,
                        bytes,
                        wants_ack,
                    }),
                    Frame::Data {
                        offset: next,
                        bytes: more,
                        wants_ack: last,
                    },
                ) if is_continued => {
                    assert_eq!(next, *offset + bytes.len() as u64);
                    *bytes = [&bytes[..], &more[..]].concat().into();
                    *wants_ack = last;
                }
                (_, frame) => frames.push(frame),
            }
            is_continued = decoder.is_in_data();
        }
        assert!(piece.is_empty(), "nothing is left over");
    }
    Ok(frames)
}

#[test]
fn fixed_bytes() {
    for (text, frame) in vectors() {
        let bytes = hex(&text);
        assert_eq!(frame.encode(), bytes, "{frame:?}");
        let expected = std::slice::from_ref(&frame);
        assert_eq!(decode(&bytes, &[]).unwrap(), expected, "whole");
        assert_eq!(decode(&bytes, &[1]).unwrap(), expected, "byte by byte");
        let declared = u32::from_be_bytes([0, bytes[1], bytes[2], bytes[3]]) as usize;
        assert_eq!(HEADER + declared, bytes.len());
    }
}

#[test]
fn fixed_proofs() {
    let id = SessionId(array(ID));
    let secret = ResumeSecret::from_bytes(array(SECRET));
    let challenge = Challenge(array(CHALLENGE));
    for (prover, expected) in [Prover::Service, Prover::Device].into_iter().zip(PROOFS) {
        let proof = Proof::new(prover, &secret, id, challenge, RECEIVED);
        assert_eq!(proof.0, array(expected));
    }
}

#[test]
fn a_header_in_place_is_the_header() {
    let frame = Frame::Data {
        offset: 7,
        bytes: Bytes::from_static(b"bytes"),
        wants_ack: true,
    };
    let in_place = [&data_header(7, 5, true)[..], b"bytes"].concat();
    assert_eq!(frame.encode(), in_place);
}

#[test]
fn extensions_are_skipped() {
    let ping = hex("13 000000");
    for kind in [0x80, 0x9a, 0xff] {
        for length in [0, 1, 513, 70_000_usize] {
            let extension = [&header(kind, length)[..], &vec![0xEE; length]].concat();
            let bytes = [&extension[..], &ping, &extension, &ping].concat();
            for sizes in [&[][..], &[3], &[1, 4096]] {
                assert_eq!(decode(&bytes, sizes).unwrap(), [Frame::Ping, Frame::Ping]);
            }
        }
    }
}

#[test]
fn other_unknown_frames_are_malformed() {
    let known = [1, 2, 3, 4, 5, 6, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16];
    for kind in (0..0x80).filter(|kind| !known.contains(kind)) {
        let bytes = [&header(kind, 3)[..], b"abc"].concat();
        assert_eq!(decode(&bytes, &[]), Err(Malformed), "{kind:#x}");
    }
}

#[test]
fn invalid_frames_are_malformed() {
    for text in [
        "13 000201",                          // a control frame that is too long
        "01 ffffff",                          // the same
        "10 000007  00000000000000",          // data without an offset
        "12 00000b  0000001000000007 000061", // a truncated acknowledgement
        "03 000003  000708",                  // a truncated welcome
        "06 000000",                          // a refusal without a reason
        "16 000000",                          // a detach without a reason
        "10 00000a  ffffffffffffffff 6162",   // bytes after the last offset
    ] {
        assert_eq!(decode(&hex(text), &[]), Err(Malformed), "{text}");
        assert_eq!(decode(&hex(text), &[1]), Err(Malformed), "{text}");
    }
    let mut greeting = vectors().remove(0).1.encode().to_vec();
    greeting[HEADER + 3] = 2;
    assert_eq!(decode(&greeting, &[]), Err(Malformed), "another magic");
}

#[test]
fn fields_of_later_versions_are_ignored() {
    let bytes = hex("03 000006  00000708 eeee 13 000000");
    let frames = decode(&bytes, &[1]).unwrap();
    assert!(matches!(&frames[..], [Frame::Welcome { .. }, Frame::Ping]));
}

#[test]
fn data_is_returned_before_its_frame_is_complete() {
    let mut decoder = Decoder::default();
    let mut piece = Bytes::from(hex("11 fffff0  0000000000000005 61"));
    let Some(Frame::Data {
        offset: 5,
        bytes,
        wants_ack: false,
    }) = decoder.next(&mut piece).unwrap()
    else {
        panic!("the first of 16 MiB is here")
    };
    assert_eq!(bytes, "a");
    let mut piece = Bytes::from_static(b"bc");
    let next = decoder.next(&mut piece).unwrap();
    assert!(matches!(next, Some(Frame::Data { offset: 6, bytes, .. }) if bytes == "bc"));
}

#[test]
fn the_longest_text_fits_in_its_frame() {
    for letter in ["x", "ß", "€", "𝄞"] {
        let text = letter.repeat(9999);
        let frame = Frame::Reset {
            code: Code::Protocol,
            text,
        };
        let frames = decode(&frame.encode(), &[]).unwrap();
        let [Frame::Reset { text, .. }] = &frames[..] else {
            panic!("{frames:?}")
        };
        assert!(!text.is_empty() && text.len() <= crate::limits::TEXT);
        assert!(text.starts_with(letter));
    }
}

fn any_code() -> impl Strategy<Value = Code> {
    any::<u8>().prop_map(Code::from_u8)
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let seconds = || any::<u32>().prop_map(|seconds| Duration::from_secs(seconds.into()));
    let id = || any::<[u8; 16]>().prop_map(SessionId);
    let challenge = || any::<[u8; 16]>().prop_map(Challenge);
    let proof = || any::<[u8; 32]>().prop_map(Proof);
    let reason = "[a-zäöü€ ]{0,60}";
    let bytes = proptest::collection::vec(any::<u8>(), 1..300);
    prop_oneof![
        (any::<u8>(), any::<u8>(), any::<[u8; 16]>(), challenge()).prop_map(
            |(lowest, highest, boot_id, challenge)| Frame::Greeting(Greeting {
                lowest,
                highest,
                boot_id: BootId::from_bytes(boot_id),
                challenge,
            })
        ),
        (any::<u8>(), id(), any::<[u8; 32]>(), seconds()).prop_map(
            |(version, id, secret, grace)| Frame::Hello {
                version,
                id,
                secret: ResumeSecret::from_bytes(secret),
                grace,
            }
        ),
        seconds().prop_map(|grace| Frame::Welcome { grace }),
        (any::<u8>(), id(), any::<u64>(), challenge(), proof()).prop_map(
            |(version, id, received, challenge, proof)| Frame::Resume {
                version,
                id,
                received,
                challenge,
                proof,
            }
        ),
        (any::<u64>(), proof()).prop_map(|(received, proof)| Frame::Resumed { received, proof }),
        (any_code(), reason).prop_map(|(code, text)| Frame::Refused { code, text }),
        (0..u64::MAX / 2, bytes, any::<bool>()).prop_map(|(offset, bytes, wants_ack)| {
            Frame::Data {
                offset,
                bytes: bytes.into(),
                wants_ack,
            }
        }),
        (any::<u64>(), any::<u32>(), any::<Option<u64>>()).prop_map(
            |(received, delay, arrived)| Frame::Ack {
                received,
                delay: Duration::from_micros(delay.into()),
                arrived,
            }
        ),
        Just(Frame::Ping),
        Just(Frame::End),
        (any_code(), reason).prop_map(|(code, text)| Frame::Reset { code, text }),
        any_code().prop_map(|code| Frame::Detach { code }),
    ]
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
        for frame in &frames {
            let encoded = frame.encode();
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
        let encoded = frames.iter().map(Frame::encode);
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
