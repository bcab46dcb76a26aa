//! The examination of a path, for `service-proxy doctor` and `device-proxy doctor`: what a check is,
//! how a report reads and what goes into a bundle for support. [`path`] has the checks that both
//! programs share, from the name of the hub to a WebSocket there; each program has its own beside.
//!
//! Every check is made with what the programs themselves use, so that what is found is what they meet.
//! A check whose prerequisite has failed is skipped: the first one that failed is where it is stuck.

mod bundle;
mod files;
pub mod idle;
pub mod path;
mod print;
mod trust;

use std::borrow::Cow;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::outside;

pub use bundle::{Secrets, journal, write as write_bundle};
pub use files::{others_may_read, secret_files};
pub use print::Printer;

/// What a check has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As it should be.
    Ok,
    /// It works, and a person should look at it.
    Warning,
    /// It does not work.
    Failed,
    /// It was not checked: what it needs has failed, is not configured or is not offered.
    Skipped,
}

impl Outcome {
    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What is checked; stable, for programs.
    pub id: &'static str,
    /// The same for a person.
    pub title: Cow<'static, str>,
    /// What was found.
    pub outcome: Outcome,
    /// How long it took, if it took any time.
    pub time: Option<Duration>,
    /// What was found, in words; of a skipped one why it was skipped.
    pub detail: String,
    /// What to do about it.
    pub remedy: Option<String>,
    /// It has failed, and says of an earlier failure what that is about.
    pub explains: bool,
}

impl Check {
    fn new(id: &'static str, outcome: Outcome, detail: impl Into<String>) -> Self {
        Self {
            id,
            title: Cow::Borrowed(id),
            outcome,
            time: None,
            detail: clean(&detail.into()),
            remedy: None,
            explains: false,
        }
    }

    /// All is well.
    pub fn ok(id: &'static str, detail: impl Into<String>) -> Self {
        Self::new(id, Outcome::Ok, detail)
    }

    /// It works, but.
    pub fn warning(id: &'static str, detail: impl Into<String>) -> Self {
        Self::new(id, Outcome::Warning, detail)
    }

    /// It does not work.
    pub fn failed(id: &'static str, detail: impl Into<String>) -> Self {
        Self::new(id, Outcome::Failed, detail)
    }

    /// It was not checked.
    pub fn skipped(id: &'static str, why: impl Into<String>) -> Self {
        Self::new(id, Outcome::Skipped, why)
    }

    /// With another title than its id.
    #[must_use]
    pub fn called(mut self, title: impl Into<Cow<'static, str>>) -> Self {
        // It may have a name that the other end has sent.
        self.title = clean(&title.into()).into();
        self
    }

    /// With what to do about it.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(clean(&remedy.into()));
        self
    }

    /// With more at the end of what was found.
    #[must_use]
    pub fn adding(mut self, text: &str) -> Self {
        self.detail.push_str(&clean(text));
        self
    }

    /// It says of an earlier failure what that is about: that one is where it is stuck.
    #[must_use]
    pub fn explaining(mut self) -> Self {
        self.explains = true;
        self
    }

    /// With the time since `begun`.
    #[must_use]
    pub fn since(self, begun: Instant) -> Self {
        self.took(begun.elapsed())
    }

    /// With the time that it took.
    #[must_use]
    pub fn took(mut self, time: Duration) -> Self {
        self.time = Some(time);
        self
    }

    /// Whether it has failed.
    pub fn is_failed(&self) -> bool {
        self.outcome == Outcome::Failed
    }

    fn to_json(&self) -> Value {
        json!({
            "id": self.id,
            "title": self.title,
            "outcome": self.outcome.name(),
            "milliseconds": self.time.map(|time| (time.as_secs_f64() * 1e6).round() / 1e3),
            "detail": self.detail,
            "remedy": self.remedy,
        })
    }
}

/// External text in one line, without what looks like a secret.
fn clean(text: &str) -> String {
    let text = outside::printable(text);
    outside::masked(&text).into_owned()
}

/// All checks of an examination.
#[derive(Debug, Clone)]
pub struct Report {
    /// The program that has made it.
    pub program: &'static str,
    /// What was examined: a device at a hub, or the hub alone.
    pub subject: String,
    /// When it began, Unix seconds.
    pub begun: u64,
    /// In the order of the path.
    pub checks: Vec<Check>,
    /// What it was made with, without secrets.
    pub configuration: Value,
}

impl Report {
    /// The first check that failed, or one that explains it.
    pub fn stuck_at(&self) -> Option<&Check> {
        let mut failed = self.checks.iter().filter(|check| check.is_failed());
        let first = failed.next()?;
        Some(failed.find(|check| check.explains).unwrap_or(first))
    }

    /// The check of this id, the first of several.
    pub fn check(&self, id: &str) -> Option<&Check> {
        self.checks.iter().find(|check| check.id == id)
    }

    /// The worst outcome that there is.
    pub fn outcome(&self) -> Outcome {
        let has = |outcome| self.checks.iter().any(|check| check.outcome == outcome);
        if has(Outcome::Failed) {
            Outcome::Failed
        } else if has(Outcome::Warning) {
            Outcome::Warning
        } else {
            Outcome::Ok
        }
    }

    /// Where it is stuck, in one sentence.
    pub fn sentence(&self) -> String {
        let subject = &self.subject;
        if let Some(check) = self.stuck_at() {
            return format!("{subject} is stuck at {}", sentence_of(check));
        }
        let warnings = self.checks.iter();
        let warnings = warnings.filter(|check| check.outcome == Outcome::Warning);
        match warnings.clone().next() {
            None => format!("{subject} is well: nothing is stuck."),
            Some(first) => {
                let more = match warnings.count() - 1 {
                    0 => String::new(),
                    more => format!(" ({more} more above)"),
                };
                format!("{subject} works; look at {}{more}", sentence_of(first))
            }
        }
    }

    /// For programs.
    pub fn to_json(&self) -> Value {
        json!({
            "program": self.program,
            "version": env!("CARGO_PKG_VERSION"),
            "platform": format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH),
            "time": self.begun,
            "subject": self.subject,
            "outcome": self.outcome().name(),
            "stuckAt": self.stuck_at().map(|check| check.id),
            "sentence": self.sentence(),
            "checks": self.checks.iter().map(Check::to_json).collect::<Vec<_>>(),
        })
    }
}

fn sentence_of(check: &Check) -> String {
    let remedy = check.remedy.as_ref();
    let remedy = remedy.map_or_else(String::new, |remedy| format!("; {remedy}"));
    format!("{}: {}{remedy}.", check.title, check.detail)
}

/// An examination that is being made.
pub struct Examination<'a> {
    report: Report,
    observer: Box<dyn FnMut(&Check) + Send + 'a>,
}

impl<'a> Examination<'a> {
    /// Without checks yet; the observer sees each as soon as it is made.
    pub fn new(
        program: &'static str,
        subject: String,
        observer: impl FnMut(&Check) + Send + 'a,
    ) -> Self {
        Self {
            report: Report {
                program,
                subject: clean(&subject),
                begun: crate::clock::unix_now(),
                checks: Vec::new(),
                configuration: Value::Null,
            },
            observer: Box::new(observer),
        }
    }

    /// Says what it is made with.
    pub fn configured(&mut self, configuration: Value) {
        self.report.configuration = configuration;
    }

    /// Adds a check; whether it has not failed.
    pub fn add(&mut self, check: Check) -> bool {
        (self.observer)(&check);
        let is_failed = check.is_failed();
        self.report.checks.push(check);
        !is_failed
    }

    /// Adds checks that are not made, for this reason.
    pub fn skip(&mut self, checks: &[(&'static str, &'static str)], why: &str) {
        for (id, title) in checks {
            self.add(Check::skipped(id, why).called(*title));
        }
    }

    /// Its end.
    pub fn into_report(self) -> Report {
        self.report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(checks: Vec<Check>) -> Report {
        let mut seen = Vec::new();
        let mut examination =
            Examination::new("test", "d at h".to_owned(), |check| seen.push(check.id));
        for check in checks {
            examination.add(check);
        }
        let report = examination.into_report();
        assert_eq!(seen.len(), report.checks.len());
        report
    }

    #[test]
    fn the_first_failure_is_where_it_is_stuck() {
        let well = report(vec![Check::ok("a", "fine"), Check::skipped("b", "no need")]);
        assert_eq!(well.sentence(), "d at h is well: nothing is stuck.");
        assert_eq!(well.outcome(), Outcome::Ok);
        let warned = report(vec![
            Check::warning("a", "odd").remedy("look"),
            Check::warning("b", "odd, too"),
        ]);
        assert_eq!(
            warned.sentence(),
            "d at h works; look at a: odd; look. (1 more above)"
        );
        let stuck = report(vec![
            Check::warning("a", "odd"),
            Check::failed("b", "broken")
                .called("the b")
                .remedy("mend it"),
            Check::failed("c", "broken, too"),
        ]);
        assert_eq!(
            stuck.sentence(),
            "d at h is stuck at the b: broken; mend it."
        );
        let json = stuck.to_json();
        assert_eq!(json["stuckAt"], "b");
        assert_eq!(json["outcome"], "failed");
        assert_eq!(json["checks"][1]["remedy"], "mend it");
    }

    #[test]
    fn foreign_text_forges_no_line_and_shows_no_key() {
        let key = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";
        let check = Check::failed("a", format!("x\n\x1b[2Jok {key}"));
        assert!(!check.detail.contains(['\n', '\x1b']), "{}", check.detail);
        assert!(!check.detail.contains(key));
    }

    #[test]
    fn a_title_has_nothing_that_a_terminal_would_obey() {
        let check =
            Check::ok("target", "here").called("target \u{1b}[1A\u{1b}[2Kx\u{7}".to_owned());
        assert!(check.title.starts_with("target ") && !check.title.contains(char::is_control));
    }
}
