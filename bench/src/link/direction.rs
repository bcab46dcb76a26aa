//! One direction of a link: packets wait in a bounded queue, are sent at the link's rate, and
//! arrive after its delay, in order.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The smallest default queue: that of a cheap router.
pub const SMALLEST_QUEUE: usize = 64 << 10;

/// The most bytes in flight in one direction, for any rate and delay: 1 Gbit/s for half a second.
pub const MOST_IN_FLIGHT: usize = 64 << 20;

/// Packets leave the queue up to this much early (without changing their arrival), so that the loop
/// need not wake up for each.
const AHEAD: Duration = Duration::from_millis(1);

/// The counters of one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets delivered.
    pub packets: u64,
    /// Bytes delivered.
    pub bytes: u64,
    /// Packets dropped because the queue or the link was full.
    pub overflowed: u64,
    /// Packets dropped because the direction was frozen or cut.
    pub vanished: u64,
}

/// One direction.
#[derive(Debug)]
pub struct Direction {
    delay: Duration,
    rate: Option<u64>,
    queue_limit: Option<usize>,
    frozen: bool,
    waiting: VecDeque<(Instant, Vec<u8>)>,
    waiting_bytes: usize,
    free_at: Option<Instant>,
    travelling: VecDeque<(Instant, Vec<u8>)>,
    travelling_bytes: usize,
    counters: Counters,
}

impl Direction {
    /// A direction with this one-way delay and rate in bit/s. The queue's limit in bytes is by
    /// default the product of rate and round trip.
    pub fn new(delay: Duration, rate: Option<u64>, queue_limit: Option<usize>) -> Self {
        Self {
            delay,
            rate,
            queue_limit,
            frozen: false,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            free_at: None,
            travelling: VecDeque::new(),
            travelling_bytes: 0,
            counters: Counters::default(),
        }
    }

    /// Changes the delay for packets that leave the queue from now on.
    pub fn set_delay(&mut self, delay: Duration) {
        self.delay = delay;
    }

    /// Changes the rate in bit/s, also for waiting packets.
    pub fn set_rate(&mut self, rate: Option<u64>) {
        self.rate = rate;
    }

    /// Drops every packet, also those in flight; or lets packets pass again.
    pub fn set_frozen(&mut self, frozen: bool) {
        self.frozen = frozen;
        if frozen {
            self.clear();
        }
    }

    /// Drops all packets in the queue and in flight.
    pub fn clear(&mut self) {
        self.counters.vanished += (self.waiting.len() + self.travelling.len()) as u64;
        self.waiting.clear();
        self.travelling.clear();
        self.waiting_bytes = 0;
        self.travelling_bytes = 0;
        self.free_at = None;
    }

    /// Counts a packet that the caller has dropped.
    pub fn count_vanished(&mut self) {
        self.counters.vanished += 1;
    }

    /// The counters so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Bytes that are in the queue or in flight.
    pub fn bytes_inside(&self) -> usize {
        self.waiting_bytes + self.travelling_bytes
    }

    /// The queue's limit in bytes.
    pub fn queue_limit(&self) -> usize {
        self.queue_limit.unwrap_or_else(|| {
            let rate = u128::from(self.rate.unwrap_or(0));
            let product = rate * (2 * self.delay).as_nanos() / (8 * 1_000_000_000);
            usize::try_from(product)
                .unwrap_or(MOST_IN_FLIGHT)
                .clamp(SMALLEST_QUEUE, MOST_IN_FLIGHT)
        })
    }

    /// A packet enters the direction.
    pub fn offer(&mut self, now: Instant, packet: &[u8]) {
        if self.frozen {
            self.counters.vanished += 1;
            return;
        }
        self.start_travels(now);
        let queue_is_full =
            self.rate.is_some() && self.waiting_bytes + packet.len() > self.queue_limit();
        if queue_is_full || self.bytes_inside() + packet.len() > MOST_IN_FLIGHT {
            self.counters.overflowed += 1;
            return;
        }
        self.waiting_bytes += packet.len();
        self.waiting.push_back((now, packet.to_vec()));
        self.start_travels(now);
    }

    /// The next packet that has arrived at the other end.
    pub fn take_arrived(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.start_travels(now);
        self.travelling.front().filter(|(due, _)| *due <= now)?;
        let (_, packet) = self.travelling.pop_front()?;
        self.travelling_bytes -= packet.len();
        self.counters.packets += 1;
        self.counters.bytes += packet.len() as u64;
        Some(packet)
    }

    /// When there is something to do next.
    pub fn next_event(&self) -> Option<Instant> {
        let arrival = self.travelling.front().map(|(due, _)| *due);
        // Without a waiting packet, the time when the link is free does not matter.
        let start = match (self.waiting.front(), self.free_at) {
            (Some(_), Some(free_at)) => Some(free_at),
            _ => None,
        };
        [arrival, start].into_iter().flatten().min()
    }

    fn start_travels(&mut self, now: Instant) {
        while self.free_at.is_none_or(|free_at| free_at <= now + AHEAD) || self.rate.is_none() {
            let Some((arrived, packet)) = self.waiting.pop_front() else {
                break;
            };
            self.waiting_bytes -= packet.len();
            let end = match self.rate {
                None => arrived,
                Some(rate) => {
                    let begin = self.free_at.map_or(arrived, |free_at| free_at.max(arrived));
                    begin + time_to_send(packet.len(), rate)
                }
            };
            self.free_at = self.rate.map(|_| end);
            // With a shorter delay, no packet overtakes another.
            let due = (end + self.delay).max(self.travelling.back().map_or(end, |(due, _)| *due));
            self.travelling_bytes += packet.len();
            self.travelling.push_back((due, packet));
        }
    }
}

fn time_to_send(bytes: usize, rate: u64) -> Duration {
    Duration::from_nanos((bytes as u64 * 8).saturating_mul(1_000_000_000) / rate.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn drain(direction: &mut Direction, now: Instant) -> usize {
        std::iter::from_fn(|| direction.take_arrived(now)).count()
    }

    #[test]
    fn a_packet_arrives_after_the_delay_and_not_before() {
        let start = Instant::now();
        let mut line = Direction::new(25 * MS, None, None);
        line.offer(start, b"packet");
        assert_eq!(line.next_event(), Some(start + 25 * MS));
        assert_eq!(line.take_arrived(start + 25 * MS - MS / 1000), None);
        assert_eq!(line.take_arrived(start + 25 * MS).unwrap(), b"packet");
        assert_eq!((line.next_event(), line.bytes_inside()), (None, 0));
    }

    #[test]
    fn packets_leave_one_after_the_other_at_the_rate() {
        let start = Instant::now();
        // 1000 bytes take 10 ms.
        let mut line = Direction::new(5 * MS, Some(800_000), None);
        for _ in 0..3 {
            line.offer(start, &[0; 1000]);
        }
        for arrival in [15, 25, 35] {
            let just_before = start + arrival * MS - MS / 1000;
            assert_eq!(drain(&mut line, just_before), 0, "{arrival}");
            assert_eq!(drain(&mut line, start + arrival * MS), 1, "{arrival}");
        }
    }

    #[test]
    fn idle_time_gives_no_credit_to_later_packets() {
        let start = Instant::now();
        let mut line = Direction::new(Duration::ZERO, Some(800_000), None);
        line.offer(start, &[0; 1000]);
        assert_eq!(drain(&mut line, start + 10 * MS), 1);
        line.offer(start + 500 * MS, &[0; 1000]);
        line.offer(start + 500 * MS, &[0; 1000]);
        assert_eq!(drain(&mut line, start + 519 * MS), 1);
        assert_eq!(drain(&mut line, start + 520 * MS), 1);
    }

    #[test]
    fn a_full_queue_drops_the_last_packets() {
        let start = Instant::now();
        let mut line = Direction::new(MS, Some(8_000), Some(2000));
        // The first leaves the queue at once; two more fill it.
        for number in 0..5 {
            line.offer(start, &[number; 1000]);
        }
        assert_eq!(line.counters().overflowed, 2);
        let seen: Vec<_> = (1..=3)
            .filter_map(|second| line.take_arrived(start + second * 1000 * MS + MS))
            .filter_map(|packet| packet.first().copied())
            .collect();
        assert_eq!(seen, [0, 1, 2]);
    }

    #[test]
    fn memory_is_limited_without_a_rate() {
        let start = Instant::now();
        let mut line = Direction::new(1000 * MS, None, None);
        for _ in 0..1100 {
            line.offer(start, &[0; 1 << 16]);
        }
        assert_eq!(line.bytes_inside(), MOST_IN_FLIGHT);
        assert_eq!(line.counters().overflowed, 1100 - 1024);
    }

    #[test]
    fn the_default_queue_is_rate_times_round_trip() {
        let queue = |ms: u32, rate| Direction::new(ms * MS, rate, None).queue_limit();
        assert_eq!(queue(60, Some(1_000_000_000)), 15_000_000);
        assert_eq!(queue(25, Some(1_000_000)), SMALLEST_QUEUE);
        assert_eq!(queue(25, None), SMALLEST_QUEUE);
        assert_eq!(queue(60_000, Some(u64::MAX)), MOST_IN_FLIGHT);
    }

    #[test]
    fn a_shorter_delay_keeps_the_order() {
        let start = Instant::now();
        let mut line = Direction::new(100 * MS, None, None);
        line.offer(start, b"first");
        line.set_delay(MS);
        line.offer(start, b"second");
        assert_eq!(drain(&mut line, start + 99 * MS), 0);
        assert_eq!(line.take_arrived(start + 100 * MS).unwrap(), b"first");
        assert_eq!(line.take_arrived(start + 100 * MS).unwrap(), b"second");
    }

    #[test]
    fn removing_the_rate_applies_to_waiting_packets() {
        let start = Instant::now();
        let mut line = Direction::new(MS, Some(8_000), Some(10_000));
        for _ in 0..3 {
            line.offer(start, &[0; 1000]);
        }
        line.set_rate(None);
        assert_eq!(drain(&mut line, start + 1001 * MS), 3);
    }

    #[test]
    fn a_frozen_direction_drops_packets_in_flight_and_new_ones() {
        let start = Instant::now();
        let mut line = Direction::new(25 * MS, None, None);
        line.offer(start, b"on the way");
        line.set_frozen(true);
        line.offer(start, b"too late");
        assert_eq!(drain(&mut line, start + 100 * MS), 0);
        assert_eq!(line.counters().vanished, 2);
        line.set_frozen(false);
        line.offer(start + 100 * MS, b"again");
        assert_eq!(drain(&mut line, start + 125 * MS), 1);
    }
}
