//! Decodes bytes to messages, without I/O. Payload stays in the buffer into which it was read. A
//! message above [`limits::STREAM_MESSAGE`] is returned in pieces of that size, all others whole.

use bytes::{Buf as _, Bytes, BytesMut};

use crate::error::ViolationError;
use crate::header::{Header, Opcode};
use crate::message::{CloseFrame, Data, Kind};
use crate::{limits, mask, text};

/// Pieces up to this size are copied: a keystroke that is kept must not keep a whole read buffer.
const COPIED: usize = 4 << 10;

/// What the peer sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A data message that is not empty, or a piece of one.
    Data(Data),
    /// A data message, or fragment, without a byte.
    Nothing,
    /// Must be answered with a pong that has the same payload.
    Ping(Bytes),
    /// The answer to a ping.
    Pong,
    /// The peer sends nothing more.
    Close(CloseFrame),
}

/// The frame whose payload is being read.
#[derive(Debug, Clone, Copy)]
struct Frame {
    opcode: Opcode,
    is_final: bool,
    mask: [u8; 4],
    left: usize,
}

/// The data message that is being read.
#[derive(Debug)]
struct Message {
    kind: Kind,
    /// Payload bytes that its frames have announced.
    announced: u64,
    /// Bytes that are not returned yet: fragments, or the start of a character.
    kept: BytesMut,
    /// How many of them are known to be whole characters.
    checked: usize,
}

/// The reading half of a WebSocket.
#[derive(Debug)]
pub struct Decoder {
    /// Frames to a server must be masked, frames to a client must not.
    is_server: bool,
    /// Largest message.
    limit: usize,
    buffer: BytesMut,
    frame: Option<Frame>,
    message: Option<Message>,
}

impl Decoder {
    /// For a server or a client that accepts messages of at most `limit` bytes; `read` are bytes
    /// that were read already.
    pub fn new(is_server: bool, limit: usize, read: &[u8]) -> Self {
        Self {
            is_server,
            limit,
            buffer: BytesMut::from(read),
            frame: None,
            message: None,
        }
    }

    /// Allows messages of another size from now on.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// The buffer to which bytes from the peer are appended.
    #[inline]
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Frees the buffer if it is empty.
    pub fn shrink(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
    }

    /// Moves the contents of the buffer to a new one of at least `size` bytes. The old one may be
    /// large and shared with messages that were returned, and is freed with them.
    pub(crate) fn move_out(&mut self, size: usize) {
        let mut buffer = BytesMut::with_capacity(size.max(self.buffer.len()));
        buffer.extend_from_slice(&self.buffer);
        self.buffer = buffer;
    }

    /// Whether a header was read and the payload is incomplete.
    #[inline]
    pub(crate) fn is_in_frame(&self) -> bool {
        self.frame.is_some()
    }

    /// How many bytes are missing in [`buffer`](Self::buffer) for the next event; 1 when that is
    /// not known.
    #[inline]
    pub fn missing(&self) -> usize {
        let wanted = self.frame.map_or(1, |frame| self.next_piece(&frame));
        wanted.saturating_sub(self.buffer.len()).max(1)
    }

    /// How much of the frame is read at once.
    fn next_piece(&self, frame: &Frame) -> usize {
        let kept = self.message.as_ref().map_or(0, |it| it.kept.len());
        let room = limits::STREAM_MESSAGE.saturating_sub(kept);
        if frame.opcode.is_control() {
            frame.left
        } else {
            frame.left.min(room)
        }
    }

    /// The next complete event; `None` until more is read.
    ///
    /// # Errors
    /// The peer violated the protocol; nothing can be decoded after that.
    pub fn next_event(&mut self) -> Result<Option<Event>, ViolationError> {
        loop {
            let Some(frame) = self.frame else {
                let Some((header, size)) = Header::parse(&self.buffer)? else {
                    return Ok(None);
                };
                self.begin(&header)?;
                self.buffer.advance(size);
                continue;
            };
            let wanted = self.next_piece(&frame);
            if self.buffer.len() < wanted {
                return Ok(None);
            }
            if let Some(event) = self.take(frame, wanted)? {
                return Ok(Some(event));
            }
        }
    }

    fn begin(&mut self, header: &Header) -> Result<(), ViolationError> {
        let mask = match (header.mask, self.is_server) {
            (Some(mask), true) => mask,
            (None, false) => [0; 4],
            (None, true) => return Err(ViolationError::Unmasked),
            (Some(_), false) => return Err(ViolationError::Masked),
        };
        let kind = match header.opcode {
            Opcode::Text => Some(Kind::Text),
            Opcode::Binary => Some(Kind::Binary),
            Opcode::Continuation | Opcode::Close | Opcode::Ping | Opcode::Pong => None,
        };
        match (&mut self.message, kind) {
            (None, Some(kind)) => {
                self.message = Some(Message {
                    kind,
                    announced: 0,
                    kept: BytesMut::new(),
                    checked: 0,
                });
            }
            (Some(_), Some(_)) => return Err(ViolationError::Interrupted),
            (None, None) if header.opcode == Opcode::Continuation => {
                return Err(ViolationError::Continuation);
            }
            _ => {}
        }
        let too_large = ViolationError::TooLarge { limit: self.limit };
        let left = usize::try_from(header.length).map_err(|_| too_large)?;
        if let Some(message) = self
            .message
            .as_mut()
            .filter(|_| !header.opcode.is_control())
        {
            message.announced = message.announced.saturating_add(header.length);
            if message.announced > self.limit as u64 {
                return Err(too_large);
            }
        }
        self.frame = Some(Frame {
            opcode: header.opcode,
            is_final: header.is_final,
            mask,
            left,
        });
        Ok(())
    }

    /// Takes the next `count` bytes of a frame, which are in the buffer.
    fn take(&mut self, frame: Frame, count: usize) -> Result<Option<Event>, ViolationError> {
        let mut piece = self.buffer.split_to(count);
        if self.is_server {
            mask::apply(&mut piece, frame.mask);
        }
        let left = frame.left - count;
        self.frame = (left > 0).then(|| Frame {
            left,
            mask: mask::turned(frame.mask, count),
            ..frame
        });
        if frame.opcode.is_control() {
            return control(frame.opcode, &piece).map(Some);
        }
        let is_end = left == 0 && frame.is_final;
        let Some(message) = &mut self.message else {
            return Ok(None);
        };
        let whole = if message.kept.is_empty() {
            piece
        } else {
            message.kept.unsplit(piece);
            message.kept.split()
        };
        if !is_end && whole.len() < limits::STREAM_MESSAGE {
            // A fragment, which is joined with the next ones. Invalid text is an error at once.
            if message.kind == Kind::Text {
                let unchecked = whole.get(message.checked..).unwrap_or_default();
                message.checked += whole_characters(unchecked, false)?;
            }
            message.kept = whole;
            return Ok(Some(Event::Nothing));
        }
        let kind = message.kind;
        let (bytes, kept) = match kind {
            Kind::Binary => (whole, BytesMut::new()),
            Kind::Text => characters(whole, is_end)?,
        };
        if is_end {
            self.message = None;
        } else {
            (message.kept, message.checked) = (kept, 0);
        }
        Ok(Some(if bytes.is_empty() {
            Event::Nothing
        } else {
            Event::Data(Data::new(kind, own(bytes)))
        }))
    }
}

/// Small pieces are copied out of the buffer.
fn own(bytes: BytesMut) -> Bytes {
    if bytes.len() <= COPIED {
        Bytes::copy_from_slice(&bytes)
    } else {
        bytes.freeze()
    }
}

/// Whole characters, and the start of one that continues in the next piece.
fn characters(mut bytes: BytesMut, is_end: bool) -> Result<(BytesMut, BytesMut), ViolationError> {
    let rest = bytes.split_off(whole_characters(&bytes, is_end)?);
    Ok((bytes, rest))
}

/// How many bytes are whole characters. Before the end, an incomplete character may follow them.
fn whole_characters(bytes: &[u8], is_end: bool) -> Result<usize, ViolationError> {
    match std::str::from_utf8(bytes) {
        Ok(_) => Ok(bytes.len()),
        Err(error) if error.error_len().is_none() && !is_end => Ok(error.valid_up_to()),
        Err(_) => Err(ViolationError::Text),
    }
}

fn control(opcode: Opcode, payload: &[u8]) -> Result<Event, ViolationError> {
    Ok(match opcode {
        Opcode::Ping => Event::Ping(Bytes::copy_from_slice(payload)),
        Opcode::Close => Event::Close(close_frame(payload)?),
        _ => Event::Pong,
    })
}

/// RFC 6455, 5.5.1 and 7.4: no code, or a code that is allowed in a frame and a text.
fn close_frame(payload: &[u8]) -> Result<CloseFrame, ViolationError> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return if payload.is_empty() {
            Ok(CloseFrame {
                code: CloseFrame::NO_CODE,
                reason: String::new(),
            })
        } else {
            Err(ViolationError::Close)
        };
    };
    let code = u16::from_be_bytes(*code);
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(ViolationError::Close);
    }
    let reason = std::str::from_utf8(reason).map_err(|_| ViolationError::Reason)?;
    Ok(CloseFrame {
        code,
        reason: text::printable(reason).into_owned(),
    })
}

#[cfg(test)]
mod tests;
