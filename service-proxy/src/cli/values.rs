//! The values of options for many devices.

use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// How long a device may take to answer a direct method.
pub(super) fn method_seconds(text: &str) -> Result<Duration, &'static str> {
    super::seconds(text, 300.0)
        .filter(|time| time.as_secs() >= 5)
        .ok_or("give seconds from 5 to 300")
}

pub(super) fn condition(text: &str) -> Result<String, &'static str> {
    if text.trim().is_empty() {
        Err("give a condition, or * for all devices")
    } else {
        Ok(text.trim().to_owned())
    }
}

/// What IoT Hub allows, so that the hub's answer is about the job and not about its name.
pub(super) fn job_id(text: &str) -> Result<String, &'static str> {
    let is_good = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
    if (1..=64).contains(&text.len()) && text.chars().all(is_good) {
        Ok(text.to_owned())
    } else {
        Err("give 1 to 64 ASCII letters, digits and - . _ :")
    }
}

/// A user name that ssh and a shell take as one.
pub(super) fn user(text: &str) -> Result<String, &'static str> {
    let is_good = |c: char| c.is_alphanumeric() || "-._@\\+$".contains(c);
    if !text.is_empty() && !text.starts_with('-') && text.chars().all(is_good) {
        Ok(text.to_owned())
    } else {
        Err("give a user name: letters, digits and - . _ @ \\ + $")
    }
}

pub(super) fn path(text: &str) -> Result<String, &'static str> {
    if text.split('.').all(|name| !name.trim().is_empty()) {
        Ok(text.to_owned())
    } else {
        Err("give the way to a value in the twin, for instance tags.site")
    }
}

/// A time in UTC, as hubs want it.
pub(super) fn start_time(text: &str) -> Result<String, &'static str> {
    const BAD: &str = "give a time as 2026-11-29T22:00:00Z, or +90s, +10m, +2h, +1d";
    let at = match text.strip_prefix('+') {
        None => OffsetDateTime::parse(text, &Rfc3339).map_err(|_| BAD)?,
        Some(wait) => {
            let unit = wait.trim_start_matches(|c: char| c.is_ascii_digit());
            let seconds = match unit {
                "" | "s" => 1,
                "m" => 60,
                "h" => 3600,
                "d" => 86_400,
                _ => return Err(BAD),
            };
            let count: u32 = wait
                .strip_suffix(unit)
                .unwrap_or(wait)
                .parse()
                .map_err(|_| BAD)?;
            let wait = Duration::from_secs(u64::from(count) * seconds);
            OffsetDateTime::now_utc()
                .checked_add(wait.try_into().map_err(|_| BAD)?)
                .ok_or(BAD)?
        }
    };
    at.to_offset(time::UtcOffset::UTC)
        .format(&Rfc3339)
        .map_err(|_| BAD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_given_in_two_ways() {
        assert_eq!(
            start_time("2026-11-29T23:30:00+01:00").unwrap(),
            "2026-11-29T22:30:00Z"
        );
        let parse =
            |text: &str| OffsetDateTime::parse(&start_time(text).unwrap(), &Rfc3339).unwrap();
        let now = OffsetDateTime::now_utc();
        for (text, seconds) in [
            ("+90", 90),
            ("+90s", 90),
            ("+10m", 600),
            ("+2h", 7200),
            ("+1d", 86_400),
        ] {
            let wait = parse(text) - now;
            assert!(
                (seconds..seconds + 60).contains(&wait.whole_seconds()),
                "{text}"
            );
        }
        for bad in [
            "",
            "now",
            "22:00",
            "+",
            "+m",
            "+1w",
            "+-1s",
            "2026-11-29",
            "+99999999999d",
        ] {
            assert!(start_time(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_that_a_shell_or_ssh_would_misread_are_refused() {
        for bad in ["", "-oProxyCommand=x", "a b", "a;b", "`x`"] {
            assert!(user(bad).is_err(), "{bad}");
        }
        for good in ["ada", "DOMAIN\\ada", "ada@example.com"] {
            assert!(user(good).is_ok(), "{good}");
        }
        assert!(job_id("a/b").is_err() && job_id("job-1").is_ok());
        assert!(path("tags.").is_err() && path("tags.site").is_ok());
        assert!(condition(" ").is_err());
    }
}
