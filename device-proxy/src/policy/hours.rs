//! At which hours something is allowed: `Mon-Fri 08:00-18:00`, in the device's time or in UTC.

use std::fmt;
use std::time::Duration;

use chrono::{Datelike as _, Local, Timelike as _, Utc};

/// The names of days, in the order of the week.
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
/// Minutes of a day.
const DAY: u32 = 24 * 60;

/// A text is no hours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not [DAYS] FROM-TO [UTC], as in \"Mon-Fri 08:00-18:00\", \"Sat,Sun 22:00-06:00 UTC\" or \"00:00-24:00\""
)]
pub struct BadHours(String);

/// Hours of a week; none at all means always.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hours(Vec<Span>);

/// The same hours of some days. Those that end before they begin end on the next day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    /// A bit for each day, Monday's the lowest.
    days: u8,
    /// Minutes from midnight.
    from: u32,
    to: u32,
    is_utc: bool,
}

/// A time of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Moment {
    /// From 0, Monday.
    day: u32,
    /// From midnight.
    second: u32,
}

/// What the clock shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    local: Moment,
    utc: Moment,
}

impl Now {
    /// On the system's clock, in its time zone.
    pub fn of_system() -> Self {
        let (local, utc) = (Local::now(), Utc::now());
        Self {
            local: Moment {
                day: local.weekday().num_days_from_monday(),
                second: local.num_seconds_from_midnight(),
            },
            utc: Moment {
                day: utc.weekday().num_days_from_monday(),
                second: utc.num_seconds_from_midnight(),
            },
        }
    }
}

impl Hours {
    /// Adds `[DAYS] FROM-TO [UTC]`.
    ///
    /// # Errors
    /// [`BadHours`].
    pub fn add(&mut self, text: &str) -> Result<(), BadHours> {
        let span = Span::parse(text).ok_or_else(|| BadHours(text.to_owned()))?;
        self.0.push(span);
        Ok(())
    }

    /// Whether they say nothing: always.
    pub fn are_always(&self) -> bool {
        self.0.is_empty()
    }

    /// For how long it is allowed now without a pause, at least: `None` if it is not. Hours that
    /// follow without one are not added up; ask again then.
    pub fn left(&self, now: &Now) -> Option<Duration> {
        if self.are_always() {
            return Some(Duration::MAX);
        }
        let left = self.0.iter().filter_map(|span| span.left(now)).max()?;
        Some(Duration::from_secs(left.into()))
    }
}

impl Span {
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace().peekable();
        let days = match words.next_if(|word| word.starts_with(|c: char| c.is_alphabetic())) {
            Some(days) => parse_days(days)?,
            None => 0x7f,
        };
        let (from, to) = words.next()?.split_once('-')?;
        let (from, to) = (parse_minutes(from)?, parse_minutes(to)?);
        let is_utc = match words.next() {
            None => false,
            Some(zone) if zone.eq_ignore_ascii_case("UTC") => true,
            Some(_) => return None,
        };
        // All of a day is 00:00-24:00; without a length it could mean that or nothing.
        let is_sound = words.next().is_none() && from < DAY && to > 0 && from != to;
        is_sound.then_some(Self {
            days,
            from,
            to,
            is_utc,
        })
    }

    fn has(&self, day: u32) -> bool {
        self.days & (1 << (day % 7)) != 0
    }

    /// Seconds to its end, if it is now.
    fn left(&self, now: &Now) -> Option<u32> {
        let Moment { day, second } = if self.is_utc { now.utc } else { now.local };
        let (from, to) = (self.from * 60, self.to * 60);
        if from < to {
            let is_now = self.has(day) && (from..to).contains(&second);
            return is_now.then(|| to - second);
        }
        if self.has(day) && second >= from {
            Some(DAY * 60 - second + to)
        } else {
            // What began yesterday.
            (self.has(day + 6) && second < to).then(|| to - second)
        }
    }
}

/// `Mon`, `Mon-Fri`, `Sat,Sun`; a range may go over the end of the week.
fn parse_days(text: &str) -> Option<u8> {
    let number = |name: &str| DAYS.iter().position(|day| day.eq_ignore_ascii_case(name));
    let mut days = 0;
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        let length = (last + 7 - first) % 7;
        for day in first..=first + length {
            days |= 1 << (day % 7);
        }
    }
    Some(days)
}

/// `08:00`, to `24:00`.
fn parse_minutes(text: &str) -> Option<u32> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |text: &str| {
        let is_number = (1..=2).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u32>().ok().filter(|_| is_number)
    };
    let (hours, minutes) = (number(hours)?, number(minutes).filter(|it| *it < 60)?);
    let all = hours * 60 + minutes;
    (minutes_have_two_digits(text) && all <= DAY).then_some(all)
}

fn minutes_have_two_digits(text: &str) -> bool {
    text.len() >= 3 && text.as_bytes().get(text.len() - 3) == Some(&b':')
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, span) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            span.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.days != 0x7f {
            let names = DAYS.iter().zip(0..).filter(|(_, day)| self.has(*day));
            let names: Vec<_> = names.map(|(name, _)| *name).collect();
            write!(f, "{} ", names.join(","))?;
        }
        for (minutes, after) in [(self.from, "-"), (self.to, "")] {
            write!(f, "{:02}:{:02}{after}", minutes / 60, minutes % 60)?;
        }
        f.write_str(if self.is_utc { " UTC" } else { "" })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn at(day: u32, hour: u32, minute: u32) -> Now {
        let local = Moment {
            day,
            second: (hour * 60 + minute) * 60,
        };
        // The device is two hours ahead.
        let utc = match hour {
            0 | 1 => Moment {
                day: (day + 6) % 7,
                second: local.second + 22 * 3600,
            },
            _ => Moment {
                day,
                second: local.second - 2 * 3600,
            },
        };
        Now { local, utc }
    }

    fn hours(texts: &[&str]) -> Hours {
        let mut hours = Hours::default();
        for text in texts {
            hours.add(text).unwrap();
        }
        hours
    }

    fn minutes_left(texts: &[&str], now: Now) -> Option<u64> {
        hours(texts).left(&now).map(|left| left.as_secs() / 60)
    }

    #[test]
    fn the_days_and_hours_are_those_of_the_text() {
        let work = ["Mon-Fri 08:00-18:00"];
        assert_eq!(minutes_left(&work, at(0, 8, 0)), Some(600));
        assert_eq!(minutes_left(&work, at(4, 17, 59)), Some(1));
        for closed in [at(0, 7, 59), at(0, 18, 0), at(5, 12, 0), at(6, 12, 0)] {
            assert_eq!(minutes_left(&work, closed), None, "{closed:?}");
        }
        // Over midnight: of the day on which it begins.
        let night = ["Sat 22:00-06:00"];
        assert_eq!(minutes_left(&night, at(5, 23, 0)), Some(7 * 60));
        assert_eq!(minutes_left(&night, at(6, 5, 0)), Some(60));
        for closed in [at(5, 5, 0), at(6, 6, 0), at(6, 23, 0)] {
            assert_eq!(minutes_left(&night, closed), None, "{closed:?}");
        }
        let over_the_week = ["Sun-Mon 10:00-11:00"];
        for (day, is_open) in [(6, true), (0, true), (1, false), (5, false)] {
            let left = minutes_left(&over_the_week, at(day, 10, 0));
            assert_eq!(left.is_some(), is_open, "{day}");
        }
        assert_eq!(minutes_left(&["06:00-07:00 UTC"], at(0, 8, 30)), Some(30));
        assert_eq!(minutes_left(&["06:00-07:00 UTC"], at(0, 6, 30)), None);
        let two = ["08:00-09:00", "mon,wed 08:30-10:00"];
        assert_eq!(minutes_left(&two, at(0, 8, 45)), Some(75));
        assert_eq!(minutes_left(&two, at(1, 8, 45)), Some(15));
        assert_eq!(hours(&[]).left(&at(0, 0, 0)), Some(Duration::MAX));
        assert_eq!(minutes_left(&["00:00-24:00"], at(3, 23, 0)), Some(60));
    }

    #[test]
    fn texts_are_read_and_shown() {
        for (text, shown) in [
            ("Mon-Fri 08:00-18:00", "Mon,Tue,Wed,Thu,Fri 08:00-18:00"),
            ("  sat,SUN   8:00-12:30 utc", "Sat,Sun 08:00-12:30 UTC"),
            ("22:00-06:00", "22:00-06:00"),
        ] {
            assert_eq!(hours(&[text]).to_string(), shown);
        }
        for bad in [
            "",
            "Mon-Fri",
            "08:00",
            "08:00-",
            "8-18",
            "08:00-24:01",
            "24:00-08:00",
            "Mo 08:00-18:00",
            "08:00-18:00 CET",
            "08:00-18:00 UTC x",
            "08:00-08:00",
            "08:60-18:00",
            "Mon- 08:00-18:00",
            "+8:00-18:00",
            "08:0-18:00",
            "08:00-00:00x",
            "00:00-00:00",
            ":-:",
            "é:00-18:00",
        ] {
            assert!(Hours::default().add(bad).is_err(), "{bad}");
        }
        assert!(
            Hours::default().add("22:00-00:00").is_err(),
            "that is 24:00"
        );
    }
}
