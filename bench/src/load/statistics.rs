//! The summary of many durations: median, 99th percentile, mean.

use std::time::Duration;

use serde_json::{Value, json};

/// The value at this share of the sorted times, in microseconds (nearest rank).
fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().map_or(0.0, micros)
}

fn micros(time: Duration) -> f64 {
    round(time.as_secs_f64() * 1e6)
}

/// Rounds to a tenth.
pub fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// Count, p50, p99, mean and longest, in microseconds.
pub fn summary(mut times: Vec<Duration>) -> Value {
    times.sort_unstable();
    let sum: Duration = times.iter().sum();
    let mean = sum.as_secs_f64() * 1e6 / times.len().max(1) as f64;
    json!({
        "count": times.len(),
        "p50_us": percentile(&times, 50),
        "p99_us": percentile(&times, 99),
        "mean_us": round(mean),
        "longest_us": times.last().copied().map_or(0.0, micros),
    })
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_measured_values() {
        let summary = summary((1..=200).rev().map(Duration::from_micros).collect());
        assert_eq!(summary["p50_us"], 100.0);
        assert_eq!(summary["p99_us"], 198.0);
        assert_eq!(summary["longest_us"], 200.0);
        assert_eq!(summary["mean_us"], 100.5);
    }

    #[test]
    fn an_empty_summary_is_zero() {
        assert_eq!(summary(Vec::new())["p99_us"], 0.0);
    }
}
