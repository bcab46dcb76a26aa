//! rustls' unbuffered connections: what they do with the bytes that have arrived, and how they seal.

use std::io::IoSlice;

use rustls::CommonState;
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic,
};

use super::outgoing::Outgoing;

/// The most plaintext in a record.
const RECORD: usize = 16 << 10;
/// What a record takes beyond its plaintext, at most.
const OVERHEAD: usize = 64;

/// One end of a connection.
pub trait End: Unpin {
    /// rustls' type for it.
    type Data;

    /// rustls' function of this name.
    fn process_tls_records<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data>;

    /// What the handshake has found.
    fn common(&self) -> &CommonState;
}

impl End for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process_tls_records<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        (**self).process_tls_records(incoming)
    }

    fn common(&self) -> &CommonState {
        self
    }
}

impl End for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process_tls_records<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        (**self).process_tls_records(incoming)
    }

    fn common(&self) -> &CommonState {
        self
    }
}

/// What came of the bytes that had arrived.
#[derive(Debug)]
pub(super) struct Processed<R> {
    /// So many of them are done with. The others must be there again the next time.
    pub(super) done: usize,
    /// The peer sends nothing more.
    pub(super) has_ended: bool,
    /// What was made of the permission to send, if there is one.
    pub(super) sent: Option<R>,
}

/// Processes what has arrived: gives the opened bytes to `take`, and adds what the protocol itself sends
/// to `outgoing`. Then `send` may seal.
///
/// # Errors
/// When the peer violates the protocol, or does not prove what it should. What is then in `outgoing`
/// tells it.
pub(super) fn process<E: End, R>(
    end: &mut E,
    incoming: &mut [u8],
    outgoing: &mut Outgoing,
    mut take: impl FnMut(&[u8]),
    send: impl FnOnce(&mut WriteTraffic<'_, E::Data>, &mut Outgoing) -> R,
) -> Result<Processed<R>, rustls::Error> {
    let (mut done, mut has_ended, mut send) = (0, false, Some(send));
    loop {
        let left = incoming.get_mut(done..).unwrap_or_default();
        let UnbufferedStatus { mut discard, state } = end.process_tls_records(left);
        let mut sent = None;
        let is_last = match state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                while let Some(record) = traffic.next_record() {
                    let record = record?;
                    discard += record.discard;
                    take(record.payload);
                }
                false
            }
            Ok(ConnectionState::EncodeTlsData(message)) => {
                encode(message, outgoing);
                false
            }
            Ok(ConnectionState::TransmitTlsData(message)) => {
                // `outgoing` is written in order, before anything that comes later.
                message.done();
                false
            }
            Ok(ConnectionState::PeerClosed) => {
                has_ended = true;
                false
            }
            Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                sent = send.take().map(|send| send(&mut traffic, outgoing));
                true
            }
            // More has to arrive, or nothing will. Early data is not enabled.
            Ok(_) => true,
            Err(error) => {
                // The alert for the peer. While there is one, rustls does not look at the bytes again.
                while end.common().wants_write()
                    && let Ok(ConnectionState::EncodeTlsData(message)) =
                        end.process_tls_records(left).state
                {
                    encode(message, outgoing);
                }
                return Err(error);
            }
        };
        done += discard;
        if is_last {
            return Ok(Processed {
                done,
                has_ended,
                sent,
            });
        }
    }
}

fn encode<D>(mut message: EncodeTlsData<'_, D>, outgoing: &mut Outgoing) {
    let mut room = 0;
    while let Err(EncodeError::InsufficientSize(size)) =
        outgoing.add(room, |place| message.encode(place))
    {
        room = size.required_size;
    }
}

/// Seals at most `most` bytes, in records as large as possible. Returns how many.
///
/// # Errors
/// When no more may be sealed with this connection's keys.
pub(super) fn seal<D>(
    traffic: &mut WriteTraffic<'_, D>,
    slices: &[IoSlice<'_>],
    most: usize,
    outgoing: &mut Outgoing,
) -> Result<usize, EncryptError> {
    let total = slices
        .iter()
        .map(|slice| slice.len())
        .sum::<usize>()
        .min(most);
    let mut slices = slices.iter();
    let (mut slice, mut left, mut gathered): (&[u8], usize, Vec<u8>) = (&[], total, Vec::new());
    while left > 0 {
        let record = left.min(RECORD);
        if slice.is_empty() {
            slice = slices.next().map_or(&[], |slice| slice);
        } else if let Some((whole, rest)) = slice.split_at_checked(whole_records(slice.len(), left))
            && !whole.is_empty()
        {
            encrypt(traffic, whole, outgoing)?;
            (slice, left) = (rest, left - whole.len());
        } else {
            // The header of a message, and as much of what follows as goes into its record.
            gathered.clear();
            gathered.reserve_exact(record);
            gathered.extend_from_slice(slice);
            while gathered.len() < record {
                slice = slices.next().map_or(&[], |slice| slice);
                let (part, rest) = slice.split_at(slice.len().min(record - gathered.len()));
                gathered.extend_from_slice(part);
                slice = rest;
            }
            encrypt(traffic, &gathered, outgoing)?;
            left -= record;
        }
    }
    Ok(total)
}

/// How much of a slice needs nothing from the next one: whole records, or all that is left.
fn whole_records(slice: usize, left: usize) -> usize {
    if slice >= left {
        left
    } else {
        slice - slice % RECORD
    }
}

fn encrypt<D>(
    traffic: &mut WriteTraffic<'_, D>,
    bytes: &[u8],
    outgoing: &mut Outgoing,
) -> Result<(), EncryptError> {
    let room = bytes.len() + OVERHEAD * (bytes.len().div_ceil(RECORD) + 1);
    match outgoing.add(room, |place| traffic.encrypt(bytes, place)) {
        // The protocol has something of its own to send first.
        Err(EncryptError::InsufficientSize(size)) => {
            outgoing.add(size.required_size, |place| traffic.encrypt(bytes, place))
        }
        result => result,
    }
}

/// Adds the end of what we send.
pub(super) fn close<D>(traffic: &mut WriteTraffic<'_, D>, outgoing: &mut Outgoing) {
    let mut room = OVERHEAD;
    while let Err(EncryptError::InsufficientSize(size)) =
        outgoing.add(room, |place| traffic.queue_close_notify(place))
    {
        room = size.required_size;
    }
}
