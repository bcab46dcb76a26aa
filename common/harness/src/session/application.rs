//! The application at one end of a simulated connection: a script of bytes, pauses and an end.

use std::ops::Range;
use std::time::Instant;

use device_stream_session::Inbound;
use device_stream_session::limits;
use device_stream_session::{Chunk, ConnectionId, Session};

use super::Choices;

/// The most bytes that one side writes.
const VOLUME: u64 = 150_000;

/// One side of a connection, and what it has seen.
#[derive(Debug)]
pub(super) struct Application {
    side: usize,
    to_write: u64,
    write_most: u64,
    /// Writes nothing before it has read this many bytes.
    reads_first: u64,
    /// Aborts after this many bytes in both directions.
    aborts_at: Option<u64>,
    /// Never reads.
    pub(super) is_stuck: bool,
    pauses: u64,
    reads_again_at: u64,
    writes_again_at: u64,

    written: u64,
    has_finished: bool,
    read: u64,
    saw_end: bool,
    saw_reset: bool,
    saw_refusal: bool,
    is_aborted: bool,
    pub(super) is_released: bool,
}

/// The byte at an offset of the bytes that a side writes on a connection.
fn byte_at(id: ConnectionId, side: usize, place: u64) -> u8 {
    let salt = u64::from(id.0) * 31 + side as u64 * 101;
    (place.wrapping_mul(0x9E37_79B9) >> 13 ^ salt) as u8
}

fn bytes_at(id: ConnectionId, side: usize, places: Range<u64>) -> Vec<u8> {
    places.map(|place| byte_at(id, side, place)).collect()
}

impl Application {
    /// A script for this side; `promised` is how much the other side will write, if it is known.
    pub(super) fn new(side: usize, promised: Option<u64>, choices: &mut Choices<'_>) -> Self {
        let reads_first = match promised {
            Some(most) if choices.one_in(3) => choices.below(most + 1),
            _ => 0,
        };
        let write_most = 1 + choices.volume(100_000);
        Self {
            side,
            // Not too many small writes: they take long to simulate.
            to_write: choices.volume(VOLUME).min(write_most * 300),
            write_most,
            reads_first,
            aborts_at: choices.one_in(8).then(|| choices.volume(VOLUME)),
            is_stuck: choices.one_in(8),
            pauses: choices.below(20),
            reads_again_at: 0,
            writes_again_at: 0,
            written: 0,
            has_finished: false,
            read: 0,
            saw_end: false,
            saw_reset: false,
            saw_refusal: false,
            is_aborted: false,
            is_released: false,
        }
    }

    /// How many bytes the other side can rely on.
    pub(super) fn promise(&self) -> u64 {
        let is_reliable = self.reads_first == 0 && self.aborts_at.is_none();
        if is_reliable { self.to_write } else { 0 }
    }

    /// When it continues by itself.
    pub(super) fn next_event(&self, now: u64) -> Option<u64> {
        let times = [self.reads_again_at, self.writes_again_at];
        let is_over = self.is_released;
        times.into_iter().filter(|at| !is_over && *at > now).min()
    }

    /// Continues as far as it can at this time.
    pub(super) fn step(
        &mut self,
        id: ConnectionId,
        session: &mut Session,
        peer: Option<&Self>,
        is_refused: bool,
        (now, instant): (u64, Instant),
        choices: &mut Choices<'_>,
    ) {
        if self.is_released {
            return;
        }
        if !self.is_stuck && self.reads_again_at <= now {
            self.read_all(id, session, peer, is_refused, (now, instant), choices);
        }
        if self.read >= self.reads_first && self.writes_again_at <= now {
            self.write_all(id, session, (now, instant), choices);
        }
        let is_over = self.saw_reset || self.saw_refusal || (self.saw_end && self.has_finished);
        if is_over {
            self.is_released = true;
            session.release(id);
        } else if self
            .aborts_at
            .is_some_and(|at| self.read + self.written >= at)
        {
            self.abort(id, session);
        }
    }

    /// Aborts the connection.
    pub(super) fn abort(&mut self, id: ConnectionId, session: &mut Session) {
        if !self.is_released {
            self.is_aborted = true;
            self.is_released = true;
            session.release(id);
        }
    }

    fn write_all(
        &mut self,
        id: ConnectionId,
        session: &mut Session,
        (now, instant): (u64, Instant),
        choices: &mut Choices<'_>,
    ) {
        while self.written < self.to_write && self.writes_again_at <= now {
            let room = session.room(id) as u64;
            assert!(room <= limits::CHUNK as u64);
            let most = room.min(self.write_most).min(self.to_write - self.written);
            if most == 0 {
                return;
            }
            let end = self.written + most - choices.below(most);
            let bytes = bytes_at(id, self.side, self.written..end);
            session.send(id, Chunk::copy_of(&bytes), instant);
            self.written = end;
            self.writes_again_at = self.pause(now, choices);
        }
        if self.written == self.to_write && !self.has_finished {
            self.has_finished = true;
            session.finish(id, instant);
        }
    }

    fn read_all(
        &mut self,
        id: ConnectionId,
        session: &mut Session,
        peer: Option<&Self>,
        is_refused: bool,
        (now, instant): (u64, Instant),
        choices: &mut Choices<'_>,
    ) {
        while self.reads_again_at <= now {
            match session.take(id, instant) {
                Inbound::Data(bytes) => {
                    let peer = peer.expect("bytes without a sender");
                    assert!(!self.saw_end && !bytes.is_empty());
                    let end = self.read + bytes.len() as u64;
                    assert!(end <= peer.written, "more than was written");
                    let expected = bytes_at(id, peer.side, self.read..end);
                    assert!(bytes == expected, "other bytes than were written");
                    self.read = end;
                    self.reads_again_at = self.pause(now, choices);
                }
                Inbound::Finished => {
                    let peer = peer.expect("an end without a sender");
                    assert!(peer.has_finished && self.read == peer.written);
                    self.saw_end = true;
                    return;
                }
                Inbound::Reset => {
                    let is_aborted = peer.is_some_and(|peer| peer.is_aborted);
                    assert!(is_aborted, "a reset without an abort");
                    self.saw_reset = true;
                    return;
                }
                Inbound::Refused { .. } => {
                    assert!(is_refused, "refused without a refusal");
                    self.saw_refusal = true;
                    return;
                }
                Inbound::Pending => return,
            }
        }
    }

    fn pause(&mut self, now: u64, choices: &mut Choices<'_>) -> u64 {
        if self.pauses == 0 || !choices.one_in(4) {
            return now;
        }
        self.pauses -= 1;
        now + 1 + choices.volume(2_000_000)
    }

    /// Whether everything was delivered to it. If its peer never reads, it cannot finish, but must
    /// have all that the peer wrote.
    pub(super) fn is_complete(&self, peer: Option<&Self>) -> bool {
        let has_all =
            |peer: &Self| peer.reads_first > 0 || (self.read == peer.to_write && self.saw_end);
        self.is_released || self.is_stuck || peer.is_some_and(|peer| peer.is_stuck && has_all(peer))
    }
}
