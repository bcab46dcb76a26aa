//! The header of a frame (RFC 6455, 5.2), parsed and written.

use crate::error::ViolationError;

/// Longest header: two bytes, eight of length, four of mask.
pub(crate) const LONGEST: usize = 14;
/// Longest payload of a control frame (RFC 6455, 5.5).
pub(crate) const CONTROL_PAYLOAD: usize = 125;

/// The type of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// The next part of a data message.
    Continuation,
    /// A data message of UTF-8, or its beginning.
    Text,
    /// Any other data message, or its beginning.
    Binary,
    /// The sender sends nothing more.
    Close,
    /// Must be answered with a pong that has its payload.
    Ping,
    /// The answer to a ping.
    Pong,
}

impl Opcode {
    fn of(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    fn number(self) -> u8 {
        match self {
            Self::Continuation => 0,
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }

    /// Whether it may be sent between the frames of a message.
    pub fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// The header of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Whether it is the last frame of its message.
    pub is_final: bool,
    /// Its type.
    pub opcode: Opcode,
    /// The mask; only clients send one.
    pub mask: Option<[u8; 4]>,
    /// Bytes of payload.
    pub length: u64,
}

impl Header {
    /// Reads a header, and returns it with its own length; `None` while more bytes are needed.
    ///
    /// # Errors
    /// When the header violates the protocol.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, ViolationError> {
        let &[first, second, ref rest @ ..] = bytes else {
            return Ok(None);
        };
        // No extension is negotiated that would use these bits.
        if first & 0x70 != 0 {
            return Err(ViolationError::ReservedBits);
        }
        let opcode = Opcode::of(first & 0x0F).ok_or(ViolationError::Opcode(first & 0x0F))?;
        let is_final = first & 0x80 != 0;
        let short = second & 0x7F;
        if opcode.is_control() && (!is_final || usize::from(short) > CONTROL_PAYLOAD) {
            return Err(ViolationError::Control);
        }
        let (length, rest) = match short {
            126 => match rest.split_first_chunk::<2>() {
                Some((length, rest)) => (u64::from(u16::from_be_bytes(*length)), rest),
                None => return Ok(None),
            },
            127 => match rest.split_first_chunk::<8>() {
                Some((length, rest)) => (u64::from_be_bytes(*length), rest),
                None => return Ok(None),
            },
            short => (u64::from(short), rest),
        };
        if length > u64::MAX >> 1 {
            return Err(ViolationError::Length);
        }
        let (mask, rest) = if second & 0x80 == 0 {
            (None, rest)
        } else {
            match rest.split_first_chunk::<4>() {
                Some((mask, rest)) => (Some(*mask), rest),
                None => return Ok(None),
            }
        };
        let header = Self {
            is_final,
            opcode,
            mask,
            length,
        };
        Ok(Some((header, bytes.len() - rest.len())))
    }

    /// Appends it to `out`, in its shortest form.
    pub fn write(&self, out: &mut impl bytes::BufMut) {
        let masked = if self.mask.is_some() { 0x80 } else { 0 };
        out.put_u8(if self.is_final { 0x80 } else { 0 } | self.opcode.number());
        match (u8::try_from(self.length), u16::try_from(self.length)) {
            (Ok(length @ ..=125), _) => out.put_u8(masked | length),
            (_, Ok(length)) => {
                out.put_u8(masked | 126);
                out.put_u16(length);
            }
            _ => {
                out.put_u8(masked | 127);
                out.put_u64(self.length);
            }
        }
        if let Some(mask) = self.mask {
            out.put_slice(&mask);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(length: u64, mask: Option<[u8; 4]>) -> Header {
        Header {
            is_final: true,
            opcode: Opcode::Binary,
            mask,
            length,
        }
    }

    #[test]
    fn lengths_have_their_shortest_form_and_read_back() {
        for (length, size) in [
            (0, 2),
            (125, 2),
            (126, 4),
            (65_535, 4),
            (65_536, 10),
            (u64::MAX >> 1, 10),
        ] {
            for (mask, more) in [(None, 0), (Some([1, 2, 3, 4]), 4)] {
                let header = data(length, mask);
                let mut bytes = Vec::new();
                header.write(&mut bytes);
                assert_eq!(bytes.len(), size + more);
                assert_eq!(Header::parse(&bytes), Ok(Some((header, bytes.len()))));
                for cut in 0..bytes.len() {
                    assert_eq!(Header::parse(&bytes[..cut]), Ok(None), "{cut} of {bytes:?}");
                }
            }
        }
    }

    /// RFC 6455, 5.7.
    #[test]
    fn the_examples_of_the_standard() {
        let hello = [0x81, 0x05, 0x48, 0x65];
        let (header, size) = Header::parse(&hello).unwrap().unwrap();
        assert_eq!((header.opcode, header.length, size), (Opcode::Text, 5, 2));
        let first_fragment = [0x01, 0x03, 0x48];
        let (header, _) = Header::parse(&first_fragment).unwrap().unwrap();
        assert!(!header.is_final);
        let large = [0x82, 0x7F, 0, 0, 0, 0, 0, 1, 0, 0];
        let (header, size) = Header::parse(&large).unwrap().unwrap();
        assert_eq!((header, size), (data(65_536, None), 10));
    }

    #[test]
    fn violations_are_refused() {
        for (bytes, why) in [
            ([0xC2, 0x00], ViolationError::ReservedBits),
            ([0x92, 0x00], ViolationError::ReservedBits),
            ([0x83, 0x00], ViolationError::Opcode(3)),
            ([0x8B, 0x00], ViolationError::Opcode(11)),
            // A fragmented control frame, and one that is too long.
            ([0x09, 0x00], ViolationError::Control),
            ([0x89, 0x7E], ViolationError::Control),
        ] {
            assert_eq!(Header::parse(&bytes), Err(why), "{bytes:02x?}");
        }
        let negative = [0x82, 0x7F, 0x80, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(Header::parse(&negative), Err(ViolationError::Length));
    }
}
