//! The wall clock as Unix seconds; everything that judges time takes it as an argument.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Seconds since 1970-01-01 UTC; 0 for a clock that stands before that.
pub fn unix_now() -> u64 {
    unix_seconds(SystemTime::now())
}

/// The given moment as Unix seconds; 0 for a moment before 1970.
pub fn unix_seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_secs()
}
