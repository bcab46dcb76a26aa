//! What both proxies print of the official samples' lines.

use time::OffsetDateTime;
use time::macros::format_description;
use tokio::time::{Duration, interval};

use crate::tunnel::Traffic;

/// One traffic line of the C sample; counts are since the last line.
pub fn traffic_line(at: OffsetDateTime, sent: u64, received: u64) -> String {
    let at = at
        .format(format_description!(
            "[year]-[month]-[day] [hour]:[minute]:[second] UTC+0000"
        ))
        .unwrap_or_default();
    format!("[{at}] Network traffic (in bytes) (sent={sent}; received={received})")
}

/// Prints a traffic line every 10 s while there is traffic, for ever.
pub async fn traffic_lines(traffic: &Traffic, print: impl Fn(String)) {
    let mut ticks = interval(Duration::from_secs(10));
    let mut last = (0, 0);
    loop {
        ticks.tick().await;
        let now = (traffic.sent(), traffic.received());
        if now != last {
            print(traffic_line(
                OffsetDateTime::now_utc(),
                now.0 - last.0,
                now.1 - last.1,
            ));
            last = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_the_c_sample() {
        let at = time::macros::datetime!(2020-01-31 12:00:00 UTC);
        assert_eq!(
            traffic_line(at, 5, 7),
            "[2020-01-31 12:00:00 UTC+0000] Network traffic (in bytes) (sent=5; received=7)"
        );
    }
}
