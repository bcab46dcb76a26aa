//! Whether our clock is wrong: a refused SAS token does not show it, the `Date` of any HTTPS answer
//! of the hub does.

use std::fmt;
use std::time::SystemTime;

use common::limits;
use common::net::exchange;
use http::header;
use tokio::time::{Duration, timeout};

use crate::config::Config;

/// How far our clock is from the hub's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skew {
    difference: Duration,
    is_ahead: bool,
}

impl Skew {
    fn between(ours: SystemTime, theirs: SystemTime) -> Self {
        match ours.duration_since(theirs) {
            Ok(difference) => Self {
                difference,
                is_ahead: true,
            },
            Err(error) => Self {
                difference: error.duration(),
                is_ahead: false,
            },
        }
    }

    /// Whether hubs refuse tokens for it.
    pub fn is_too_large(self) -> bool {
        self.difference > limits::CLOCK_SKEW
    }
}

impl fmt::Display for Skew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = if self.is_ahead { "ahead of" } else { "behind" };
        write!(
            f,
            "this machine's clock is {} s {direction} the hub's, so its SAS tokens are refused; set the clock",
            self.difference.as_secs()
        )
    }
}

/// Asks the hub for its time; `None` if it does not answer with one. Ends within [`limits::DIAL`];
/// may be dropped.
pub async fn skew(config: &Config) -> Option<Skew> {
    timeout(limits::DIAL, ask(config)).await.ok().flatten()
}

async fn ask(config: &Config) -> Option<Skew> {
    let host = config.connection.connect_host();
    let mut stream = config
        .dialer
        .tls(host.name(), host.https_port())
        .await
        .ok()?;
    // An HTTP client for this alone would be a fiftieth of the program.
    let request = format!("HEAD / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    let (answer, _) = exchange(&mut stream, request.as_bytes()).await.ok()?;
    let date = answer.headers().get(header::DATE)?.to_str().ok()?;
    let theirs = httpdate::parse_http_date(date).ok()?;
    Some(Skew::between(SystemTime::now(), theirs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_minutes_are_forgiven() {
        let now = SystemTime::now();
        let skew = |seconds| Skew::between(now, now + Duration::from_secs(seconds));
        assert!(!skew(299).is_too_large());
        assert!(skew(301).is_too_large());
        assert!(skew(3600).to_string().contains("3600 s behind"));
        let ahead = Skew::between(now + Duration::from_secs(900), now);
        assert!(ahead.is_too_large() && ahead.to_string().contains("900 s ahead"));
    }
}
