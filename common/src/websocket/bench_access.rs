//! Mask, encoder and decoder each by itself, for `bench/benches/inner_loops.rs`. No part
//! of any program.

use ::bytes::{Buf as _, Bytes};

use super::decoder::{self, Event};
use super::header::Opcode;
use super::outbox::Outbox;
use super::{Data, ViolationError};

/// Lays the mask over `bytes`, or takes it off.
pub fn mask(bytes: &mut [u8], mask: [u8; 4]) {
    super::mask::apply(bytes, mask);
}

/// The writing half of a WebSocket.
#[derive(Debug, Default)]
pub struct Encoder(Outbox);

impl Encoder {
    /// Queues one binary frame: a client's with a mask, a server's without.
    pub fn push(&mut self, payload: &Bytes, mask: Option<[u8; 4]>) {
        match mask {
            Some(mask) => self.0.push_masked(Opcode::Binary, payload, mask),
            None => self.0.push(Opcode::Binary, payload.clone()),
        }
    }

    /// Drops what is queued, as if the network had taken it, and tells how many bytes.
    pub fn written(&mut self) -> usize {
        let count = self.0.remaining();
        self.0.advance(count);
        count
    }

    /// A copy of what is queued, which is then gone.
    pub fn take(&mut self) -> Bytes {
        self.0.copy_to_bytes(self.0.remaining())
    }
}

/// The reading half of a WebSocket.
#[derive(Debug)]
pub struct Decoder(decoder::Decoder);

impl Decoder {
    /// A server's, which takes masks off, or a client's; so much was read already.
    pub fn new(is_server: bool, read: &[u8]) -> Self {
        let limit = crate::limits::STREAM_MESSAGE_ACCEPTED;
        Self(decoder::Decoder::new(is_server, limit, read))
    }

    /// The next data message; `None` when none is whole.
    ///
    /// # Errors
    /// When the bytes break a rule.
    pub fn message(&mut self) -> Result<Option<Data>, ViolationError> {
        Ok(match self.0.next()? {
            Some(Event::Data(data)) => Some(data),
            _ => None,
        })
    }
}
