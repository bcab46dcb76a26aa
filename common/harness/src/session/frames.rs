//! Both decoders, on any bytes in any pieces.

use bytes::{Bytes, BytesMut};
use device_stream_session::frame::{self, Decoder, Frame};
use device_stream_session::inner::{self, ConnectionId, Inner, InnerDecoder};

/// Decodes bytes as frames of both kinds, whole and in pieces. Both must give the same frames, and
/// these must round-trip. The first four bytes are the sizes of the pieces.
///
/// # Panics
/// When they do not.
pub fn frames(input: &[u8]) {
    let (sizes, bytes) = input.split_at(input.len().min(4));
    let whole = outer(bytes, &[]);
    assert_eq!(whole, outer(bytes, sizes));
    for frame in whole.unwrap_or_default() {
        assert_eq!(outer(&frame.encode(), &[]), Some(vec![frame]));
    }
    let whole = inner(bytes, &[]);
    assert_eq!(whole, inner(bytes, sizes));
    for (id, frame) in whole.unwrap_or_default() {
        let mut out = BytesMut::new();
        frame.encode(id, &mut out);
        assert_eq!(inner(&out, &[]), Some(vec![(id, frame)]));
    }
}

fn pieces(bytes: &[u8], sizes: &[u8]) -> Vec<Bytes> {
    let mut rest = Bytes::copy_from_slice(bytes);
    let mut sizes = sizes.iter().cycle();
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let size = sizes.next().map_or(rest.len(), |size| usize::from(*size));
        pieces.push(rest.split_to(size.clamp(1, rest.len())));
    }
    pieces
}

fn outer(bytes: &[u8], sizes: &[u8]) -> Option<Vec<Frame>> {
    let mut decoder = Decoder::default();
    let mut frames: Vec<Frame> = Vec::new();
    for mut piece in pieces(bytes, sizes) {
        loop {
            match (frames.last_mut(), decoder.next(&mut piece)) {
                (_, Err(frame::Malformed)) => return None,
                (_, Ok(None)) => break,
                // Joins adjacent data, since the sizes of the pieces do not matter.
                (
                    Some(Frame::Data {
                        offset,
                        bytes,
                        wants_ack,
                    }),
                    Ok(Some(Frame::Data {
                        offset: next,
                        bytes: more,
                        wants_ack: asks,
                    })),
                ) if *offset + bytes.len() as u64 == next => {
                    *bytes = [&bytes[..], &more[..]].concat().into();
                    *wants_ack |= asks;
                }
                (_, Ok(Some(frame))) => frames.push(frame),
            }
        }
        assert!(piece.is_empty(), "all of a piece is read");
    }
    Some(frames)
}

fn inner(bytes: &[u8], sizes: &[u8]) -> Option<Vec<(ConnectionId, Inner)>> {
    let mut decoder = InnerDecoder::default();
    let mut frames: Vec<(ConnectionId, Inner)> = Vec::new();
    for mut piece in pieces(bytes, sizes) {
        loop {
            match (frames.last_mut(), decoder.next(&mut piece)) {
                (_, Err(inner::Malformed)) => return None,
                (_, Ok(None)) => break,
                (Some((known, Inner::Data(bytes))), Ok(Some((id, Inner::Data(more)))))
                    if *known == id =>
                {
                    *bytes = [&bytes[..], &more[..]].concat().into();
                }
                (_, Ok(Some(frame))) => frames.push(frame),
            }
        }
        assert!(piece.is_empty(), "all of a piece is read");
    }
    Some(frames)
}
