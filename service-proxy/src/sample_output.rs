//! The official samples' lines, for scripts that wait for them (`device-streams.md`
//! section 6): those of the C# samples, and the C sample's traffic counts.

use std::convert::Infallible;
use std::io::{self, Write as _};
use std::time::{Duration, SystemTime};

use common::identity::StreamName;
use common::tunnel::Traffic;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

/// How often traffic is counted, as in the C sample.
pub const TRAFFIC_INTERVAL: Duration = Duration::from_secs(10);

const TIMESTAMP: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC+0000");

/// Whether and where the samples' lines are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SampleOutput {
    /// Nowhere: our own lines instead.
    #[default]
    Off,
    /// On stdout.
    Stdout,
    /// On stderr, when stdout is the tunnel's.
    Stderr,
}

impl SampleOutput {
    /// On stdout, if at all.
    pub fn on_stdout(wanted: bool) -> Self {
        if wanted { Self::Stdout } else { Self::Off }
    }

    /// On stderr, if at all.
    pub fn on_stderr(wanted: bool) -> Self {
        if wanted { Self::Stderr } else { Self::Off }
    }

    /// Whether our own lines are wanted.
    pub fn is_off(self) -> bool {
        self == Self::Off
    }

    /// The hub has told the device's answer.
    pub fn response(self, name: &StreamName, accepted: bool) {
        let accepted = if accepted { "True" } else { "False" };
        self.print(&format!(
            "Stream response received: Name={name} IsAccepted={accepted}"
        ));
    }

    /// The stream is open.
    pub fn starting(self) {
        self.print("Starting streaming");
    }

    /// The stream has ended.
    pub fn done(self) {
        self.print("Done streaming");
    }

    /// An echo test has sent this.
    pub fn sent_data(self, bytes: &[u8]) {
        if !self.is_off() {
            self.print(&format!("Sent stream data: {}", shown(bytes)));
        }
    }

    /// An echo test has received this.
    pub fn received_data(self, bytes: &[u8]) {
        if !self.is_off() {
            self.print(&format!("Received stream data: {}", shown(bytes)));
        }
    }

    /// Counts a tunnel's traffic for ever: a line every [`TRAFFIC_INTERVAL`] while there
    /// is some. Drop the future when the tunnel has ended.
    pub async fn count(self, traffic: &Traffic) -> Infallible {
        if self.is_off() {
            return std::future::pending().await;
        }
        let (mut sent, mut received) = (0, 0);
        loop {
            tokio::time::sleep(TRAFFIC_INTERVAL).await;
            let (sent_now, received_now) = (traffic.sent(), traffic.received());
            if (sent_now, received_now) != (sent, received) {
                self.print(&traffic_line(
                    SystemTime::now(),
                    sent_now - sent,
                    received_now - received,
                ));
            }
            (sent, received) = (sent_now, received_now);
        }
    }

    fn print(self, line: &str) {
        // Nobody reads it any more: no reason to end a tunnel.
        let _ = match self {
            Self::Off => Ok(()),
            Self::Stdout => print_line(line),
            Self::Stderr => writeln!(io::stderr(), "{line}"),
        };
    }
}

/// Prints one line on stdout, at once: whoever reads it waits for it.
pub fn print_line(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

fn traffic_line(now: SystemTime, sent: u64, received: u64) -> String {
    let now = OffsetDateTime::from(now)
        .format(TIMESTAMP)
        .unwrap_or_default();
    format!("[{now}] Network traffic (in bytes) (sent={sent}; received={received})")
}

/// Text as it is; everything else escaped, since it goes to a terminal.
fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => bytes.escape_ascii().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_c_samples_traffic_line() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_580_472_000);
        assert_eq!(
            traffic_line(at, 12, 34),
            "[2020-01-31 12:00:00 UTC+0000] Network traffic (in bytes) (sent=12; received=34)"
        );
    }

    #[test]
    fn terminals_get_no_control_characters() {
        assert_eq!(shown("grüß dich".as_bytes()), "grüß dich");
        assert_eq!(shown(b"\x1b[31m"), "\\x1b[31m");
    }
}
