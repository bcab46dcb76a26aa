use std::collections::VecDeque;

use super::*;

/// A sender that always has more to send, on a path with a bottleneck and a TCP connection over it.
/// Times are microseconds.
struct Path {
    window: Window,
    tcp: Tcp,
    credit: Credit,
    rate: f64,
    idle: f64,
    /// How much longer a message takes: at least, and at most.
    jitter: (f64, f64),
    free_at: f64,
    next: u64,
    acked: u64,
    /// When it is acknowledged, when it was given to TCP, offset of its end.
    in_flight: VecDeque<(f64, f64, u64)>,
    now: f64,
    start: Instant,
}

/// A model of the TCP connection below a session: bytes wait until the congestion window, which
/// doubles each round trip and later grows by a segment, has room for them.
struct Tcp {
    cwnd: f64,
    threshold: f64,
    /// When it was given to TCP, length, offset of its end.
    waiting: VecDeque<(f64, u64, u64)>,
    in_flight: u64,
}

const SEGMENT: f64 = 1448.0;

/// From a peer that does not tell when a message has arrived.
fn sample(round_trip: Duration) -> Option<Sample> {
    Some(Sample {
        round_trip,
        one_way: None,
    })
}

/// The credit that the reader gives: the window doubles each time half of it was received.
struct Credit {
    limit: u64,
    window: u64,
}

impl Credit {
    fn of(window: u64) -> Self {
        Self {
            limit: window,
            window,
        }
    }

    fn acknowledged(&mut self, acked: u64) {
        if self.limit - acked <= self.window / 2 {
            self.window = (2 * self.window).min(limits::CREDIT_MOST);
            self.limit = acked + self.window;
        }
    }
}

impl Tcp {
    /// A connection without a congestion window.
    fn unlimited() -> Self {
        Self {
            cwnd: f64::INFINITY,
            ..Self::fresh()
        }
    }

    fn fresh() -> Self {
        Self {
            cwnd: 10.0 * SEGMENT,
            threshold: f64::INFINITY,
            waiting: VecDeque::new(),
            in_flight: 0,
        }
    }

    fn acknowledged(&mut self, length: u64) {
        // Only a window of which half is used grows (Linux, `tcp_is_cwnd_limited`).
        if self.in_flight as f64 * 2.0 >= self.cwnd {
            self.cwnd += if self.cwnd < self.threshold {
                length as f64
            } else {
                SEGMENT * length as f64 / self.cwnd
            };
        }
        self.in_flight -= length;
    }

    fn lost(&mut self) {
        self.cwnd /= 2.0;
        self.threshold = self.cwnd;
    }
}

impl Path {
    fn new(mbit: f64, idle_ms: f64) -> Self {
        Self {
            window: Window::new(0),
            tcp: Tcp::unlimited(),
            credit: Credit::of(u64::MAX),
            rate: mbit / 8.0,
            idle: idle_ms * 1000.0,
            jitter: (0.0, 0.0),
            free_at: 0.0,
            next: 0,
            acked: 0,
            in_flight: VecDeque::new(),
            now: 0.0,
            start: Instant::now(),
        }
    }

    /// The same with a TCP connection that has just begun.
    fn over_tcp(mbit: f64, idle_ms: f64) -> Self {
        Self {
            tcp: Tcp::fresh(),
            ..Self::new(mbit, idle_ms)
        }
    }

    /// The same for one inner connection that has just begun.
    fn from_the_start(mbit: f64, idle_ms: f64) -> Self {
        Self {
            credit: Credit::of(limits::CREDIT_FIRST),
            ..Self::over_tcp(mbit, idle_ms)
        }
    }

    fn send(&mut self) {
        while self.next < self.credit.limit {
            if self.next - self.acked >= self.window.size() {
                self.window.is_limiting();
                break;
            }
            let chunk = self.window.chunk() as u64;
            self.next += chunk;
            self.tcp.waiting.push_back((self.now, chunk, self.next));
        }
        while let Some(&(handed, length, place)) = self.tcp.waiting.front()
            && (self.tcp.in_flight == 0 || (self.tcp.in_flight + length) as f64 <= self.tcp.cwnd)
        {
            self.tcp.waiting.pop_front();
            self.tcp.in_flight += length;
            self.free_at = self.free_at.max(self.now) + length as f64 / self.rate;
            let (least, most) = self.jitter;
            let more = least + (most - least) * (self.free_at / 20_000.0).fract();
            let before = self.in_flight.back().map_or(0.0, |(at, ..)| *at);
            let at = (self.free_at + self.idle + more).max(before);
            self.in_flight.push_back((at, handed, place));
        }
    }

    /// A packet is lost: it and all later ones arrive a round trip later.
    fn lose(&mut self) {
        self.tcp.lost();
        for (at, ..) in &mut self.in_flight {
            *at = at.max(self.now + self.idle);
        }
    }

    /// All bytes in flight arrive; then nothing is sent for some seconds.
    fn fall_silent(&mut self, seconds: f64) {
        while !self.in_flight.is_empty() {
            self.receive_ack();
        }
        self.now += seconds * 1e6;
        self.tcp.threshold = 0.75 * self.tcp.cwnd;
        self.tcp.cwnd = 10.0 * SEGMENT;
    }

    /// The next acknowledgement arrives; returns its round trip.
    fn receive_ack(&mut self) -> f64 {
        let (at, sent, place) = self.in_flight.pop_front().unwrap();
        self.now = at;
        let newly = place - self.acked;
        self.acked = place;
        self.tcp.acknowledged(newly);
        self.credit.acknowledged(place);
        let trip = Duration::from_micros((at - sent) as u64);
        let now = self.start + Duration::from_micros(self.now as u64);
        self.window
            .acknowledged(newly, place, self.next, sample(trip), now);
        at - sent
    }

    /// Runs for some seconds; returns the rate in bytes per microsecond, and the longest queue in
    /// ms in the second half.
    fn run(&mut self, seconds: f64) -> (f64, f64) {
        let (begin, first) = (self.now, self.acked);
        let mut longest: f64 = 0.0;
        while self.now < begin + seconds * 1e6 {
            self.send();
            let trip = self.receive_ack();
            if self.now > begin + seconds * 5e5 {
                longest = longest.max((trip - self.idle) / 1000.0);
            }
        }
        let rate = (self.acked - first) as f64 / (self.now - begin);
        (rate, longest)
    }
}

#[test]
fn fills_the_path_and_not_its_queues() {
    for (mbit, idle) in [(10.0, 50.0), (100.0, 50.0), (100.0, 5.0), (1000.0, 50.0)] {
        let mut path = Path::new(mbit, idle);
        path.run(3.0);
        let (rate, queue) = path.run(30.0);
        assert!(rate > 0.9 * path.rate, "{mbit} Mbit/s, {idle} ms: {rate}");
        assert!(queue < 25.0, "{mbit} Mbit/s, {idle} ms: {queue} ms");
    }
}

#[test]
fn the_first_growth_ends_soon_after_the_path_is_full() {
    for (mbit, idle) in [(100.0, 50.0), (1000.0, 50.0), (1000.0, 120.0)] {
        let mut path = Path::new(mbit, idle);
        let mut longest: f64 = 0.0;
        for _ in 0..100 {
            // `run` reports the queue in the second half of each step.
            longest = longest.max(path.run(0.02).1);
        }
        assert!(
            longest < 1.5 * idle,
            "{mbit} Mbit/s, {idle} ms: {longest} ms"
        );
    }
}

#[test]
fn a_long_fat_path_is_filled_within_the_limit() {
    let mut path = Path::new(1000.0, 120.0);
    path.run(5.0);
    let (rate, _) = path.run(10.0);
    assert!(rate > 0.8 * path.rate, "{rate}");
    assert!(path.window.size() <= limits::WINDOW_MOST);
}

/// Bytes that wait for TCP's slow start are no queue on the path.
#[test]
fn a_long_fat_path_is_filled_while_tcp_grows() {
    for (mbit, idle) in [(100.0, 50.0), (185.0, 120.0), (1000.0, 50.0)] {
        for begin in [Path::over_tcp, Path::from_the_start] {
            let mut path = begin(mbit, idle);
            path.run(2.0);
            let (rate, queue) = path.run(10.0);
            assert!(rate > 0.9 * path.rate, "{mbit} Mbit/s, {idle} ms: {rate}");
            let most = 10.0 + idle / 4.0;
            assert!(queue < most, "{mbit} Mbit/s, {idle} ms: {queue} ms");
        }
    }
}

/// What varies in every round trip is no queue, and a smaller window does not make it less.
#[test]
fn a_path_whose_delay_varies_is_filled_and_not_its_queues() {
    for mbit in [100.0, 200.0, 430.0] {
        for jitter in [(4_000.0, 12_000.0), (6_000.0, 14_000.0)] {
            let mut path = Path::new(mbit, 50.0);
            path.run(2.0);
            path.jitter = jitter;
            path.run(8.0);
            let (rate, queue) = path.run(10.0);
            assert!(rate > 0.9 * path.rate, "{mbit} Mbit/s, {jitter:?}: {rate}");
            assert!(queue < 40.0, "{mbit} Mbit/s, {jitter:?}: {queue} ms");
        }
    }
}

/// After a silence TCP begins with ten segments again (RFC 5681, 4.1).
#[test]
fn the_window_is_kept_while_tcp_restarts() {
    for (mbit, idle) in [(100.0, 50.0), (185.0, 120.0), (1000.0, 50.0)] {
        let mut path = Path::over_tcp(mbit, idle);
        path.run(4.0);
        path.fall_silent(2.0);
        path.run(1.5);
        let (rate, _) = path.run(2.0);
        assert!(rate > 0.9 * path.rate, "{mbit} Mbit/s, {idle} ms: {rate}");
    }
}

/// After a loss, the rest of TCP's window is used, and all that it regains.
#[test]
fn a_loss_costs_little_more_than_it_costs_tcp() {
    let mut path = Path::over_tcp(200.0, 120.0);
    path.run(4.0);
    for _ in 0..4 {
        path.lose();
        let (rate, _) = path.run(5.0);
        let held = path.tcp.cwnd / path.idle;
        assert!(rate > 0.75 * held.min(path.rate), "{rate} of {held}");
    }
}

#[test]
fn a_slow_path_keeps_the_least_window() {
    let mut path = Path::new(1.0, 20.0);
    path.run(20.0);
    assert_eq!(path.window.size, limits::WINDOW_LEAST);
    assert!(path.window.chunk() < 8192);
}

#[test]
fn a_longer_round_trip_is_learnt() {
    let mut path = Path::new(100.0, 10.0);
    path.run(5.0);
    path.idle = 80_000.0;
    path.run(60.0);
    let (rate, _) = path.run(10.0);
    assert!(rate > 0.8 * path.rate, "{rate}");
}

/// Keystrokes and credit also wait in queues that other traffic causes.
#[test]
fn a_window_that_is_hardly_used_does_not_change() {
    let start = Instant::now();
    let mut window = Window::new(0);
    let before = window.size();
    for place in 1..200 {
        let trip = Duration::from_millis(if place < 10 { 50 } else { 100 });
        let now = start + Duration::from_millis(100) * place;
        window.acknowledged(
            64,
            64 * u64::from(place),
            64 * u64::from(place),
            sample(trip),
            now,
        );
    }
    assert_eq!(window.size(), before);
    assert_eq!(window.phase, Phase::Start);
}

/// Bytes that wait for credit are sent in bursts with different rates.
#[test]
fn a_rate_that_grows_in_bursts_counts_as_growing() {
    let start = Instant::now();
    let mut window = Window::new(0);
    let (mut acked, mut now) = (0, start);
    let trip = |milliseconds| sample(Duration::from_millis(milliseconds));
    window.acknowledged(0, 0, 0, trip(120), now);
    for burst in 0..5 {
        let (piece, next) = (8192 << burst, acked + (65536 << burst));
        now += Duration::from_millis(160);
        for _ in 0..8 {
            now += Duration::from_millis(5);
            acked += piece;
            if burst > 2 {
                window.is_limiting();
            }
            window.acknowledged(piece, acked, next, trip(130), now);
        }
    }
    assert_eq!(window.phase, Phase::Start);
}

#[test]
fn an_idle_sender_does_not_change_its_window() {
    let start = Instant::now();
    let mut window = Window::new(0);
    let before = window.size();
    for place in 1..100 {
        let trip = sample(Duration::from_millis(1));
        window.acknowledged(1, place, place, trip, start);
    }
    assert_eq!(window.size(), before);
}
