//! Days of UTC.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn since_epoch() -> Duration {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default()
}

/// Today, as days since 1970.
pub(super) fn today() -> u64 {
    since_epoch().as_secs() / DAY.as_secs()
}

/// How long this day still is.
pub(super) fn until_next() -> Duration {
    left(since_epoch())
}

fn left(since: Duration) -> Duration {
    let whole = Duration::from_secs(since.as_secs() % DAY.as_secs());
    DAY.saturating_sub(whole)
        .saturating_sub(Duration::from_nanos(since.subsec_nanos().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_ends_at_midnight() {
        assert_eq!(left(Duration::from_secs(24 * 3600 * 20_000)), DAY);
        let last = Duration::from_millis(24 * 3600 * 1000 * 20_000 - 500);
        assert_eq!(left(last), Duration::from_millis(500));
    }
}
