//! One direction of a simulated TCP connection: a sender with SACK, congestion control and tail
//! loss probes, and the receiver's order of bytes.

use std::collections::VecDeque;

use super::control::{Acked, Control, State};
use super::packet::{HEADERS, MS, Nanos, Packet, SECOND, SEGMENT};

/// Later segments that must have arrived before one counts as lost.
const REORDERED: u64 = 3;

/// A half-connection.
#[derive(Debug)]
pub struct Half {
    id: usize,
    control: State,
    /// Bytes that were written so far; `u64::MAX` for a sender that always has more.
    written: u64,
    /// Bytes that were sent at least once.
    sent: u64,
    in_flight: u64,
    /// Segments that are not acknowledged, by number from `first`.
    segments: VecDeque<Segment>,
    first: u64,
    /// Transmissions, oldest first: their order, and the segment's number.
    transmissions: VecDeque<(u64, u64)>,
    order: u64,
    newest_acked: u64,
    lost: VecDeque<u64>,
    recovering_until: u64,
    delivered: u64,
    round_ends: u64,
    most_in_flight: u64,
    is_limited: bool,
    round_trip: Option<f64>,
    progress: Nanos,
    probes: u32,
    paced_until: Nanos,
    armed: Option<Nanos>,
    is_paced: bool,
    /// Segments that were lost, in all.
    pub losses: u64,
    receiver: Receiver,
}

#[derive(Debug, Clone, Copy)]
struct Segment {
    end: u64,
    length: u64,
    order: u64,
    sent: Nanos,
    attempt: u32,
    is_acked: bool,
    is_lost: bool,
    delivered: u64,
    delivered_at: Nanos,
}

#[derive(Debug, Default)]
struct Receiver {
    /// Segments from `first` on: whether and with which end they have arrived.
    arrived: VecDeque<Option<u64>>,
    first: u64,
    /// Bytes that have arrived in order.
    in_order: u64,
}

impl Half {
    /// An idle one, whose packets carry this id.
    pub fn new(id: usize, control: Control) -> Self {
        Self {
            id,
            control: State::new(control),
            written: 0,
            sent: 0,
            in_flight: 0,
            segments: VecDeque::new(),
            first: 0,
            transmissions: VecDeque::new(),
            order: 0,
            newest_acked: 0,
            lost: VecDeque::new(),
            recovering_until: 0,
            delivered: 0,
            round_ends: 0,
            most_in_flight: 0,
            is_limited: false,
            round_trip: None,
            progress: 0,
            probes: 0,
            paced_until: 0,
            armed: None,
            is_paced: false,
            losses: 0,
            receiver: Receiver::default(),
        }
    }

    /// The application writes; returns the offset of the end.
    pub fn write(&mut self, bytes: u64) -> u64 {
        self.written = self.written.saturating_add(bytes);
        self.written
    }

    /// The application writes no more.
    pub fn stop(&mut self) {
        self.written = self.sent;
    }

    /// Whether a timer has to be set for this time: there is none before it.
    pub fn arm(&mut self, due: Nanos) -> bool {
        let is_needed = self.armed.is_none_or(|armed| armed > due);
        if is_needed {
            self.armed = Some(due);
        }
        is_needed
    }

    /// Bytes that were written and not sent.
    pub fn unsent(&self) -> u64 {
        self.written - self.sent
    }

    /// Bytes in the send buffer.
    pub fn held(&self) -> u64 {
        self.unsent() + self.in_flight
    }

    /// The congestion window, in bytes.
    pub fn window(&self) -> u64 {
        self.control.window() as u64
    }

    /// Bytes that the receiver has in order.
    pub fn received(&self) -> u64 {
        self.receiver.in_order
    }

    /// The next packet, if one may be sent now.
    pub fn send(&mut self, now: Nanos) -> Option<Packet> {
        let has_lost = !self.lost.is_empty();
        if !has_lost && self.unsent() == 0 {
            return None;
        }
        if self.in_flight + SEGMENT > self.window().max(SEGMENT) && self.in_flight > 0 {
            self.is_limited = true;
            return None;
        }
        if self.control.pacing().is_some() && self.paced_until > now {
            return None;
        }
        self.order += 1;
        let order = self.order;
        let (number, length, attempt) = match self.take_lost() {
            Some(number) => {
                let segment = self.segment(number)?;
                segment.is_lost = false;
                segment.attempt += 1;
                (number, segment.length, segment.attempt)
            }
            None if self.unsent() == 0 => return None,
            None => {
                let length = self.unsent().min(SEGMENT);
                self.sent += length;
                self.segments.push_back(Segment {
                    end: self.sent,
                    length,
                    order,
                    sent: now,
                    attempt: 0,
                    is_acked: false,
                    is_lost: false,
                    delivered: 0,
                    delivered_at: 0,
                });
                (self.first + self.segments.len() as u64 - 1, length, 0)
            }
        };
        if self.in_flight == 0 {
            self.progress = now;
        }
        let (delivered, delivered_at) = (self.delivered, self.progress);
        let segment = self.segment(number)?;
        segment.order = order;
        segment.sent = now;
        (segment.delivered, segment.delivered_at) = (delivered, delivered_at);
        self.transmissions.push_back((order, number));
        self.in_flight += length;
        self.most_in_flight = self.most_in_flight.max(self.in_flight);
        let size = length + HEADERS;
        if let Some(rate) = self.control.pacing() {
            let gap = (size as f64 / rate * SECOND as f64) as Nanos;
            self.paced_until = self.paced_until.max(now) + gap;
        }
        Some(Packet {
            half: self.id,
            number,
            attempt,
            is_ack: false,
            size,
            sent: now,
            queued: now,
        })
    }

    /// When a paced sender has to be woken to send more, if that is not arranged already.
    pub fn wakes_at(&mut self, now: Nanos) -> Option<Nanos> {
        let has_more = !self.lost.is_empty() || self.unsent() > 0;
        let may = self.in_flight + SEGMENT <= self.window();
        let is_paced = self.control.pacing().is_some() && self.paced_until > now;
        if self.is_paced || !is_paced || !has_more || !may {
            return None;
        }
        self.is_paced = true;
        Some(self.paced_until)
    }

    /// A paced sender was woken.
    pub fn woken(&mut self) {
        self.is_paced = false;
    }

    fn take_lost(&mut self) -> Option<u64> {
        while let Some(number) = self.lost.pop_front() {
            if self
                .segment(number)
                .is_some_and(|segment| segment.is_lost && !segment.is_acked)
            {
                return Some(number);
            }
        }
        None
    }

    fn segment(&mut self, number: u64) -> Option<&mut Segment> {
        let place = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.segments.get_mut(place)
    }

    /// A segment arrives; its acknowledgement.
    pub fn arrived(&mut self, packet: Packet, now: Nanos) -> Packet {
        if let Some(end) = self.segment(packet.number).map(|segment| segment.end) {
            self.receiver.take(packet.number, end);
        }
        Packet {
            is_ack: true,
            size: HEADERS,
            queued: now,
            ..packet
        }
    }

    /// An acknowledgement arrives.
    pub fn acknowledged(&mut self, ack: Packet, now: Nanos) {
        let Some(segment) = self.segment(ack.number) else {
            return;
        };
        if segment.is_acked {
            return;
        }
        segment.is_acked = true;
        let acked = *segment;
        if !acked.is_lost {
            self.in_flight -= acked.length;
        }
        self.delivered += acked.length;
        let round_trip = now - ack.sent;
        let smoothed = self.round_trip.get_or_insert(round_trip as f64);
        *smoothed += (round_trip as f64 - *smoothed) / 8.0;
        if acked.order > self.newest_acked {
            self.newest_acked = acked.order;
        }
        let is_round = ack.number >= self.round_ends;
        if is_round {
            self.round_ends = self.first + self.segments.len() as u64;
        }
        let elapsed = (now - acked.delivered_at).max(1) as f64 / SECOND as f64;
        let window = self.control.window();
        let is_limited = self.is_limited || (self.most_in_flight as f64) * 2.0 > window;
        if is_round {
            self.is_limited = false;
            self.most_in_flight = self.in_flight;
        }
        self.progress = now;
        self.probes = 0;
        self.find_losses(now);
        if ack.number >= self.recovering_until {
            self.control.acked(Acked {
                now,
                bytes: acked.length,
                round_trip,
                rate: (self.delivered - acked.delivered) as f64 / elapsed,
                in_flight: self.in_flight,
                is_round,
                is_limited,
            });
        }
        while self
            .segments
            .front()
            .is_some_and(|segment| segment.is_acked)
        {
            self.segments.pop_front();
            self.first += 1;
        }
    }

    fn find_losses(&mut self, now: Nanos) {
        while let Some((order, number)) = self.transmissions.front().copied() {
            let is_done = self
                .segment(number)
                .is_none_or(|segment| segment.is_acked || segment.order != order);
            if !is_done && order + REORDERED > self.newest_acked {
                break;
            }
            self.transmissions.pop_front();
            if !is_done {
                self.lose(number, now);
            }
        }
    }

    fn lose(&mut self, number: u64, now: Nanos) {
        let next = self.first + self.segments.len() as u64;
        let Some(segment) = self.segment(number) else {
            return;
        };
        if segment.is_lost || segment.is_acked {
            return;
        }
        segment.is_lost = true;
        let length = segment.length;
        self.in_flight -= length;
        self.losses += 1;
        self.lost.push_back(number);
        if number >= self.recovering_until {
            self.recovering_until = next;
            self.control.lost(now);
        }
    }

    /// When [`time_out`](Self::time_out) must be called, if nothing arrives before.
    pub fn deadline(&self) -> Option<Nanos> {
        if self.in_flight == 0 && self.lost.is_empty() {
            return None;
        }
        let smoothed = self.round_trip.unwrap_or(SECOND as f64) as Nanos;
        let patience = if self.probes == 0 {
            2 * smoothed + 2 * MS
        } else {
            2 * smoothed + 200 * MS
        };
        Some(self.progress + patience)
    }

    /// The timer that was set has expired.
    pub fn expired(&mut self) {
        self.armed = None;
    }

    /// Nothing has arrived for long: sends the last segment again, later all.
    pub fn time_out(&mut self, now: Nanos) {
        self.progress = now;
        self.probes += 1;
        let numbers: Vec<u64> = (self.first..self.first + self.segments.len() as u64).collect();
        if self.probes > 1 {
            for number in &numbers {
                self.lose(*number, now);
            }
            self.control.timed_out(now);
            return;
        }
        let last = numbers.iter().rev().find(|number| {
            self.segments
                .get((*number - self.first) as usize)
                .is_some_and(|segment| !segment.is_acked && !segment.is_lost)
        });
        if let Some(last) = last.copied()
            && let Some(segment) = self.segment(last)
        {
            segment.is_lost = true;
            let length = segment.length;
            self.in_flight -= length;
            self.lost.push_front(last);
        }
    }
}

impl Receiver {
    fn take(&mut self, number: u64, end: u64) {
        let Some(place) = number.checked_sub(self.first) else {
            return;
        };
        let place = place as usize;
        if self.arrived.len() <= place {
            self.arrived.resize(place + 1, None);
        }
        if let Some(one) = self.arrived.get_mut(place) {
            *one = Some(end);
        }
        while let Some(Some(end)) = self.arrived.front() {
            self.in_order = *end;
            self.arrived.pop_front();
            self.first += 1;
        }
    }
}
