//! The frames of a carrier (`docs/session-protocol.md`, "Carrier frames"). A carrier is a stream of
//! bytes: frames need not match WebSocket messages.
//!
//! ```text
//! type u8 | length u24 | payload            all numbers big-endian
//! ```

mod decoder;

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::proto::boot_id::BootId;
pub use crate::proto::codes::Code;
use crate::proto::collect::{Fields as _, text};
use crate::proto::proof::{Challenge, Proof, ResumeSecret, SessionId};

pub use decoder::Decoder;

/// First bytes of a greeting's payload, which no target sends by accident.
pub const MAGIC: [u8; 4] = *b"DSS\x01";
/// Length of a frame's header in bytes.
pub const HEADER: usize = 4;
/// Length of the part of a [`Frame::Data`]'s payload before its bytes.
pub const DATA_PREFIX: usize = 8;
mod kind {
    pub(super) const GREETING: u8 = 0x01;
    pub(super) const HELLO: u8 = 0x02;
    pub(super) const WELCOME: u8 = 0x03;
    pub(super) const RESUME: u8 = 0x04;
    pub(super) const RESUMED: u8 = 0x05;
    pub(super) const REFUSED: u8 = 0x06;
    pub(super) const DATA: u8 = 0x10;
    pub(super) const DATA_ACK: u8 = 0x11;
    pub(super) const ACK: u8 = 0x12;
    pub(super) const PING: u8 = 0x13;
    pub(super) const END: u8 = 0x14;
    pub(super) const RESET: u8 = 0x15;
    pub(super) const DETACH: u8 = 0x16;
    /// From here on: extensions, which are skipped if unknown.
    pub(super) const EXTENSION: u8 = 0x80;
}

/// One frame, or one piece of a data frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Device to service, first of all: session mode is supported here.
    Greeting(Greeting),
    /// Service to device: a new session.
    Hello {
        /// The chosen version.
        version: u8,
        /// Names the session.
        id: SessionId,
        /// Proves, later, that a resume is the service's.
        secret: ResumeSecret,
        /// How long the service keeps a detached session.
        grace: Duration,
    },
    /// Device to service: the session exists.
    Welcome {
        /// How long the device keeps a detached session.
        grace: Duration,
    },
    /// Service to device: resume a session.
    Resume {
        /// The chosen version.
        version: u8,
        /// Which session.
        id: SessionId,
        /// Bytes that the service has received.
        received: u64,
        /// The service's challenge to the device.
        challenge: Challenge,
        /// Over the device's challenge.
        proof: Proof,
    },
    /// Device to service: the session is resumed.
    Resumed {
        /// Bytes that the device has received.
        received: u64,
        /// Over the service's challenge.
        proof: Proof,
    },
    /// Device to service: the request is refused.
    Refused {
        /// Why.
        code: Code,
        /// The same for a person; may be empty.
        text: String,
    },
    /// Bytes of the session, or the next piece of them.
    Data {
        /// Offset of the first byte.
        offset: u64,
        /// The bytes; of a large frame, those that have arrived.
        bytes: Bytes,
        /// Whether the sender requests an acknowledgement at once.
        wants_ack: bool,
    },
    /// All bytes before this offset have arrived.
    Ack {
        /// The offset.
        received: u64,
        /// How long this was held back.
        delay: Duration,
        /// When the newest of these bytes arrived, in microseconds by the receiver's clock, whose
        /// zero is any time. An older peer does not tell it.
        arrived: Option<u64>,
    },
    /// Keepalive, answered by an [`Frame::Ack`].
    Ping,
    /// The session is over in order.
    End,
    /// The session is over; its connections are reset.
    Reset {
        /// Why.
        code: Code,
        /// The same for a person; may be empty.
        text: String,
    },
    /// This carrier is over; the session is not.
    Detach {
        /// Why.
        code: Code,
    },
}

/// The first frame of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Greeting {
    /// Lowest version that it supports.
    pub lowest: u8,
    /// Highest version that it supports.
    pub highest: u8,
    /// Names one run of the device's program.
    pub boot_id: BootId,
    /// Answered by a resume's proof; never used twice.
    pub challenge: Challenge,
}

/// The bytes are no frames of this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the peer sent what is no frame of a session")]
pub struct Malformed;

impl Frame {
    /// The whole frame. Data is normally framed in place, by [`data_header`].
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(128);
        out.put_u32(0);
        let kind = self.encode_payload(&mut out);
        let length = out.len().saturating_sub(HEADER);
        if let Some(header) = out.first_chunk_mut() {
            *header = self::header(kind, length);
        }
        out.freeze()
    }

    fn encode_payload(&self, out: &mut BytesMut) -> u8 {
        match self {
            Self::Greeting(greeting) => {
                out.put_slice(&MAGIC);
                out.put_u8(greeting.lowest);
                out.put_u8(greeting.highest);
                out.put_slice(greeting.boot_id.as_bytes());
                out.put_slice(&greeting.challenge.0);
                kind::GREETING
            }
            Self::Hello {
                version,
                id,
                secret,
                grace,
            } => {
                out.put_u8(*version);
                out.put_slice(&id.0);
                out.put_slice(secret.expose());
                out.put_u32(seconds(*grace));
                kind::HELLO
            }
            Self::Welcome { grace } => {
                out.put_u32(seconds(*grace));
                kind::WELCOME
            }
            Self::Resume {
                version,
                id,
                received,
                challenge,
                proof,
            } => {
                out.put_u8(*version);
                out.put_slice(&id.0);
                out.put_u64(*received);
                out.put_slice(&challenge.0);
                out.put_slice(&proof.0);
                kind::RESUME
            }
            Self::Resumed { received, proof } => {
                out.put_u64(*received);
                out.put_slice(&proof.0);
                kind::RESUMED
            }
            Self::Refused { code, text } => {
                put_reason(out, *code, text);
                kind::REFUSED
            }
            Self::Data {
                offset,
                bytes,
                wants_ack,
            } => {
                out.put_u64(*offset);
                out.put_slice(bytes);
                data_kind(*wants_ack)
            }
            Self::Ack {
                received,
                delay,
                arrived,
            } => {
                out.put_u64(*received);
                out.put_u32(u32::try_from(delay.as_micros()).unwrap_or(u32::MAX));
                if let Some(arrived) = arrived {
                    out.put_u64(*arrived);
                }
                kind::ACK
            }
            Self::Ping => kind::PING,
            Self::End => kind::END,
            Self::Reset { code, text } => {
                put_reason(out, *code, text);
                kind::RESET
            }
            Self::Detach { code } => {
                out.put_u8(code.to_u8());
                kind::DETACH
            }
        }
    }

    fn decode(kind: u8, mut payload: Bytes) -> Option<Self> {
        Some(match kind {
            kind::GREETING => {
                if payload.array()? != MAGIC {
                    return None;
                }
                Self::Greeting(Greeting {
                    lowest: payload.u8()?,
                    highest: payload.u8()?,
                    boot_id: BootId::from_bytes(payload.array()?),
                    challenge: Challenge(payload.array()?),
                })
            }
            kind::HELLO => Self::Hello {
                version: payload.u8()?,
                id: SessionId(payload.array()?),
                secret: ResumeSecret::from_bytes(payload.array()?),
                grace: Duration::from_secs(payload.u32()?.into()),
            },
            kind::WELCOME => Self::Welcome {
                grace: Duration::from_secs(payload.u32()?.into()),
            },
            kind::RESUME => Self::Resume {
                version: payload.u8()?,
                id: SessionId(payload.array()?),
                received: payload.u64()?,
                challenge: Challenge(payload.array()?),
                proof: Proof(payload.array()?),
            },
            kind::RESUMED => Self::Resumed {
                received: payload.u64()?,
                proof: Proof(payload.array()?),
            },
            kind::REFUSED => Self::Refused {
                code: Code::from_u8(payload.u8()?),
                text: text(&payload),
            },
            kind::ACK => Self::Ack {
                received: payload.u64()?,
                delay: Duration::from_micros(payload.u32()?.into()),
                arrived: payload.u64(),
            },
            kind::PING => Self::Ping,
            kind::END => Self::End,
            kind::RESET => Self::Reset {
                code: Code::from_u8(payload.u8()?),
                text: text(&payload),
            },
            kind::DETACH => Self::Detach {
                code: Code::from_u8(payload.u8()?),
            },
            _ => return None,
        })
    }
}

fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

fn put_reason(out: &mut BytesMut, code: Code, reason: &str) {
    out.put_u8(code.to_u8());
    out.put_slice(text(reason.as_bytes()).as_bytes());
}

fn data_kind(wants_ack: bool) -> u8 {
    if wants_ack {
        kind::DATA_ACK
    } else {
        kind::DATA
    }
}

fn header(kind: u8, length: usize) -> [u8; HEADER] {
    // Our frames are far smaller than 16 MiB.
    let [_, a, b, c] = u32::try_from(length).unwrap_or(0).to_be_bytes();
    [kind, a, b, c]
}

/// The first [`HEADER`] and [`DATA_PREFIX`] bytes of a data frame with `length` bytes after them.
pub(super) fn data_header(
    offset: u64,
    length: usize,
    wants_ack: bool,
) -> [u8; HEADER + DATA_PREFIX] {
    let mut out = [0; HEADER + DATA_PREFIX];
    let (front, back) = out.split_at_mut(HEADER);
    front.copy_from_slice(&header(data_kind(wants_ack), length + DATA_PREFIX));
    back.copy_from_slice(&offset.to_be_bytes());
    out
}

#[cfg(test)]
mod tests;
