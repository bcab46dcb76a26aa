//! Records that somebody can cause without end must not fill the disk: beyond a rate they are counted,
//! and the log has the count.

use std::time::Instant;

/// How many there may be now.
pub struct Rate {
    burst: f64,
    per_second: f64,
    room: f64,
    at: Instant,
    held_back: u64,
}

impl Rate {
    /// So many at once, and so many a second from then on.
    pub fn new(burst: u32, per_second: u32) -> Self {
        Self {
            burst: burst.into(),
            per_second: per_second.into(),
            room: burst.into(),
            at: Instant::now(),
            held_back: 0,
        }
    }

    /// Whether there is room for another one; else it is counted.
    pub fn admit(&mut self) -> bool {
        self.admit_at(Instant::now())
    }

    fn admit_at(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.room = (self.room + passed * self.per_second).min(self.burst);
        let is_admitted = self.room >= 1.0;
        if is_admitted {
            self.room -= 1.0;
        } else {
            self.held_back += 1;
        }
        is_admitted
    }

    /// How many were counted instead of recorded; from then on from nothing.
    pub fn take_held_back(&mut self) -> u64 {
        std::mem::take(&mut self.held_back)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_not_recorded_is_counted() {
        let mut rate = Rate::new(200, 10);
        let start = Instant::now();
        let admitted = (0..1000).filter(|_| rate.admit_at(start)).count();
        assert_eq!(admitted, 200);
        assert_eq!(rate.take_held_back(), 800);
        assert_eq!(rate.take_held_back(), 0);
        let later = start + Duration::from_secs(1);
        let admitted = (0..100).filter(|_| rate.admit_at(later)).count();
        assert_eq!(admitted, 10);
    }
}
