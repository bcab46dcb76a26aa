//! The frames inside a session's byte stream; each belongs to one inner connection
//! (`docs/session-protocol.md`, "Inner frames").
//!
//! ```text
//! type u8 | length u24 | connection u32 | payload      all numbers big-endian
//! ```

use bytes::{BufMut as _, Bytes, BytesMut};

pub use crate::proto::codes::RefusedCode;
use crate::proto::collect::{Collect, Fields as _, text};

/// Length of a frame's header in bytes.
pub const HEADER: usize = 8;
/// Longest payload of any frame but data.
const CONTROL: usize = 512;

mod kind {
    pub(super) const OPEN: u8 = 0x01;
    pub(super) const OPENED: u8 = 0x02;
    pub(super) const REFUSED: u8 = 0x03;
    pub(super) const DATA: u8 = 0x04;
    pub(super) const FIN: u8 = 0x05;
    pub(super) const RST: u8 = 0x06;
    pub(super) const CREDIT: u8 = 0x07;
    /// From here on: extensions, which are skipped if unknown.
    pub(super) const EXTENSION: u8 = 0x80;
}

/// Names an inner connection; the service counts up from 1 and never uses one twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u32);

impl std::fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// One inner frame, or one piece of a data frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inner {
    /// Service to device: connect to the target.
    Open,
    /// Device to service: it is connected.
    Opened,
    /// Device to service: it could not be connected.
    Refused {
        /// Why.
        code: RefusedCode,
        /// The same for a person; may be empty.
        text: String,
    },
    /// Bytes of the connection, or the next piece of them.
    Data(Bytes),
    /// No more bytes will come from this side.
    Fin,
    /// The connection was reset on this side.
    Rst,
    /// How many bytes may be sent to this side in total, counted from the first.
    Credit(u64),
}

/// The bytes are no inner frames of this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the peer sent what is no frame of a connection")]
pub struct Malformed;

impl Inner {
    /// Appends the whole frame. Data is normally framed in place, by [`data_header`].
    pub fn encode(&self, connection: ConnectionId, out: &mut BytesMut) {
        let mut payload = BytesMut::new();
        let kind = match self {
            Self::Open => kind::OPEN,
            Self::Opened => kind::OPENED,
            Self::Refused { code, text: reason } => {
                payload.put_u8(code.to_u8());
                payload.put_slice(text(reason.as_bytes()).as_bytes());
                kind::REFUSED
            }
            Self::Data(bytes) => {
                payload.put_slice(bytes);
                kind::DATA
            }
            Self::Fin => kind::FIN,
            Self::Rst => kind::RST,
            Self::Credit(limit) => {
                payload.put_u64(*limit);
                kind::CREDIT
            }
        };
        out.put_slice(&header(kind, payload.len(), connection));
        out.put_slice(&payload);
    }

    fn decode(kind: u8, mut payload: Bytes) -> Option<Self> {
        Some(match kind {
            kind::OPEN => Self::Open,
            kind::OPENED => Self::Opened,
            kind::REFUSED => Self::Refused {
                code: RefusedCode::from_u8(payload.u8()?),
                text: text(&payload),
            },
            kind::FIN => Self::Fin,
            kind::RST => Self::Rst,
            kind::CREDIT => Self::Credit(payload.u64()?),
            _ => return None,
        })
    }
}

fn header(kind: u8, length: usize, connection: ConnectionId) -> [u8; HEADER] {
    let [_, a, b, c] = u32::try_from(length).unwrap_or(0).to_be_bytes();
    let [d, e, f, g] = connection.0.to_be_bytes();
    [kind, a, b, c, d, e, f, g]
}

/// The header of a data frame with `length` bytes behind it.
pub(super) fn data_header(connection: ConnectionId, length: usize) -> [u8; HEADER] {
    header(kind::DATA, length, connection)
}

/// Reads inner frames from pieces of any size. It exists as long as the session, since a frame may
/// begin on one carrier and end on the next.
#[derive(Debug, Default)]
pub struct InnerDecoder {
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
        connection: ConnectionId,
    },
    Data {
        left: usize,
        connection: ConnectionId,
    },
    Skip {
        left: usize,
    },
}

impl InnerDecoder {
    /// Takes the next frame from the front of `piece`; `None` when more pieces are needed.
    ///
    /// # Errors
    /// [`Malformed`]: the session cannot continue.
    pub fn next(&mut self, piece: &mut Bytes) -> Result<Option<(ConnectionId, Inner)>, Malformed> {
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
                State::Payload {
                    kind,
                    length,
                    connection,
                } => {
                    let Some(payload) = self.collect.take(*length, piece) else {
                        return Ok(None);
                    };
                    let frame = Inner::decode(*kind, payload).ok_or(Malformed)?;
                    let connection = *connection;
                    self.state = State::Header;
                    return Ok(Some((connection, frame)));
                }
                State::Data { left, connection } => {
                    let bytes = piece.split_to(piece.len().min(*left));
                    *left -= bytes.len();
                    let (is_whole, connection) = (*left == 0, *connection);
                    if is_whole {
                        self.state = State::Header;
                    }
                    if !bytes.is_empty() {
                        return Ok(Some((connection, Inner::Data(bytes))));
                    }
                    if !is_whole {
                        return Ok(None);
                    }
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

    fn begin(mut header: Bytes) -> Result<State, Malformed> {
        let [kind, a, b, c] = header.array().ok_or(Malformed)?;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let connection = ConnectionId(header.u32().ok_or(Malformed)?);
        match kind {
            kind::DATA => Ok(State::Data {
                left: length,
                connection,
            }),
            kind::EXTENSION.. => Ok(State::Skip { left: length }),
            _ if length <= CONTROL => Ok(State::Payload {
                kind,
                length,
                connection,
            }),
            _ => Err(Malformed),
        }
    }
}

#[cfg(test)]
mod tests;
