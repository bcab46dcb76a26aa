//! How much one of many may have, be it the hub among others on its machine, a shared access policy
//! or a device. Defaults are far above what is usual, and far below what harms others; bytes are
//! not limited unless an operator says so.

use super::kinds::Limit;

/// How much of each limit; zero: as much as there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share([u64; Limit::ALL.len()]);

/// A hub: as much as two cores do without making others wait.
pub(super) const HUB: Share = Share::NONE
    .with(Limit::Initiations, 2_000)
    .with(Limit::Methods, 2_000)
    .with(Limit::TwinWrites, 2_000)
    .with(Limit::Requests, 4_000)
    .with(Limit::JobDevices, 2_000);

/// A policy may be that of all services; another one still has its part.
pub(super) const EACH_POLICY: Share = Share::NONE
    .with(Limit::Streams, 15_000)
    .with(Limit::Initiations, 1_000)
    .with(Limit::Methods, 1_000)
    .with(Limit::TwinWrites, 1_000)
    .with(Limit::Requests, 2_000)
    .with(Limit::JobDevices, 1_000)
    .with(Limit::Logins, 30);

/// A device: a browser behind it opens a hundred streams within a second, twenty operators have
/// some hundreds, and a device that reports its state ten times a second is eager.
pub(super) const EACH_DEVICE: Share = Share::NONE
    .with(Limit::Streams, 5_000)
    .with(Limit::Initiations, 250)
    .with(Limit::Methods, 100)
    .with(Limit::TwinWrites, 50)
    .with(Limit::Telemetry, 500)
    .with(Limit::Reports, 100)
    .with(Limit::TwinRequests, 50)
    .with(Limit::Connects, 60);

impl Share {
    /// As much as there is of everything.
    pub const NONE: Self = Self([0; Limit::ALL.len()]);

    /// How much; zero: as much as there is.
    #[expect(clippy::indexing_slicing, reason = "there is a place for each variant")]
    pub const fn get(&self, limit: Limit) -> u64 {
        self.0[limit as usize]
    }

    /// The same with another number for one limit.
    #[must_use]
    #[expect(clippy::indexing_slicing, reason = "there is a place for each variant")]
    pub const fn with(mut self, limit: Limit, most: u64) -> Self {
        self.0[limit as usize] = most;
        self
    }

    /// How much, if there is a limit.
    pub fn most(&self, limit: Limit) -> Option<u64> {
        Some(self.get(limit)).filter(|most| *most > 0)
    }
}

/// Whether a name fits a pattern: `*` stands for any characters.
pub(super) fn fits(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        // Without a `*`.
        return rest.is_empty();
    };
    for part in parts {
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_fits_whole_names() {
        for (pattern, good, bad) in [
            ("plc", &["plc"][..], &["plc1", "xplc", ""][..]),
            ("plc-*", &["plc-", "plc-7"], &["plc", "a-plc-7"]),
            ("*-old", &["-old", "x-old"], &["x-older"]),
            ("a*b*c", &["abc", "axbxc", "abbc"], &["ab", "ac", "acb"]),
            ("*", &["", "x"], &[]),
            ("ab*ba", &["abba", "abxba"], &["aba"]),
        ] {
            for name in good {
                assert!(fits(pattern, name), "{pattern} {name}");
            }
            for name in bad {
                assert!(!fits(pattern, name), "{pattern} {name}");
            }
        }
    }

    #[test]
    fn each_limit_has_its_own_number() {
        let mut share = Share::NONE;
        for (number, limit) in (1..).zip(Limit::ALL) {
            share = share.with(limit, number);
        }
        for (number, limit) in (1..).zip(Limit::ALL) {
            assert_eq!(share.most(limit), Some(number));
        }
        assert_eq!(Share::NONE.most(Limit::Streams), None);
    }
}
