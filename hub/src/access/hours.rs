//! The hours of a week.

use time::{OffsetDateTime, Time, UtcOffset, Weekday};

/// A part of each week, as `mon-fri 08:00-18:00`, `sat 22:00-04:00` or `daily 06:00-07:00`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hours {
    /// From Monday to Sunday.
    days: [bool; 7],
    /// In minutes of the day.
    from: u16,
    /// The same; not later than `from`: on the next day.
    to: u16,
}

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const DAY: u16 = 24 * 60;

impl Hours {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (days, hours) = text.trim().split_once(' ')?;
        let day = |name: &str| DAYS.iter().position(|day| name.eq_ignore_ascii_case(day));
        let mut on = [false; 7];
        if days.eq_ignore_ascii_case("daily") {
            on = [true; 7];
        } else {
            for part in days.split(',') {
                let (first, last) = part.split_once('-').unwrap_or((part, part));
                let (first, last) = (day(first)?, day(last)?);
                let mut at = first;
                loop {
                    *on.get_mut(at)? = true;
                    if at == last {
                        break;
                    }
                    at = (at + 1) % DAYS.len();
                }
            }
        }
        let (from, to) = hours.trim().split_once('-')?;
        let (from, to) = (minutes(from)?, minutes(to)?);
        (from < DAY && from != to).then_some(Self { days: on, from, to })
    }

    /// Whether a moment belongs to it.
    pub(super) fn contains(&self, moment: OffsetDateTime) -> bool {
        let minute = u16::from(moment.hour()) * 60 + u16::from(moment.minute());
        let is_on = |day: Weekday| {
            let day = usize::from(day.number_days_from_monday());
            self.days.get(day).copied().unwrap_or(false)
        };
        let today = moment.weekday();
        if self.from < self.to {
            return is_on(today) && (self.from..self.to).contains(&minute);
        }
        // Begun today, or yesterday.
        (is_on(today) && minute >= self.from) || (is_on(today.previous()) && minute < self.to)
    }
}

/// `08:30`, up to `24:00`.
fn minutes(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let number = |text: &str| -> Option<u8> {
        let is_fit = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|_| is_fit)
    };
    let (hour, minute) = (number(hour)?, number(minute)?);
    if (hour, minute) == (24, 0) {
        return Some(DAY);
    }
    Time::from_hms(hour, minute, 0).ok()?;
    Some(u16::from(hour) * 60 + u16::from(minute))
}

/// `+01:00`, `-05:30` or `Z`.
pub(super) fn offset(text: &str) -> Option<UtcOffset> {
    if text == "Z" {
        return Some(UtcOffset::UTC);
    }
    let sign = match text.get(..1)? {
        "+" => 1,
        "-" => -1,
        _ => return None,
    };
    let minutes = minutes(text.get(1..)?).filter(|minutes| *minutes <= 14 * 60)?;
    UtcOffset::from_whole_seconds(sign * i32::from(minutes) * 60).ok()
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn hours_are_those_of_a_week() {
        let is_in = |text: &str, moment| Hours::parse(text).unwrap().contains(moment);
        // A Monday.
        let monday = datetime!(2026-11-30 08:00 UTC);
        assert!(is_in("mon-fri 08:00-18:00", monday));
        assert!(!is_in("mon-fri 08:01-18:00", monday));
        assert!(!is_in("tue-fri 08:00-18:00", monday));
        assert!(!is_in("mon-fri 06:00-08:00", monday));
        assert!(is_in("sat,mon 00:00-24:00", monday));
        assert!(is_in("daily 00:00-24:00", monday));
        assert!(is_in("fri-mon 08:00-09:00", monday));
        // Over midnight: it belongs to the day on which it begins.
        let night = datetime!(2026-12-01 03:59 UTC);
        assert!(is_in("mon 22:00-04:00", night));
        assert!(!is_in("tue 22:00-04:00", night));
        assert!(is_in("sun 22:00-04:00", datetime!(2026-11-30 00:00 UTC)));
    }

    #[test]
    fn what_is_no_part_of_a_week() {
        for text in [
            "",
            "mon",
            "08:00-18:00",
            "mon 8:00-18:00",
            "mon 08:00",
            "mon 08:00-08:00",
            "mon 24:00-08:00",
            "mon 08:00-24:01",
            "mo 08:00-18:00",
            "mon- 08:00-18:00",
            "mon 08:60-18:00",
            "mon +8:00-18:00",
        ] {
            assert_eq!(Hours::parse(text), None, "{text}");
        }
    }

    #[test]
    fn offsets() {
        assert_eq!(offset("+01:00").unwrap().whole_seconds(), 3600);
        assert_eq!(offset("-05:30").unwrap().whole_seconds(), -19_800);
        assert_eq!(offset("Z"), Some(UtcOffset::UTC));
        for text in ["", "01:00", "+1:00", "+15:00", "ä", "Europe/Berlin"] {
            assert_eq!(offset(text), None, "{text}");
        }
    }
}
