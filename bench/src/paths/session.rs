//! A session on a simulated path: in each direction a stream of bytes over one half of a TCP
//! connection, limited by the product's own window machine; acknowledgements and keystrokes are
//! messages in the same two halves.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use device_stream_session::limits;
use device_stream_session::window::{Sample, Window};

use super::packet::{MS, Nanos};
use super::tcp::Half;

/// Frame and inner header of a message with data.
const OVERHEAD: u64 = 32;
/// An acknowledgement, with its WebSocket header.
const ACK: u64 = 32;
/// A keystroke's message.
const KEY: u64 = 64;
/// The send buffer of a socket: at first, and at most (Linux's defaults).
const LEAST_BUFFER: u64 = 87_040;
const MOST_BUFFER: u64 = 16 << 20;

/// What a message says; it is there when its last byte is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Message {
    Data {
        /// The offset of its end in the session's stream.
        end: u64,
        wants_ack: bool,
        key: Option<Key>,
    },
    Ack {
        received: u64,
        arrived: Nanos,
    },
}

/// A keystroke, or its echo on the way back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    pub(super) typed: Nanos,
    pub(super) is_echo: bool,
}

/// The sending end of one direction.
#[derive(Debug)]
pub(super) struct Sender {
    window: Window,
    has_bulk: bool,
    next: u64,
    acked: u64,
    unasked: u64,
    credit: u64,
    credit_window: u64,
    keys: VecDeque<Key>,
    acks: VecDeque<Message>,
    /// When each message that wants an acknowledgement was handed to TCP, by its end.
    handed: VecDeque<(u64, Nanos)>,
    /// In TCP: its offset there, and the message.
    messages: VecDeque<(u64, Message)>,
    /// The peer's: bytes it has received in the session's stream.
    received: u64,
}

impl Sender {
    pub(super) fn new() -> Self {
        Self {
            window: Window::new(0),
            has_bulk: false,
            next: 0,
            acked: 0,
            unasked: 0,
            credit: limits::CREDIT_FIRST,
            credit_window: limits::CREDIT_FIRST,
            keys: VecDeque::new(),
            acks: VecDeque::new(),
            handed: VecDeque::new(),
            messages: VecDeque::new(),
            received: 0,
        }
    }

    pub(super) fn set_bulk(&mut self, has_bulk: bool) {
        self.has_bulk = has_bulk;
    }

    pub(super) fn window(&self) -> u64 {
        self.window.size()
    }

    /// Bytes that were acknowledged.
    pub(super) fn acked(&self) -> u64 {
        self.acked
    }

    pub(super) fn type_key(&mut self, key: Key) {
        self.keys.push_back(key);
    }

    pub(super) fn owe_ack(&mut self, ack: Message) {
        self.acks.push_back(ack);
    }

    /// Hands to TCP what the window and the socket's buffer take. Bulk that has to wait only for
    /// its time is handed at the returned one.
    pub(super) fn hand(&mut self, tcp: &mut Half, start: Instant, now: Nanos) -> Option<Nanos> {
        let at = start + Duration::from_nanos(now);
        let buffer = (2 * tcp.window()).clamp(LEAST_BUFFER, MOST_BUFFER);
        while tcp.held() < buffer && tcp.unsent() < u64::from(limits::CARRIER_UNSENT) {
            if let Some(ack) = self.acks.pop_front() {
                let offset = tcp.write(ACK);
                self.messages.push_back((offset, ack));
                continue;
            }
            let in_flight = self.next - self.acked;
            let size = self.window.size();
            let key = if in_flight < size + limits::WINDOW_SMALL {
                self.keys.pop_front()
            } else {
                None
            };
            let length = match key {
                Some(_) => KEY,
                None if !self.has_bulk || self.next >= self.credit => return None,
                None if in_flight >= size => {
                    self.window.is_limiting();
                    return None;
                }
                None if let Some(later) = self.window.paced_until(at) => {
                    // As timers do, on the next millisecond.
                    let wait = (later - at).as_nanos() as Nanos;
                    return Some((now + wait.max(1)).div_ceil(MS) * MS);
                }
                None => (self.window.chunk() as u64).min(self.credit - self.next),
            };
            self.unasked += length;
            let wants_ack = self.unasked >= self.window.ack_every() || in_flight + length >= size;
            if wants_ack {
                self.unasked = 0;
            }
            self.next += length;
            self.window.sent(length, at);
            let offset = tcp.write(length + OVERHEAD);
            let message = Message::Data {
                end: self.next,
                wants_ack,
                key,
            };
            self.messages.push_back((offset, message));
            self.handed.push_back((self.next, now));
        }
        None
    }

    /// The next message of which the peer's TCP has all bytes.
    pub(super) fn arrived(&mut self, tcp: &Half) -> Option<Message> {
        let (offset, message) = *self.messages.front()?;
        if offset > tcp.received() {
            return None;
        }
        self.messages.pop_front();
        if let Message::Data { end, .. } = message {
            self.received = end;
        }
        Some(message)
    }

    /// The peer's acknowledgement arrives. The window learns what a real one would tell.
    pub(super) fn acknowledged(
        &mut self,
        received: u64,
        arrived: Nanos,
        start: Instant,
        now: Nanos,
    ) {
        let newly = received.saturating_sub(self.acked);
        self.acked = self.acked.max(received);
        let mut handed = None;
        while let Some((end, at)) = self.handed.front().copied()
            && end <= received
        {
            handed = Some(at);
            self.handed.pop_front();
        }
        if self.credit - self.acked <= self.credit_window * 3 / 4 {
            self.credit_window = (2 * self.credit_window).min(limits::CREDIT_MOST);
            self.credit = self.acked + self.credit_window;
        }
        let sample = handed.map(|handed| Sample {
            round_trip: Duration::from_nanos(now - handed),
            // Another clock: its zero is unknown.
            one_way: Some((arrived as i64 - handed as i64) / 1000 + 123_456_789),
        });
        let at = start + Duration::from_nanos(now);
        self.window
            .acknowledged(newly, self.acked, self.next, sample, at);
    }
}
