//! The commands of a script: `freeze`, `thaw`, `cut`, `mend`, `delay 25ms`, `rate 100mbit`,
//! `rate none`, `stats`. Freeze, thaw, delay and rate may be followed by `forward` (from the first
//! interface to the second) or `backward`; otherwise they apply to both directions.

use std::str::FromStr;
use std::time::Duration;

use super::Side;

/// One line from the script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Drop all packets.
    Freeze(Directions),
    /// Let packets pass again.
    Thaw(Directions),
    /// Reset TCP connections, and refuse new ones.
    Cut,
    /// Let TCP connections pass again.
    Mend,
    /// A new one-way delay.
    Delay(Duration, Directions),
    /// A new rate in bit/s, or none.
    Rate(Option<u64>, Directions),
    /// Report the counters.
    Stats,
}

/// The directions to which a command applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Directions {
    /// Both.
    Both,
    /// From this side.
    From(Side),
}

impl Directions {
    /// Whether they include the direction from this side.
    pub fn includes(self, side: Side) -> bool {
        self == Self::Both || self == Self::From(side)
    }
}

/// Why a line or an option is invalid.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CommandError {
    /// Not a command.
    #[error(
        "commands are: freeze, thaw, cut, mend, delay TIME, rate RATE, stats; \
         and forward or backward after freeze, thaw, delay and rate"
    )]
    Unknown,
    /// Not a delay.
    #[error("a delay is a number with us, ms or s, such as 25ms, and at most 60s")]
    Delay,
    /// Not a rate.
    #[error("a rate is none, or a number with kbit, mbit or gbit, such as 100mbit")]
    Rate,
}

impl FromStr for Command {
    type Err = CommandError;

    fn from_str(line: &str) -> Result<Self, CommandError> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (words, way) = match words.as_slice() {
            [words @ .., "forward"] => (words, Directions::From(Side::First)),
            [words @ .., "backward"] => (words, Directions::From(Side::Second)),
            words => (words, Directions::Both),
        };
        match (words, way) {
            (["freeze"], way) => Ok(Self::Freeze(way)),
            (["thaw"], way) => Ok(Self::Thaw(way)),
            (["cut"], Directions::Both) => Ok(Self::Cut),
            (["mend"], Directions::Both) => Ok(Self::Mend),
            (["stats"], Directions::Both) => Ok(Self::Stats),
            (["delay", time], way) => Ok(Self::Delay(parse_delay(time)?, way)),
            (["rate", rate], way) => Ok(Self::Rate(parse_rate(rate)?, way)),
            _ => Err(CommandError::Unknown),
        }
    }
}

/// Reads a delay such as `25ms`.
///
/// # Errors
/// [`CommandError::Delay`].
pub fn parse_delay(text: &str) -> Result<Duration, CommandError> {
    let units = [("us", 1e-6), ("ms", 1e-3), ("s", 1.0)];
    let seconds = number_with_unit(text, &units).ok_or(CommandError::Delay)?;
    if seconds > 60.0 {
        return Err(CommandError::Delay);
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| CommandError::Delay)
}

/// Reads a rate such as `100mbit`, in bit/s, or `none`.
///
/// # Errors
/// [`CommandError::Rate`].
pub fn parse_rate(text: &str) -> Result<Option<u64>, CommandError> {
    if text == "none" {
        return Ok(None);
    }
    let units = [("gbit", 1e9), ("mbit", 1e6), ("kbit", 1e3)];
    match number_with_unit(text, &units) {
        // The conversion saturates; such rates have no effect.
        Some(rate) if rate >= 1.0 => Ok(Some(rate as u64)),
        _ => Err(CommandError::Rate),
    }
}

fn number_with_unit(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    units.iter().find_map(|(unit, factor)| {
        let number: f64 = text.strip_suffix(unit)?.parse().ok()?;
        (number.is_finite() && number >= 0.0).then_some(number * factor)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_read() {
        for (line, command) in [
            ("freeze", Command::Freeze(Directions::Both)),
            (
                "thaw backward\n",
                Command::Thaw(Directions::From(Side::Second)),
            ),
            ("cut", Command::Cut),
            ("mend", Command::Mend),
            (
                "delay 25ms",
                Command::Delay(Duration::from_millis(25), Directions::Both),
            ),
            (
                "delay 0.5ms forward",
                Command::Delay(Duration::from_micros(500), Directions::From(Side::First)),
            ),
            (
                "rate 100mbit",
                Command::Rate(Some(100_000_000), Directions::Both),
            ),
            (
                "rate 1.5gbit",
                Command::Rate(Some(1_500_000_000), Directions::Both),
            ),
            ("rate none", Command::Rate(None, Directions::Both)),
            ("stats", Command::Stats),
        ] {
            assert_eq!(line.parse(), Ok(command), "{line}");
        }
    }

    #[test]
    fn invalid_commands_are_refused() {
        for (line, error) in [
            ("", CommandError::Unknown),
            ("melt", CommandError::Unknown),
            ("cut forward", CommandError::Unknown),
            ("delay", CommandError::Unknown),
            ("delay 25", CommandError::Delay),
            ("delay -1ms", CommandError::Delay),
            ("delay 61s", CommandError::Delay),
            ("delay NaNms", CommandError::Delay),
            ("rate 0mbit", CommandError::Rate),
            ("rate fast", CommandError::Rate),
            ("rate infgbit", CommandError::Rate),
        ] {
            assert_eq!(line.parse::<Command>(), Err(error), "{line}");
        }
    }
}
