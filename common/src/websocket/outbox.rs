//! Frames that wait to be written: heads and payloads side by side, so that a relay
//! passes payload on without a copy. Only a client copies, to lay its masks.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

use super::header::{self, Header, Opcode};
use super::mask;

/// Payloads up to this size are copied behind their head: cheaper than two slices.
const JOINED: usize = 4 << 10;

/// The writing half of a WebSocket. As a [`Buf`] it is what is to be written.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    slices: VecDeque<Bytes>,
    length: usize,
    /// Where heads and masked payloads are made; used again once they are written.
    workshop: BytesMut,
}

impl Outbox {
    /// Bytes that wait.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Queues one frame, unmasked, as servers send.
    pub(super) fn push(&mut self, opcode: Opcode, payload: Bytes) {
        let header = head(opcode, None, payload.len());
        let is_joined = payload.len() <= JOINED;
        let copied = if is_joined { payload.len() } else { 0 };
        self.workshop.reserve(header::LONGEST + copied);
        header.write(&mut self.workshop);
        if is_joined {
            self.workshop.extend_from_slice(&payload);
        }
        self.queue_workshop();
        if !is_joined {
            self.queue(payload);
        }
    }

    /// Queues one frame under a mask, as clients send.
    pub(super) fn push_masked(&mut self, opcode: Opcode, payload: &[u8], mask: [u8; 4]) {
        let header = head(opcode, Some(mask), payload.len());
        self.workshop.reserve(header::LONGEST + payload.len());
        header.write(&mut self.workshop);
        let start = self.workshop.len();
        self.workshop.extend_from_slice(payload);
        if let Some(copy) = self.workshop.get_mut(start..) {
            mask::apply(copy, mask);
        }
        self.queue_workshop();
    }

    /// Gives memory back that holds nothing.
    pub(super) fn shrink(&mut self) {
        if self.slices.is_empty() {
            self.slices = VecDeque::new();
            self.workshop = BytesMut::new();
        }
    }

    fn queue_workshop(&mut self) {
        let made = self.workshop.split().freeze();
        self.queue(made);
    }

    fn queue(&mut self, bytes: Bytes) {
        self.length += bytes.len();
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
        self.length
    }

    fn chunk(&self) -> &[u8] {
        self.slices.front().map_or(&[], |slice| slice)
    }

    fn chunks_vectored<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        let mut count = 0;
        for (place, slice) in out.iter_mut().zip(&self.slices) {
            *place = IoSlice::new(slice);
            count += 1;
        }
        count
    }

    fn advance(&mut self, mut count: usize) {
        debug_assert!(count <= self.length);
        self.length = self.length.saturating_sub(count);
        while let Some(front) = self.slices.front_mut() {
            if count < front.len() {
                front.advance(count);
                return;
            }
            count -= front.len();
            self.slices.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::decoder::{Decoder, Event};
    use super::super::{Data, Kind};
    use super::*;

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
                prop_assert_eq!(decoder.next().unwrap(), Some(Event::Data(expected)));
            }
            prop_assert_eq!(decoder.next().unwrap(), None);
        }
    }
}
