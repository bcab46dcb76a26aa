//! One inner connection, at one end of the session.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use crate::limits;
use crate::proto::chunk::Chunk;
use crate::proto::inner::{Inner, RefusedCode};
use crate::proto::memory::{Account, Held, Loan};
use crate::proto::scheduler::{Scheduled, Turn};

/// A piece up to this size is copied, since it might keep a large buffer alive.
const COPIED: usize = 2 << 10;

/// Bytes for the local reader.
#[derive(Debug)]
struct Piece {
    bytes: Bytes,
    /// It has memory of its own; else it is part of its large receive buffer.
    is_own: bool,
}

/// The next item for the local reader of a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Inbound {
    /// Bytes to deliver.
    Data(Bytes),
    /// The peer has ended its output in order; all of it was delivered.
    Finished,
    /// The peer's side or the session was reset: reset the local side too.
    Reset,
    /// The device did not open it.
    Refused {
        /// Why.
        code: RefusedCode,
        /// The same for a person; may be empty.
        text: String,
    },
    /// Nothing now.
    Pending,
}

/// The state of our own FIN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Fin {
    #[default]
    Open,
    Queued,
    Sent,
}

/// State of one connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) turn: Turn,
    /// The device has connected its target, and reported it.
    pub(super) opened: bool,

    // Out.
    pub(super) backlog: Option<Chunk>,
    pub(super) fin: Fin,
    sent: u64,
    credit: u64,
    /// Frames to be sent before any data.
    pub(super) owed: VecDeque<Inner>,
    pub(super) owes_credit: bool,
    /// It is in the session's list of connections with such frames.
    pub(super) is_listed: bool,

    // In.
    inbound: VecDeque<Piece>,
    /// Pieces that are part of their receive buffers.
    loose: usize,
    small: BytesMut,
    /// Bytes that wait for the local reader.
    waiting: u64,
    received: u64,
    granted: u64,
    consumed: u64,
    window: u64,
    granted_at: Option<(Instant, u64)>,
    pub(super) peer_fin: bool,
    pub(super) broken: bool,
    refused: Option<(RefusedCode, String)>,
    /// The local side is done with it; only its last frames are still to be sent.
    pub(super) released: bool,
    memory: Held,
    loan: Loan,
}

/// The peer sent more than it was given credit for, or after its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Overrun;

impl Scheduled for Connection {
    /// Whether data or FIN waits for its turn.
    fn has_output(&self) -> bool {
        !self.is_cut_off() && (self.backlog.is_some() || self.fin == Fin::Queued)
    }

    fn turn(&mut self) -> &mut Turn {
        &mut self.turn
    }
}

impl Connection {
    pub(super) fn new(account: &Arc<Account>) -> Self {
        Self {
            memory: Held::new(account),
            loan: Loan::new(account),
            turn: Turn::default(),
            opened: false,
            backlog: None,
            fin: Fin::Open,
            sent: 0,
            credit: limits::CREDIT_FIRST,
            owed: VecDeque::new(),
            owes_credit: false,
            is_listed: false,
            inbound: VecDeque::new(),
            loose: 0,
            small: BytesMut::new(),
            waiting: 0,
            received: 0,
            granted: limits::CREDIT_FIRST,
            consumed: 0,
            window: limits::CREDIT_FIRST,
            granted_at: None,
            peer_fin: false,
            broken: false,
            refused: None,
            released: false,
        }
    }

    // --- Out ---

    /// How many bytes may be taken from the local socket now.
    pub(super) fn room(&self) -> usize {
        let is_closed = self.fin != Fin::Open || self.is_cut_off() || self.released;
        if self.backlog.is_some() || is_closed {
            return 0;
        }
        usize::try_from(self.credit.saturating_sub(self.sent)).unwrap_or(usize::MAX)
    }

    /// Takes bytes that [`room`](Self::room) has allowed.
    pub(super) fn queue(&mut self, chunk: Chunk) {
        self.sent += chunk.len() as u64;
        self.backlog = Some(chunk);
        self.account();
    }

    /// The next chunk to send; if there is none, the FIN is next.
    pub(super) fn take_backlog(&mut self) -> Option<Chunk> {
        let chunk = self.backlog.take();
        self.account();
        chunk
    }

    /// Updates the memory account.
    fn account(&mut self) {
        self.memory.set(self.held());
    }

    pub(super) fn credited(&mut self, limit: u64) {
        self.credit = self.credit.max(limit);
    }

    // --- In ---

    /// Keeps bytes for the local reader.
    pub(super) fn deliver(&mut self, bytes: Bytes) -> Result<(), Overrun> {
        self.received = self
            .received
            .checked_add(bytes.len() as u64)
            .filter(|received| *received <= self.granted && !self.peer_fin)
            .ok_or(Overrun)?;
        if self.released || self.broken {
            return Ok(());
        }
        self.waiting += bytes.len() as u64;
        if bytes.len() <= COPIED {
            self.small.extend_from_slice(&bytes);
            // Large enough: the next byte begins a new piece.
            if self.small.len() >= limits::STREAM_MESSAGE {
                let bytes = self.small.split().freeze();
                self.push_own(bytes);
            }
        } else {
            self.flush_small();
            self.loose += 1;
            self.inbound.push_back(Piece {
                bytes,
                is_own: false,
            });
        }
        self.account();
        Ok(())
    }

    fn push_own(&mut self, bytes: Bytes) {
        self.inbound.push_back(Piece {
            bytes,
            is_own: true,
        });
    }

    fn flush_small(&mut self) {
        if !self.small.is_empty() {
            let bytes = std::mem::take(&mut self.small).freeze();
            self.push_own(bytes);
        }
    }

    /// How many pieces keep their receive buffers.
    pub(super) fn loose(&self) -> usize {
        self.loose
    }

    /// Copies waiting data out of its receive buffers.
    pub(super) fn tidy(&mut self) {
        if self.loose > 0 {
            let mut gathered = BytesMut::new();
            for piece in std::mem::take(&mut self.inbound) {
                if piece.is_own {
                    self.push_gathered(&mut gathered);
                    self.inbound.push_back(piece);
                    continue;
                }
                let mut rest = piece.bytes;
                while !rest.is_empty() {
                    if gathered.capacity() == 0 {
                        // At most as much as there is: little may follow.
                        let most = usize::try_from(self.waiting).unwrap_or(usize::MAX);
                        gathered.reserve(most.clamp(rest.len(), limits::STREAM_MESSAGE));
                    }
                    let room = gathered.capacity() - gathered.len();
                    let taken = rest.split_to(rest.len().min(room));
                    gathered.extend_from_slice(&taken);
                    if gathered.len() == gathered.capacity() {
                        self.push_gathered(&mut gathered);
                    }
                }
            }
            self.push_gathered(&mut gathered);
            self.loose = 0;
        }
        if self.small.capacity() > 2 * self.small.len() {
            self.small = BytesMut::from(&self.small[..]);
        }
        self.account();
    }

    fn push_gathered(&mut self, gathered: &mut BytesMut) {
        let gathered = std::mem::take(gathered);
        if gathered.is_empty() {
            return;
        }
        let is_full = gathered.capacity() < gathered.len() + gathered.len() / 8;
        self.push_own(if is_full {
            gathered.freeze()
        } else {
            Bytes::copy_from_slice(&gathered)
        });
    }

    /// Takes back data for which the local reader has no room now.
    pub(super) fn give_back(&mut self, bytes: Bytes) {
        if self.released || self.is_cut_off() {
            return;
        }
        let length = bytes.len() as u64;
        self.waiting += length;
        self.consumed = self.consumed.saturating_sub(length);
        self.loose += 1;
        self.inbound.push_front(Piece {
            bytes,
            is_own: false,
        });
        self.account();
    }

    /// The next item for the local reader.
    pub(super) fn take(&mut self) -> Inbound {
        if let Some((code, text)) = &self.refused {
            return Inbound::Refused {
                code: *code,
                text: text.clone(),
            };
        }
        if self.broken {
            return Inbound::Reset;
        }
        if self.inbound.is_empty() {
            self.flush_small();
        }
        match self.inbound.pop_front() {
            Some(Piece { bytes, is_own }) => {
                self.loose -= usize::from(!is_own);
                let length = bytes.len() as u64;
                self.waiting = self.waiting.saturating_sub(length);
                self.consumed = self.consumed.saturating_add(length);
                self.account();
                Inbound::Data(bytes)
            }
            None if self.peer_fin => Inbound::Finished,
            None => Inbound::Pending,
        }
    }

    /// Whether the peer should get more credit now, after each quarter of the window. The window
    /// grows by what was read since the last time while the peer would use all of it within two
    /// round trips, as far as the session and the program may lend.
    pub(super) fn wants_credit(
        &mut self,
        round_trip: Duration,
        may_grow: bool,
        now: Instant,
    ) -> bool {
        let unused = self.granted.saturating_sub(self.consumed);
        // A window that was made smaller leaves the peer what it had.
        self.loan
            .reduce_to(unused.max(self.window) - limits::CREDIT_FIRST);
        // Credit that is due already is sent anyway, and does not grow before that.
        if self.owes_credit || self.peer_fin || self.broken || self.released {
            return false;
        }
        let quarter = self.window / 4;
        if unused > self.window - quarter {
            return false;
        }
        let (since, consumed) = self.granted_at.replace((now, self.consumed)).unzip();
        let read = self
            .consumed
            .saturating_sub(consumed.unwrap_or_default())
            .min(self.window);
        let two_trips = 2 * round_trip.max(limits::ROUND_TRIP_LEAST);
        let in_time = two_trips.mul_f64(read as f64 / self.window as f64);
        let is_fast = since.is_some_and(|at| now - at < in_time);
        if !may_grow {
            // Memory is short: shrink to the initial window.
            self.window = limits::CREDIT_FIRST;
        } else if is_fast {
            let room = limits::CREDIT_MOST.saturating_sub(self.window);
            self.window += self.loan.grow(read.min(room));
        }
        true
    }

    /// The credit to send now.
    pub(super) fn grant(&mut self) -> u64 {
        self.granted = self.granted.max(self.consumed.saturating_add(self.window));
        self.granted
    }

    // --- Ends ---

    /// Discards the buffers of both directions.
    pub(super) fn discard(&mut self) {
        self.backlog = None;
        self.inbound = VecDeque::new();
        self.loose = 0;
        self.small = BytesMut::new();
        self.waiting = 0;
        self.account();
    }

    pub(super) fn refused(&mut self, code: RefusedCode, text: String) {
        self.discard();
        self.refused = Some((code, text));
    }

    /// Whether it was reset or refused.
    fn is_cut_off(&self) -> bool {
        self.broken || self.refused.is_some()
    }

    /// Whether both ends have finished sending, in order or not.
    pub(super) fn is_settled(&self) -> bool {
        self.is_cut_off() || (self.peer_fin && self.fin != Fin::Open)
    }

    /// Whether nothing is left to do for it.
    pub(super) fn is_over(&self) -> bool {
        self.released && self.owed.is_empty() && !self.has_output()
    }

    /// The memory of its buffers, in bytes.
    pub(super) fn held(&self) -> u64 {
        let spare = self.small.capacity() - self.small.len();
        self.waiting + spare as u64 + self.backlog.as_ref().map_or(0, Chunk::held)
    }
}
