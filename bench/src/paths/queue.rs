//! The queue before a bottleneck: a plain one that drops what does not fit, or `fq_codel`
//! (RFC 8290), which gives each flow a queue of its own and drops from one that stands.

use std::collections::VecDeque;

use super::packet::{MS, Nanos, Packet};

/// The kind of a queue, and its limit in bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Discipline {
    /// One queue; what does not fit is dropped.
    DropTail(u64),
    /// A queue for each flow, and CoDel in each of them.
    FqCodel(u64),
}

/// CoDel's acceptable delay, and the time for which it may be exceeded (RFC 8289, section 4).
const TARGET: Nanos = 5 * MS;
const INTERVAL: Nanos = 100 * MS;
/// What a flow may send before the next one has its turn.
const QUANTUM: i64 = 1514;

/// A queue.
#[derive(Debug)]
pub struct Queue {
    limit: u64,
    is_fair: bool,
    flows: Vec<Flow>,
    turns: VecDeque<usize>,
    bytes: u64,
    /// Packets that were dropped.
    pub dropped: u64,
}

#[derive(Debug, Default)]
struct Flow {
    packets: VecDeque<Packet>,
    bytes: u64,
    deficit: i64,
    is_listed: bool,
    codel: Codel,
}

#[derive(Debug, Default)]
struct Codel {
    above_since: Option<Nanos>,
    is_dropping: bool,
    next_drop: Nanos,
    count: u32,
}

impl Queue {
    /// An empty queue.
    pub fn new(discipline: Discipline) -> Self {
        let (limit, is_fair) = match discipline {
            Discipline::DropTail(limit) => (limit, false),
            Discipline::FqCodel(limit) => (limit, true),
        };
        Self {
            limit,
            is_fair,
            flows: Vec::new(),
            turns: VecDeque::new(),
            bytes: 0,
            dropped: 0,
        }
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A packet enters, or is dropped.
    pub fn push(&mut self, packet: Packet) {
        if self.bytes + packet.size > self.limit {
            self.dropped += 1;
            return;
        }
        // Data of one half and the acknowledgements of another are different flows.
        let flow = if self.is_fair {
            2 * packet.half + usize::from(packet.is_ack)
        } else {
            0
        };
        if self.flows.len() <= flow {
            self.flows.resize_with(flow + 1, Flow::default);
        }
        let Some(queue) = self.flows.get_mut(flow) else {
            return;
        };
        self.bytes += packet.size;
        queue.bytes += packet.size;
        queue.packets.push_back(packet);
        if !queue.is_listed {
            queue.is_listed = true;
            queue.deficit = QUANTUM;
            // A new flow goes first: a keystroke does not wait.
            self.turns.push_front(flow);
        }
    }

    /// The next packet to send.
    pub fn pop(&mut self, now: Nanos) -> Option<Packet> {
        while let Some(flow) = self.turns.front().copied() {
            let queue = self.flows.get_mut(flow)?;
            if self.is_fair && queue.deficit <= 0 {
                queue.deficit += QUANTUM;
                self.turns.rotate_left(1);
                continue;
            }
            let (packet, dropped, bytes) = if self.is_fair {
                queue.take_by_codel(now)
            } else {
                let packet = queue.packets.pop_front();
                let bytes = packet.map_or(0, |packet| packet.size);
                queue.bytes -= bytes;
                (packet, 0, bytes)
            };
            self.dropped += dropped;
            self.bytes -= bytes;
            match packet {
                Some(packet) => {
                    queue.deficit -= packet.size as i64;
                    return Some(packet);
                }
                None => {
                    queue.is_listed = false;
                    self.turns.pop_front();
                }
            }
        }
        None
    }
}

impl Flow {
    /// The next packet, how many were dropped before it, and the bytes of all of them.
    fn take_by_codel(&mut self, now: Nanos) -> (Option<Packet>, u64, u64) {
        let (mut dropped, mut bytes) = (0, 0);
        loop {
            let Some(packet) = self.packets.pop_front() else {
                self.codel.above_since = None;
                self.codel.is_dropping = false;
                return (None, dropped, bytes);
            };
            self.bytes -= packet.size;
            bytes += packet.size;
            if self.codel.must_drop(now, now - packet.queued, self.bytes) {
                dropped += 1;
            } else {
                return (Some(packet), dropped, bytes);
            }
        }
    }
}

impl Codel {
    fn must_drop(&mut self, now: Nanos, waited: Nanos, left: u64) -> bool {
        if waited < TARGET || left < 1514 {
            self.above_since = None;
            self.is_dropping = false;
            return false;
        }
        let since = *self.above_since.get_or_insert(now);
        if !self.is_dropping {
            if now - since < INTERVAL {
                return false;
            }
            self.is_dropping = true;
            // Soon after the last time the rate of drops goes on where it was.
            let is_recent = now < self.next_drop + 16 * INTERVAL;
            self.count = if is_recent && self.count > 2 {
                self.count - 2
            } else {
                1
            };
            self.next_drop = now + self.gap();
            return true;
        }
        if now < self.next_drop {
            return false;
        }
        self.count += 1;
        self.next_drop += self.gap();
        true
    }

    fn gap(&self) -> Nanos {
        (INTERVAL as f64 / f64::from(self.count.max(1)).sqrt()) as Nanos
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(half: usize, number: u64) -> Packet {
        Packet {
            half,
            number,
            attempt: 0,
            is_ack: false,
            size: 1500,
            sent: 0,
            queued: 0,
        }
    }

    #[test]
    fn what_does_not_fit_is_dropped() {
        let mut queue = Queue::new(Discipline::DropTail(4000));
        (0..4).for_each(|number| queue.push(packet(0, number)));
        assert_eq!((queue.dropped, queue.bytes()), (2, 3000));
        let order: Vec<_> = std::iter::from_fn(|| queue.pop(0))
            .map(|one| one.number)
            .collect();
        assert_eq!((order, queue.bytes()), (vec![0, 1], 0));
    }

    #[test]
    fn each_flow_has_its_turn() {
        let mut queue = Queue::new(Discipline::FqCodel(1 << 20));
        (0..10).for_each(|number| queue.push(packet(0, number)));
        queue.push(packet(1, 0));
        let order: Vec<_> = (0..4)
            .filter_map(|_| queue.pop(0))
            .map(|one| one.half)
            .collect();
        assert!(order[..2].contains(&1), "{order:?}");
    }

    #[test]
    fn a_standing_queue_is_shortened() {
        let mut queue = Queue::new(Discipline::FqCodel(1 << 20));
        (0..500).for_each(|number| queue.push(packet(0, number)));
        for at in 0..250 {
            queue.pop(at * MS);
        }
        assert!(queue.dropped > 0);
        assert_eq!(queue.bytes(), (500 - 250 - queue.dropped) * 1500);
    }
}
