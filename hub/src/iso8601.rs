//! Times as IoT Hub writes them.

use time::OffsetDateTime;
use time::macros::format_description;

/// ISO 8601 in UTC with seven digits of fraction.
pub fn format(at: OffsetDateTime) -> String {
    at.format(format_description!(
        "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:7]Z"
    ))
    .unwrap_or_default()
}

/// How IoT Hub writes a time at which nothing has happened yet.
pub const NEVER: &str = "0001-01-01T00:00:00Z";

/// A time in Unix microseconds; none is [`NEVER`].
pub fn from_unix_micros(at: Option<u64>) -> String {
    at.and_then(|at| OffsetDateTime::from_unix_timestamp_nanos(i128::from(at) * 1000).ok())
        .map_or_else(|| NEVER.to_owned(), format)
}
