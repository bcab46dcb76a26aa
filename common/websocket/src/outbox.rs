//! Frames that wait to be written: headers and payloads in separate slices, so that a relay
//! forwards payload without a copy. Only a client copies, to apply its mask.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

use crate::header::{self, Header, Opcode};
use crate::mask;

/// Payloads up to this size are copied behind their header: cheaper than two slices.
const JOINED: usize = 4 << 10;

/// Bytes that are copied and masked at a time. For copies above some 2 KiB the C library uses the
/// processor's string instruction, which on some processors (Zen 4) is several times slower when
/// source and destination have the same offset in their pages.
const BLOCK: usize = 2 << 10;
const _: () = assert!(
    BLOCK.is_multiple_of(4),
    "every block begins with the whole mask"
);

/// The writing half of a WebSocket. As a [`Buf`] it is the bytes to write.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Written first.
    slices: VecDeque<Bytes>,
    /// Bytes in them.
    sliced: usize,
    /// Written after them; headers and masked payloads are built here. Once written, its memory is
    /// reused while it is in the processor's caches.
    scratch: BytesMut,
}

impl Outbox {
    /// Bytes that wait.
    #[inline]
    pub fn len(&self) -> usize {
        self.sliced + self.scratch.len()
    }

    /// Whether nothing waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Queues one unmasked frame, as servers send.
    pub fn push(&mut self, opcode: Opcode, payload: Bytes) {
        let header = head(opcode, None, payload.len());
        let is_joined = payload.len() <= JOINED;
        let copied = if is_joined { payload.len() } else { 0 };
        self.scratch.reserve(header::LONGEST + copied);
        header.write(&mut self.scratch);
        if is_joined {
            self.scratch.extend_from_slice(&payload);
        } else {
            let before = self.scratch.split().freeze();
            self.queue(before);
            self.queue(payload);
        }
    }

    /// Queues one masked frame, as clients send.
    pub fn push_masked(&mut self, opcode: Opcode, payload: &[u8], mask: [u8; 4]) {
        let header = head(opcode, Some(mask), payload.len());
        self.scratch.reserve(header::LONGEST + payload.len());
        header.write(&mut self.scratch);
        for block in payload.chunks(BLOCK) {
            let start = self.scratch.len();
            self.scratch.extend_from_slice(block);
            if let Some(copy) = self.scratch.get_mut(start..) {
                mask::apply(copy, mask);
            }
        }
    }

    /// Frees the buffers if nothing waits.
    pub fn shrink(&mut self) {
        if !self.has_remaining() {
            *self = Self::default();
        }
    }

    fn queue(&mut self, bytes: Bytes) {
        self.sliced += bytes.len();
        self.slices.push_back(bytes);
    }
}

fn head(opcode: Opcode, mask: Option<[u8; 4]>, length: usize) -> Header {
    Header {
        is_final: true,
        opcode,
        mask,
        length: length as u64,
    }
}

impl Buf for Outbox {
    fn remaining(&self) -> usize {
        self.len()
    }

    fn chunk(&self) -> &[u8] {
        self.slices.front().map_or(&self.scratch, |slice| slice)
    }

    fn chunks_vectored<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        let scratch = Some(&*self.scratch).filter(|bytes| !bytes.is_empty());
        let slices = self.slices.iter().map(|slice| &**slice).chain(scratch);
        let mut count = 0;
        for (place, slice) in out.iter_mut().zip(slices) {
            *place = IoSlice::new(slice);
            count += 1;
        }
        count
    }

    fn advance(&mut self, mut count: usize) {
        debug_assert!(count <= self.len());
        while let Some(front) = self.slices.front_mut() {
            let step = count.min(front.len());
            front.advance(step);
            self.sliced -= step;
            count -= step;
            if !front.is_empty() {
                return;
            }
            self.slices.pop_front();
        }
        self.scratch.advance(count.min(self.scratch.len()));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::decoder::{Decoder, Event};
    use crate::message::{Data, Kind};

    proptest! {
        /// Frames are written completely and in order, in steps of any size.
        #[test]
        fn frames_are_written_as_they_were_queued(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..6000), 1..8),
            masks in prop::option::of(any::<[u8; 4]>()),
            steps in prop::collection::vec(1usize..3000, 1..50),
        ) {
            let mut outbox = Outbox::default();
            for payload in &payloads {
                match masks {
                    Some(mask) => outbox.push_masked(Opcode::Binary, payload, mask),
                    None => outbox.push(Opcode::Binary, Bytes::copy_from_slice(payload)),
                }
            }
            let mut written = Vec::new();
            let mut steps = steps.into_iter().cycle();
            while outbox.has_remaining() {
                let mut slices = [IoSlice::new(&[]); 4];
                let count = outbox.chunks_vectored(&mut slices);
                let step = steps.next().unwrap();
                let mut taken = 0;
                for slice in &slices[..count] {
                    let part = slice.len().min(step - taken);
                    written.extend_from_slice(&slice[..part]);
                    taken += part;
                }
                outbox.advance(taken);
            }
            prop_assert_eq!(outbox.len(), 0);
            let mut decoder = Decoder::new(masks.is_some(), 1 << 20, &written);
            for payload in payloads {
                let expected = Data::new(Kind::Binary, payload.into());
                prop_assert_eq!(decoder.next_event().unwrap(), Some(Event::Data(expected)));
            }
            prop_assert_eq!(decoder.next_event().unwrap(), None);
        }
    }
}
