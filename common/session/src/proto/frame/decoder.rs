//! Frames from the bytes of a carrier.

use bytes::Bytes;

use super::{DATA_PREFIX, Frame, HEADER, Malformed, kind};
use crate::proto::collect::{Collect, Fields as _};

/// Longest payload of any frame but data.
const CONTROL: usize = 512;

/// Reads frames from pieces of any size. Data is returned as it arrives; only headers and short
/// payloads are buffered.
#[derive(Debug, Default)]
pub struct Decoder {
    collect: Collect,
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Header,
    Payload {
        kind: u8,
        length: usize,
    },
    DataPrefix {
        length: usize,
        wants_ack: bool,
    },
    Data {
        offset: u64,
        left: usize,
        wants_ack: bool,
    },
    Skip {
        left: usize,
    },
}

impl Decoder {
    /// Takes the next frame from the front of `piece`; `None` when more pieces are needed.
    ///
    /// # Errors
    /// [`Malformed`]: the carrier cannot be used any more.
    pub fn next(&mut self, piece: &mut Bytes) -> Result<Option<Frame>, Malformed> {
        loop {
            match &mut self.state {
                State::Header => {
                    if piece.is_empty() {
                        return Ok(None);
                    }
                    let Some(header) = self.collect.take(HEADER, piece) else {
                        return Ok(None);
                    };
                    self.state = Self::begin(header)?;
                }
                State::Payload { kind, length } => {
                    let Some(payload) = self.collect.take(*length, piece) else {
                        return Ok(None);
                    };
                    let frame = Frame::decode(*kind, payload).ok_or(Malformed)?;
                    self.state = State::Header;
                    return Ok(Some(frame));
                }
                State::DataPrefix { length, wants_ack } => {
                    let Some(mut prefix) = self.collect.take(DATA_PREFIX, piece) else {
                        return Ok(None);
                    };
                    self.state = State::Data {
                        offset: prefix.u64().ok_or(Malformed)?,
                        left: *length,
                        wants_ack: *wants_ack,
                    };
                }
                State::Data {
                    offset,
                    left,
                    wants_ack,
                } => {
                    let bytes = piece.split_to(piece.len().min(*left));
                    *left -= bytes.len();
                    let is_whole = *left == 0;
                    let frame = Frame::Data {
                        offset: *offset,
                        // The end of a frame requests the acknowledgement.
                        wants_ack: *wants_ack && is_whole,
                        bytes: bytes.clone(),
                    };
                    *offset = offset.checked_add(bytes.len() as u64).ok_or(Malformed)?;
                    if is_whole {
                        self.state = State::Header;
                    }
                    if bytes.is_empty() {
                        if is_whole {
                            continue;
                        }
                        return Ok(None);
                    }
                    return Ok(Some(frame));
                }
                State::Skip { left } => {
                    *left -= piece.split_to(piece.len().min(*left)).len();
                    if *left > 0 {
                        return Ok(None);
                    }
                    self.state = State::Header;
                }
            }
        }
    }

    /// Whether the next bytes belong to a data frame that has begun.
    #[cfg(test)]
    pub(super) fn is_in_data(&self) -> bool {
        matches!(self.state, State::Data { .. })
    }

    fn begin(mut header: Bytes) -> Result<State, Malformed> {
        let [kind, a, b, c] = header.array().ok_or(Malformed)?;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        match kind {
            kind::DATA | kind::DATA_ACK => Ok(State::DataPrefix {
                length: length.checked_sub(DATA_PREFIX).ok_or(Malformed)?,
                wants_ack: kind == kind::DATA_ACK,
            }),
            kind::EXTENSION.. => Ok(State::Skip { left: length }),
            _ if length <= CONTROL => Ok(State::Payload { kind, length }),
            _ => Err(Malformed),
        }
    }
}
