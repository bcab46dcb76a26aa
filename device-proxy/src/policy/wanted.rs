//! What the cloud wants of the policy: the section `deviceStreams` of the desired properties.

use std::collections::BTreeMap;

use common::outside::printable;
use common::settings;
use serde_json::Value;
use tracing::level_filters::LevelFilter;

use crate::target::{ANY, Target, TargetError, checked_name};

/// Bytes of a reason: a reported text has to stay below 4 KiB.
const REASON: usize = 500;

/// Why what the cloud wants is refused; for the reported properties and the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(String);

impl Refused {
    /// For this reason, which may repeat text from outside.
    pub(super) fn new(reason: &str) -> Self {
        let reason = printable(reason);
        let mut end = reason.len().min(REASON);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        Self(reason.get(..end).unwrap_or_default().to_owned())
    }
}

/// What the cloud wants; where it is silent, the local configuration holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Whether new streams are accepted.
    pub accept: Option<bool>,
    /// What becomes of targets; the one without a name is `*`.
    pub targets: BTreeMap<String, WantedTarget>,
    /// Streams at once.
    pub max_streams: Option<usize>,
    /// The level of the log.
    pub log_level: Option<LevelFilter>,
}

/// What becomes of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WantedTarget {
    /// It cannot be reached.
    Withdrawn,
    /// It is as the local configuration says.
    AsConfigured,
    /// It leads there.
    At(Target),
}

impl Wanted {
    /// Reads the section.
    ///
    /// # Errors
    /// [`Refused`] names the first member that is unknown or invalid. Nothing of an invalid section
    /// holds.
    pub fn parse(section: &Value) -> Result<Self, Refused> {
        let Value::Object(members) = section else {
            return Err(Refused::new("deviceStreams is not an object"));
        };
        let mut wanted = Self::default();
        for (name, value) in members {
            match (name.as_str(), value) {
                ("accept", Value::Bool(accept)) => wanted.accept = Some(*accept),
                ("accept", _) => return Err(Refused::new("accept is neither true nor false")),
                ("targets", Value::Object(targets)) => {
                    for (name, value) in targets {
                        let target = target(name, value)?;
                        wanted.targets.insert(name.clone(), target);
                    }
                }
                ("targets", _) => return Err(Refused::new("targets is not an object")),
                ("maxStreams", value) => {
                    let most = value.as_u64().and_then(|most| usize::try_from(most).ok());
                    let most = most.filter(|most| *most > 0);
                    wanted.max_streams = Some(most.ok_or_else(|| {
                        Refused::new("maxStreams is not a whole number above 0; to accept no stream, set accept to false")
                    })?);
                }
                ("logLevel", value) => {
                    let level = value.as_str().ok_or("is not a text");
                    let level = level.and_then(settings::log_level);
                    wanted.log_level =
                        Some(level.map_err(|error| Refused::new(&format!("logLevel: {error}")))?);
                }
                _ => {
                    return Err(Refused::new(&format!(
                        "{name:?} is unknown; known are accept, targets, maxStreams and logLevel"
                    )));
                }
            }
        }
        Ok(wanted)
    }
}

fn target(name: &str, value: &Value) -> Result<WantedTarget, Refused> {
    let refused = |reason: &dyn std::fmt::Display| Refused::new(&format!("targets: {reason}"));
    if name != ANY {
        checked_name(name).map_err(|error| refused(&error))?;
    }
    match value {
        Value::Bool(false) => Ok(WantedTarget::Withdrawn),
        Value::Bool(true) => Ok(WantedTarget::AsConfigured),
        Value::String(address) => {
            let target = Target::at(address).map_err(|error| match error {
                // Its text is that of an option.
                TargetError::Form(_) => refused(&format_args!(
                    "{address:?} is not HOST:PORT (IPv6 in brackets) or unix:PATH"
                )),
                error => refused(&error),
            })?;
            Ok(WantedTarget::At(target))
        }
        _ => Err(refused(&format_args!(
            "{name:?} is neither true, false, \"HOST:PORT\" nor \"unix:PATH\""
        ))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_section_is_read() {
        let section = json!({
            "accept": false,
            "targets": { "rdp": false, "ssh": true, "web": "[::1]:8080", "*": false },
            "maxStreams": 8,
            "logLevel": "debug",
        });
        let wanted = Wanted::parse(&section).unwrap();
        assert_eq!(wanted.accept, Some(false));
        assert_eq!(wanted.max_streams, Some(8));
        assert_eq!(wanted.log_level, Some(LevelFilter::DEBUG));
        let web = Target::tcp("::1", "8080").unwrap();
        let targets: Vec<_> = wanted.targets.into_iter().collect();
        assert_eq!(
            targets,
            [
                ("*".to_owned(), WantedTarget::Withdrawn),
                ("rdp".to_owned(), WantedTarget::Withdrawn),
                ("ssh".to_owned(), WantedTarget::AsConfigured),
                ("web".to_owned(), WantedTarget::At(web)),
            ]
        );
        assert_eq!(Wanted::parse(&json!({})), Ok(Wanted::default()));
    }

    #[cfg(unix)]
    #[test]
    fn a_target_may_be_a_unix_socket() {
        let section = json!({ "targets": { "docker": "unix:/run/docker.sock" } });
        let wanted = Wanted::parse(&section).unwrap();
        let target = WantedTarget::At(Target::Unix("/run/docker.sock".into()));
        assert_eq!(wanted.targets.get("docker"), Some(&target));
        let section = json!({ "targets": { "docker": "unix:/run/../etc/x" } });
        let refused = Wanted::parse(&section).unwrap_err().to_string();
        assert!(refused.contains("absolute path"), "{refused}");
    }

    #[test]
    fn the_first_mistake_is_named() {
        for (section, reason) in [
            (json!([]), "deviceStreams is not an object"),
            (json!({ "accept": "no" }), "accept is neither"),
            (json!({ "accept": null }), "accept is neither"),
            (json!({ "targets": [] }), "targets is not an object"),
            (
                json!({ "targets": { "a b": true } }),
                "targets: the target's name \"a b\"",
            ),
            (
                json!({ "targets": { "_session.x": true } }),
                "targets: a target's name may not",
            ),
            (
                json!({ "targets": { "ssh": 22 } }),
                "targets: \"ssh\" is neither",
            ),
            (
                json!({ "targets": { "ssh": "localhost" } }),
                "targets: \"localhost\" is not HOST:PORT",
            ),
            (
                json!({ "targets": { "ssh": "x=localhost:1" } }),
                "targets: ",
            ),
            (
                json!({ "targets": { "ssh": "localhost:0" } }),
                "targets: \"0\" is not a port",
            ),
            (json!({ "maxStreams": 0 }), "maxStreams is not"),
            (json!({ "maxStreams": -1 }), "maxStreams is not"),
            (json!({ "maxStreams": 1.5 }), "maxStreams is not"),
            (json!({ "maxStreams": "8" }), "maxStreams is not"),
            (json!({ "logLevel": "loud" }), "logLevel: give off, error"),
            (json!({ "logLevel": 1 }), "logLevel: is not a text"),
            (
                json!({ "acept": true }),
                "\"acept\" is unknown; known are accept",
            ),
        ] {
            let refused = Wanted::parse(&section).unwrap_err().to_string();
            assert!(refused.starts_with(reason), "{section}: {refused}");
        }
        let long = json!({ "ü".repeat(5000): 1, "\u{1b}[2J": 1 });
        let refused = Wanted::parse(&long).unwrap_err().to_string();
        assert!(refused.len() <= REASON && !refused.contains('\u{1b}'));
    }
}
