//! Lines of the official samples that both proxies print, for scripts that wait for them
//! (`docs/protocol.md`, "The official samples' lines").

use std::convert::Infallible;

use time::OffsetDateTime;
use time::macros::format_description;
use tokio::time::{Duration, sleep};

use crate::tunnel::Traffic;

/// How often traffic is printed, as in the C sample.
const TRAFFIC_INTERVAL: Duration = Duration::from_secs(10);

/// One traffic line of the C sample; counts are since the last line.
pub fn traffic_line(at: OffsetDateTime, sent: u64, received: u64) -> String {
    let at = at
        .format(format_description!(
            "[year]-[month]-[day] [hour]:[minute]:[second] UTC+0000"
        ))
        .unwrap_or_default();
    format!("[{at}] Network traffic (in bytes) (sent={sent}; received={received})")
}

/// Prints a traffic line every 10 s while there is traffic. It never ends: drop the future when the
/// tunnel has ended.
pub async fn traffic_lines(traffic: &Traffic, print: impl Fn(&str)) -> Infallible {
    let (mut sent, mut received) = (0, 0);
    loop {
        sleep(TRAFFIC_INTERVAL).await;
        let now = (traffic.sent(), traffic.received());
        if now != (sent, received) {
            let at = OffsetDateTime::now_utc();
            print(&traffic_line(at, now.0 - sent, now.1 - received));
        }
        (sent, received) = now;
    }
}

/// Stream data for display: printable text unchanged, everything else escaped.
pub fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(crate::outside::is_unprintable) => text.to_owned(),
        _ => bytes.escape_ascii().to_string(),
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

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(shown("grüß".as_bytes()), "grüß");
        assert_eq!(shown(b"a\x1b[2J"), "a\\x1b[2J");
        assert_eq!(shown(&[0xff]), "\\xff");
    }
}
