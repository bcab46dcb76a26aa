//! A check as a line: a mark, what is checked, what was found and how long that took. The marks are
//! ticks and crosses, coloured, on a terminal that can show them, and words elsewhere, which can be
//! searched for.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::time::Duration;

use super::{Check, Outcome, Report};

/// Room for the titles, so that what was found stands below each other.
const TITLES: usize = 16;

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Printer {
    has_symbols: bool,
    has_colours: bool,
}

impl Printer {
    /// As standard output can show it.
    pub fn of_stdout() -> Self {
        let is_terminal = std::io::stdout().is_terminal();
        let variable = |name: &str| std::env::var(name).ok();
        Self {
            has_symbols: is_terminal && has_utf8(&variable),
            has_colours: is_terminal && variable("NO_COLOR").is_none(),
        }
    }

    /// Words only.
    pub fn plain() -> Self {
        Self {
            has_symbols: false,
            has_colours: false,
        }
    }

    /// The line of a check, without its end.
    pub fn line(self, check: &Check) -> String {
        let (symbol, word, colour) = match check.outcome {
            Outcome::Ok => ("✓", "ok  ", "32"),
            Outcome::Warning => ("!", "warn", "33"),
            Outcome::Failed => ("✗", "FAIL", "31"),
            Outcome::Skipped => ("–", "skip", "2"),
        };
        let mark = if self.has_symbols { symbol } else { word };
        let mut line = if self.has_colours {
            format!("\x1b[{colour}m{mark}\x1b[0m")
        } else {
            mark.to_owned()
        };
        let _ = write!(line, " {:TITLES$} {}", check.title, check.detail);
        if let Some(remedy) = &check.remedy {
            let _ = write!(line, "; {remedy}");
        }
        if let Some(time) = check.time {
            let _ = write!(line, " ({})", shown(time));
        }
        line
    }

    /// The lines of checks as they are made. What is not checked after a failure stands in one line,
    /// at the [end](Self::end).
    pub fn lines(self) -> impl FnMut(&Check) -> Option<String> + Send {
        let mut has_failed = false;
        move |check| {
            has_failed |= check.is_failed();
            let is_shown = !has_failed || check.outcome != Outcome::Skipped;
            is_shown.then(|| self.line(check))
        }
    }

    /// The last lines of a report.
    pub fn end(self, report: &Report) -> Vec<String> {
        let mut lines = Vec::new();
        let after = report.checks.iter().skip_while(|check| !check.is_failed());
        let unchecked: Vec<&str> = after
            .filter(|check| check.outcome == Outcome::Skipped)
            .map(|check| &*check.title)
            .collect();
        if !unchecked.is_empty() {
            let check = Check::skipped("", unchecked.join(", ")).called("not checked");
            lines.push(self.line(&check));
        }
        let sentence = report.sentence();
        lines.push(if self.has_colours {
            format!("\x1b[1m{sentence}\x1b[0m")
        } else {
            sentence
        });
        lines
    }
}

/// Whether the locale has more characters than ASCII.
fn has_utf8(variable: &dyn Fn(&str) -> Option<String>) -> bool {
    if cfg!(windows) {
        return variable("WT_SESSION").is_some();
    }
    let names = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter();
    let mut set = names.filter_map(variable).filter(|value| !value.is_empty());
    let Some(locale) = set.next() else {
        return false;
    };
    let locale = locale.to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

fn shown(time: Duration) -> String {
    let milliseconds = time.as_secs_f64() * 1e3;
    if milliseconds < 10.0 {
        format!("{milliseconds:.1} ms")
    } else if milliseconds < 1000.0 {
        format!("{milliseconds:.0} ms")
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_one_line() {
        let check = Check::failed("tcp", "refused")
            .called("TCP")
            .remedy("start it")
            .took(Duration::from_micros(1234));
        assert_eq!(
            Printer::plain().line(&check),
            "FAIL TCP              refused; start it (1.2 ms)"
        );
        let coloured = Printer {
            has_symbols: true,
            has_colours: true,
        };
        let line = coloured.line(&Check::ok("tcp", "fine"));
        assert!(line.starts_with("\x1b[32m✓\x1b[0m tcp "), "{line}");
        assert_eq!(shown(Duration::from_millis(1500)), "1.5 s");
        assert_eq!(shown(Duration::from_millis(15)), "15 ms");
    }

    #[test]
    fn what_a_failure_keeps_from_being_checked_is_one_line() {
        let mut lines = Printer::plain().lines();
        let mut printed = Vec::new();
        let observer = |check: &Check| printed.extend(lines(check));
        let mut examination = super::super::Examination::new("test", "d".to_owned(), observer);
        examination.skip(&[("proxy", "proxy")], "none");
        examination.add(Check::failed("tcp", "refused"));
        examination.skip(
            &[("tls", "TLS"), ("clock", "clock")],
            "TCP has to work first",
        );
        let report = examination.into_report();
        printed.extend(Printer::plain().end(&report));
        assert_eq!(
            printed,
            [
                "skip proxy            none",
                "FAIL tcp              refused",
                "skip not checked      TLS, clock",
                "d is stuck at tcp: refused.",
            ]
        );
    }

    #[cfg(not(windows))]
    #[test]
    fn the_locale_decides_on_ticks() {
        let utf8 = |set: &[(&str, &str)]| {
            has_utf8(&|name| {
                let found = set.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        assert!(utf8(&[("LANG", "de_DE.UTF-8")]));
        assert!(utf8(&[("LC_ALL", ""), ("LC_CTYPE", "C.utf8")]));
        assert!(!utf8(&[("LC_ALL", "C"), ("LANG", "de_DE.UTF-8")]));
        assert!(!utf8(&[]));
    }
}
