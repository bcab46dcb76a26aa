//! `request` and `approvals`: their arguments only.

use std::time::Duration;

use clap::{Args, Subcommand};
use common::identity::{DeviceId, StreamName};

use super::form::FormArgs;

/// Arguments of `request`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct RequestArgs {
    /// The device.
    #[arg(value_name = "DEVICE")]
    pub device: DeviceId,

    /// The target, as ssh.
    #[arg(value_name = "TARGET")]
    pub target: StreamName,

    /// How long it shall last, as 30m, 1h or 2d; at most what the hub's access file allows
    /// [default: that].
    #[arg(long = "for", value_name = "TIME", value_parser = span)]
    pub lasts: Option<Duration>,

    /// Why, for who approves it.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,

    /// End when it is asked for, and print the request; it waits for a day.
    #[arg(long)]
    pub no_wait: bool,
}

/// What to do with requests for access.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum ApprovalsCommand {
    /// List the requests that you have made or may decide.
    List {
        #[command(flatten)]
        form: FormArgs,
    },
    /// Grant a request.
    Grant {
        /// The request.
        #[arg(value_name = "ID")]
        id: String,
        /// How long it lasts, as 30m, if that is less than what was asked for.
        #[arg(long = "for", value_name = "TIME", value_parser = span)]
        lasts: Option<Duration>,
    },
    /// Refuse a request, or take back what was granted.
    Refuse {
        /// The request.
        #[arg(value_name = "ID")]
        id: String,
        /// Why, for who has asked.
        #[arg(long, value_name = "TEXT")]
        because: Option<String>,
    },
}

/// A number and `s`, `m`, `h` or `d`, from a minute to 30 days.
fn span(text: &str) -> Result<Duration, &'static str> {
    const WRONG: &str = "give a time from 1m to 30d, as 90s, 30m, 1h or 2d";
    let at = text.find(|c: char| !c.is_ascii_digit()).ok_or(WRONG)?;
    let (number, unit) = text.split_at(at);
    let unit: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(WRONG),
    };
    let seconds = number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(unit));
    seconds
        .filter(|seconds| (60..=30 * 86_400).contains(seconds))
        .map(Duration::from_secs)
        .ok_or(WRONG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        for (text, seconds) in [("60s", 60), ("1m", 60), ("1h", 3_600), ("30d", 2_592_000)] {
            assert_eq!(span(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in [
            "",
            "1",
            "h",
            "59s",
            "31d",
            "1 h",
            "-1h",
            "99999999999999999999d",
            "1ü",
        ] {
            assert!(span(text).is_err(), "{text}");
        }
    }
}
