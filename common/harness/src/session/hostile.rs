//! One end, and a peer that violates the protocol: it may end the session, but do no other harm.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use device_stream_session::Inbound;
use device_stream_session::frame::{Decoder, Frame};
use device_stream_session::inner::Inner;
use device_stream_session::limits;
use device_stream_session::proof::{Challenge, Proof, ResumeSecret};
use device_stream_session::{
    CarrierId, Chunk, Code, ConnectionId, Over, RefusedCode, Role, Session, SessionId,
};

use super::{Choices, frames};

/// The most events of one run.
const EVENTS: u64 = 300;

/// An end whose local side does anything that is allowed.
struct End {
    role: Role,
    session: Session,
    carrier: Option<CarrierId>,
    now: Instant,
    ids: Vec<ConnectionId>,
}

impl End {
    fn new(role: Role) -> Self {
        let now = Instant::now();
        let mut end = Self {
            role,
            session: Session::new(role, now),
            carrier: None,
            now,
            ids: Vec::new(),
        };
        end.carrier = end.session.attach(0, now).ok();
        end
    }

    fn id(&self, choices: &mut Choices<'_>) -> ConnectionId {
        let nth = choices.below(self.ids.len() as u64 + 1) as usize;
        let unknown = ConnectionId(choices.below(4) as u32);
        self.ids.get(nth).copied().unwrap_or(unknown)
    }

    /// Does one random action of the local side.
    fn act(&mut self, choices: &mut Choices<'_>) {
        let now = self.now;
        let id = self.id(choices);
        match choices.below(12) {
            0 | 1 => self.ids.extend(self.session.open()),
            2 | 3 => {
                let room = self.session.room(id).min(choices.volume(70_000) as usize);
                self.session.send(id, Chunk::copy_of(&vec![7; room]), now);
            }
            4 => self.session.finish(id, now),
            5 | 6 => drop(self.session.take(id, now)),
            7 => self.session.release(id),
            8 => self.session.opened(id),
            9 => self
                .session
                .refuse(id, RefusedCode::TimedOut, "slow".to_owned()),
            10 => self.now += Duration::from_micros(choices.volume(20_000_000)),
            _ if choices.one_in(20) => self.session.end(),
            _ if choices.one_in(20) => self.session.reset(Code::Stopping, "stop"),
            _ => {}
        }
        drop(self.session.touched());
    }

    /// All messages that it sends now.
    fn transmit(&mut self) -> Vec<Bytes> {
        let Some(carrier) = self.carrier else {
            return Vec::new();
        };
        let mut messages = Vec::new();
        while let Some(message) = self.session.transmit(carrier, self.now) {
            messages.push(message);
            assert!(messages.len() < 50_000, "no end of messages");
        }
        let deadline = self.session.deadline().expect("a carrier");
        let is_over = self.session.over().is_some() || self.session.is_dead(self.now);
        assert!(is_over || deadline > self.now, "a hot loop");
        messages
    }

    /// Receives a piece; returns whether the session continues. After a violation the end sends the
    /// reason.
    fn receive(&mut self, piece: Bytes) -> bool {
        let Some(carrier) = self.carrier else {
            return true;
        };
        let was_over = self.session.over().is_some();
        let received = self.session.receive(carrier, piece, self.now);
        while let Some(id) = self.session.next_incoming() {
            self.ids.push(id);
        }
        self.check();
        if received.is_err() {
            assert!(!was_over);
            assert_eq!(self.session.over(), Some(&Over::Broken(Code::Protocol)));
            let closing = self.transmit();
            let [closing] = &closing[..] else {
                panic!("{} messages after the end", closing.len())
            };
            let frame = Decoder::default().next(&mut closing.clone());
            let is_reset = |frame: &Frame| matches!(frame, Frame::Reset { code, .. } if *code == Code::Protocol);
            assert!(frame.is_ok_and(|frame| frame.as_ref().is_some_and(is_reset)));
        }
        self.session.over().is_none()
    }

    fn check(&self) {
        let memory = self.session.kept();
        let connections = self.session.connections();
        assert!(connections <= 2 * limits::CONNECTIONS + 1);
        let connections = connections as u64;
        let taken = limits::CREDIT_SHARED - memory.shared;
        let chunks = connections * (limits::CHUNK as u64 + 64);
        let most = connections * limits::CREDIT_FIRST + taken + chunks;
        assert!(memory.waiting <= most, "{memory:?}");
        assert!(memory.unacknowledged <= limits::WINDOW_MOST + (256 << 10));
    }

    /// Ends the session: the local sides see it, and nothing is left when they are done.
    fn close(&mut self) {
        self.session.reset(Code::Stopping, "the end");
        while let Some(id) = self.session.next_incoming() {
            self.ids.push(id);
        }
        drop(self.session.touched());
        for id in std::mem::take(&mut self.ids) {
            let inbound = self.session.take(id, self.now);
            let is_due = self.session.over() == Some(&Over::Ended);
            assert!(is_due || inbound == Inbound::Reset);
            self.session.release(id);
        }
        assert_eq!(self.session.connections(), 0, "connections are left");
        assert_eq!(self.session.held(), 0);
        let memory = self.session.kept();
        assert_eq!(memory.shared, limits::CREDIT_SHARED);
        assert!(self.transmit().len() <= 1, "no more than one last frame");
        assert!(self.transmit().is_empty());
    }
}

fn role(choices: &mut Choices<'_>) -> Role {
    [Role::Service, Role::Device][choices.below(2) as usize]
}

/// A peer that sends frames of all kinds, some of them valid.
///
/// # Panics
/// When this does more harm than to end the session.
pub fn hostile(choices: &mut Choices<'_>) {
    let mut end = End::new(role(choices));
    // Offset up to which the peer has sent.
    let mut sent = 0;
    for _ in 0..EVENTS {
        if choices.is_used_up() {
            break;
        }
        let bytes = match choices.below(16) {
            0..5 => {
                end.act(choices);
                continue;
            }
            5 | 6 => {
                end.transmit();
                continue;
            }
            7 => {
                let known = end.session.acknowledged_bytes();
                sent = end.session.freeze(end.now);
                let received = match choices.below(6) {
                    0 => choices.below(2 * known + 10_000),
                    _ => known,
                };
                let attached = end.session.attach(received, end.now);
                end.carrier = attached.ok();
                continue;
            }
            8..14 => stream_frame(&end, &mut sent, choices),
            14 => carrier_frame(&end, choices).encode(),
            _ if !choices.one_in(20) => Frame::Ping.encode(),
            _ => {
                let count = choices.volume(600);
                choices.bytes(count).into()
            }
        };
        if !end.receive(bytes) {
            break;
        }
    }
    end.close();
}

/// Inner frames, mostly at the correct offset of the stream.
fn stream_frame(end: &End, sent: &mut u64, choices: &mut Choices<'_>) -> Bytes {
    let mut bytes = BytesMut::new();
    let known = &end.ids;
    let mut next = known.last().map_or(0, |id| id.0);
    let first = known.first().copied().unwrap_or(ConnectionId(1));
    for _ in 0..=choices.below(3) {
        let id = match choices.below(60) {
            0 => ConnectionId(choices.below(20) as u32),
            _ => known
                .get(choices.below(6) as usize)
                .copied()
                .unwrap_or(first),
        };
        // Frames of the other role are rare: they end the run.
        let is_service = (end.role == Role::Service) != choices.one_in(100);
        let kinds = if known.is_empty() { 3 } else { 12 };
        match choices.below(kinds) {
            0..3 if !is_service => {
                next += 1 + choices.below(10) as u32 / 9;
                Inner::Open.encode(ConnectionId(next), &mut bytes);
            }
            3 if is_service => Inner::Opened.encode(id, &mut bytes),
            4 if is_service => {
                let code = RefusedCode::Other(choices.below(256) as u8);
                let text = "no".to_owned();
                Inner::Refused { code, text }.encode(id, &mut bytes);
            }
            5..8 => {
                let count = choices.volume(20_000) as usize;
                Inner::Data(vec![9; count].into()).encode(id, &mut bytes);
            }
            8 => Inner::Fin.encode(id, &mut bytes),
            9 => Inner::Rst.encode(id, &mut bytes),
            10 => Inner::Credit(choices.volume(1 << 40)).encode(id, &mut bytes),
            // A flood of connections.
            11 if !is_service && choices.one_in(10) => {
                let most = 3 * limits::CONNECTIONS as u32;
                for _ in 0..choices.below(most.into()) {
                    next += 1;
                    Inner::Open.encode(ConnectionId(next), &mut bytes);
                }
            }
            _ => {}
        }
    }
    let offset = match choices.below(100) {
        98 => choices.below(u64::MAX),
        99 => choices.below((*sent).saturating_mul(2).max(1)),
        _ => *sent,
    };
    *sent = (*sent).max(offset.saturating_add(bytes.len() as u64));
    let wants_ack = choices.one_in(2);
    Frame::Data {
        offset,
        bytes: bytes.freeze(),
        wants_ack,
    }
    .encode()
}

fn carrier_frame(end: &End, choices: &mut Choices<'_>) -> Frame {
    let code = Code::Stopping;
    let text = "bye".to_owned();
    let challenge = Challenge([1; 16]);
    match choices.below(100) {
        0..6 => Frame::Ping,
        6 => Frame::End,
        7 => Frame::Reset { code, text },
        8 => Frame::Detach { code },
        9 => Frame::Refused { code, text },
        10 => Frame::Welcome {
            grace: Duration::from_secs(1),
        },
        11 => Frame::Resumed {
            received: 0,
            proof: Proof([2; 32]),
        },
        12 => Frame::Resume {
            version: 1,
            id: SessionId([3; 16]),
            received: 0,
            challenge,
            proof: Proof([2; 32]),
        },
        13 => Frame::Hello {
            version: 1,
            id: SessionId([3; 16]),
            secret: ResumeSecret::from_bytes([4; 32]),
            grace: Duration::ZERO,
        },
        _ => Frame::Ack {
            received: end.session.acknowledged_bytes()
                + match choices.below(20) {
                    0 => choices.volume(100_000),
                    _ => choices.below(end.session.kept().unacknowledged + 1),
                },
            delay: Duration::from_micros(choices.volume(1 << 32)),
            arrived: (choices.below(2) == 0).then(|| choices.volume(u64::MAX)),
        },
    }
}

/// Two ends whose messages are corrupted on the way.
///
/// # Panics
/// When this does more harm than to end the session.
pub fn perturbed(choices: &mut Choices<'_>) {
    let mut ends = [End::new(Role::Service), End::new(Role::Device)];
    let harm = 1 + choices.below(60);
    for _ in 0..EVENTS {
        if choices.is_used_up() {
            break;
        }
        let side = choices.below(2) as usize;
        for _ in 0..=choices.below(4) {
            ends[side].act(choices);
        }
        ends[1 - side].now = ends[side].now.max(ends[1 - side].now);
        for mut message in ends[side].transmit() {
            if choices.one_in(harm) {
                message = perturb(&message, choices);
                frames(&message);
            }
            if !ends[1 - side].receive(message) {
                break;
            }
        }
        if ends.iter().any(|end| end.session.over().is_some()) {
            break;
        }
    }
    for end in &mut ends {
        end.close();
    }
}

fn perturb(message: &[u8], choices: &mut Choices<'_>) -> Bytes {
    let mut bytes = message.to_vec();
    // Mostly corrupts headers, which matter more than payloads.
    let most = bytes.len().min(if choices.one_in(4) { 65_536 } else { 40 });
    let place = choices.below(most as u64) as usize;
    match choices.below(5) {
        0 => bytes[place] ^= 1 << choices.below(8),
        1 => bytes[place] = choices.below(256) as u8,
        2 => bytes.truncate(place),
        3 => bytes.insert(place, choices.below(256) as u8),
        _ => {
            bytes.remove(place);
        }
    }
    bytes.into()
}
