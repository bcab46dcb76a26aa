//! The access file as it is written.

use std::path::Path;
use std::time::Duration;

use common::text_input;
use serde::Deserialize;
use time::{OffsetDateTime, UtcOffset};

use super::error::{AccessError, RuleFault};
use super::hours::{Hours, offset};
use super::pattern::Pattern;
use super::rules::{Approval, Governed, Rule, Rules};
use crate::query::{Condition, Source};

/// The whole file.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Document {
    #[serde(default)]
    token_ttl: Option<String>,
    #[serde(default)]
    utc_offset: Option<String>,
    #[serde(default)]
    govern: Option<Govern>,
    #[serde(default)]
    allow: Vec<Allow>,
}

/// Which shared access policies it governs besides those that rules name.
#[derive(Deserialize)]
#[serde(untagged)]
enum Govern {
    /// These.
    Policies(Vec<String>),
    /// `"all"`.
    Word(String),
}

/// A rule.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Allow {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    people: Vec<String>,
    #[serde(default)]
    groups: Vec<String>,
    #[serde(default)]
    policies: Vec<String>,
    #[serde(default)]
    devices: Vec<String>,
    #[serde(default)]
    tags: Option<String>,
    #[serde(default)]
    modules: Vec<String>,
    #[serde(default)]
    targets: Vec<String>,
    #[serde(default)]
    hours: Vec<String>,
    #[serde(default)]
    from: Option<toml::value::Datetime>,
    #[serde(default)]
    until: Option<toml::value::Datetime>,
    #[serde(default)]
    approval: Option<Approve>,
}

/// Who approves, and for how long.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Approve {
    #[serde(default)]
    by: Option<Vec<String>>,
    #[serde(rename = "for", default)]
    lasts: Option<String>,
    #[serde(default)]
    cut: bool,
}

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);
const TOKEN_TTL: Duration = Duration::from_secs(3_600);
const GRANT: Duration = Duration::from_secs(3_600);

impl Rules {
    /// Reads the file. Blocks.
    ///
    /// # Errors
    /// [`AccessError`] names the line or the rule at fault.
    pub fn read(path: &Path) -> Result<Self, AccessError> {
        let text = text_input::read(path).map_err(|source| AccessError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(path, &text)
    }

    /// The same for a file's text.
    ///
    /// # Errors
    /// [`AccessError`] names the line or the rule at fault.
    pub fn parse(path: &Path, text: &str) -> Result<Self, AccessError> {
        let document: Document = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start).min(text.len());
            let before = text.as_bytes().get(..at).unwrap_or_default();
            AccessError::Syntax {
                path: path.to_owned(),
                line: before.iter().filter(|byte| **byte == b'\n').count() + 1,
                reason: error.message().to_owned(),
            }
        })?;
        let above = |fault| AccessError::Above {
            path: path.to_owned(),
            fault,
        };
        let zone = match document.utc_offset {
            Some(text) => offset(&text)
                .ok_or(RuleFault::Offset(text))
                .map_err(above)?,
            None => UtcOffset::UTC,
        };
        let ttl = duration(
            "token-ttl",
            document.token_ttl,
            TOKEN_TTL,
            ("1m", MINUTE),
            ("1d", DAY),
        );
        let rules = document
            .allow
            .into_iter()
            .enumerate()
            .map(|(index, allow)| {
                let name = allow
                    .name
                    .clone()
                    .unwrap_or_else(|| format!("allow {}", index + 1));
                rule(allow).map_err(|fault| AccessError::Rule {
                    path: path.to_owned(),
                    number: index + 1,
                    name,
                    fault,
                })
            });
        let governed = match document.govern {
            None => Governed::Policies(Vec::new()),
            Some(Govern::Policies(names)) => Governed::Policies(names),
            Some(Govern::Word(word)) if word == "all" => Governed::All,
            Some(Govern::Word(word)) => return Err(above(RuleFault::Govern(word))),
        };
        Ok(Self {
            governed,
            token_ttl: ttl.map_err(above)?,
            rules: rules.collect::<Result<_, _>>()?,
            zone,
        })
    }
}

fn rule(allow: Allow) -> Result<Rule, RuleFault> {
    if allow.people.is_empty() && allow.groups.is_empty() && allow.policies.is_empty() {
        return Err(RuleFault::Nobody);
    }
    if allow.devices.is_empty() && allow.tags.is_none() {
        return Err(RuleFault::NoDevices);
    }
    if allow.targets.is_empty() {
        return Err(RuleFault::NoTargets);
    }
    let patterns = |names: Vec<String>| names.into_iter().map(Pattern::new).collect::<Vec<_>>();
    let hours = allow.hours.into_iter();
    let hours = hours.map(|text| Hours::parse(&text).ok_or(RuleFault::Hours(text)));
    let approval = allow.approval.map(|approve| {
        if approve.by.as_ref().is_some_and(Vec::is_empty) {
            return Err(RuleFault::NoApprovers);
        }
        Ok(Approval {
            by: approve.by.unwrap_or_default(),
            lasts: duration(
                "approval.for",
                approve.lasts,
                GRANT,
                ("1m", MINUTE),
                ("30d", 30 * DAY),
            )?,
            cuts: approve.cut,
        })
    });
    Ok(Rule {
        people: allow.people,
        groups: allow.groups,
        policies: allow.policies,
        devices: (!allow.devices.is_empty()).then(|| patterns(allow.devices)),
        tags: allow.tags.map(|text| condition(&text)).transpose()?,
        modules: patterns(allow.modules),
        targets: patterns(allow.targets),
        hours: hours.collect::<Result<_, _>>()?,
        from: allow.from.map(|at| moment("from", &at)).transpose()?,
        until: allow.until.map(|at| moment("until", &at)).transpose()?,
        approval: approval.transpose()?,
    })
}

/// A condition that only services can have a say in.
fn condition(text: &str) -> Result<Condition, RuleFault> {
    let condition = Condition::parse(text)?;
    let is_of_services = condition
        .fields()
        .names()
        .all(|name| matches!(name, "tags" | "deviceId"));
    match is_of_services && condition.source() == Source::Devices {
        true => Ok(condition),
        false => Err(RuleFault::OtherThanTags),
    }
}

fn duration(
    name: &'static str,
    text: Option<String>,
    default: Duration,
    least: (&'static str, Duration),
    most: (&'static str, Duration),
) -> Result<Duration, RuleFault> {
    let Some(text) = text else {
        return Ok(default);
    };
    humantime::parse_duration(&text)
        .ok()
        .filter(|time| (least.1..=most.1).contains(time))
        .ok_or(RuleFault::Time {
            name,
            least: least.0,
            most: most.0,
        })
}

fn moment(name: &'static str, at: &toml::value::Datetime) -> Result<OffsetDateTime, RuleFault> {
    let format = &time::format_description::well_known::Rfc3339;
    OffsetDateTime::parse(&at.to_string(), format).map_err(|_| RuleFault::Moment(name))
}
