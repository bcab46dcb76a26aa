//! Frames that wait to be written: heads and payloads side by side, so that a relay
//! passes payload on without a copy. Only a client copies, to lay its masks.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

use crate::header::{self, Header, Opcode};
use crate::mask;

/// Payloads up to this size are copied behind their head: cheaper than two slices.
const JOINED: usize = 4 << 10;

/// So much is copied and masked at a time. Copies above some 2 KiB are left to the processor's
/// string instruction by the C library, which on some (Zen 4) is several times slower
/// when both places lie alike in their pages.
const BLOCK: usize = 2 << 10;
const _: () = assert!(
    BLOCK.is_multiple_of(4),
    "every block begins with the whole mask"
);

/// The writing half of a WebSocket. As a [`Buf`] it is what is to be written.
#[derive(Debug, Default)]
pub struct Outbox {
    /// What goes out first.
    slices: VecDeque<Bytes>,
    /// Bytes in them.
    sliced: usize,
    /// What goes out behind them, and where heads and masked payloads are made. Once
    /// written, the same memory is used again: it is in the processor's caches.
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

    /// Queues one frame, unmasked, as servers send.
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

    /// Queues one frame under a mask, as clients send.
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

    /// Gives memory back that holds nothing.
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
        /// However the network takes it, the frames come out as they were.
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
