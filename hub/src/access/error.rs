//! What is wrong with an access file.

use std::path::PathBuf;

use common::text_input::TextError;

use crate::query::QueryError;

/// An access file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// It cannot be read.
    #[error("the access file {} cannot be read", path.display())]
    Unreadable {
        /// Which one.
        path: PathBuf,
        /// Why not.
        #[source]
        source: TextError,
    },
    /// It is not TOML, or has other settings than an access file.
    #[error("{}, line {line}: {reason}", path.display())]
    Syntax {
        /// Which one.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What the parser says.
        reason: String,
    },
    /// A rule has no meaning.
    #[error("{}, rule {number} ({name})", path.display())]
    Rule {
        /// Which file.
        path: PathBuf,
        /// The rule's number, from 1.
        number: usize,
        /// Its name.
        name: String,
        /// What is wrong with it.
        #[source]
        fault: RuleFault,
    },
    /// What stands above the rules has no meaning.
    #[error("{}", path.display())]
    Above {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        fault: RuleFault,
    },
}

/// What is wrong with a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleFault {
    /// It is for nobody.
    #[error("it is for nobody: give people, groups or policies")]
    Nobody,
    /// It leads nowhere.
    #[error("it is about no device: give devices or tags; devices = [\"*\"] means all")]
    NoDevices,
    /// It leads to nothing.
    #[error("it is about no target: give targets; targets = [\"*\"] means all")]
    NoTargets,
    /// The condition on tags is none.
    #[error("tags")]
    Tags(#[from] QueryError),
    /// The condition is about what devices write, or about what changes by itself.
    #[error(
        "tags: only tags and deviceId may decide about access, since services alone write them"
    )]
    OtherThanTags,
    /// The hours are none.
    #[error("hours: {0:?} is not as \"mon-fri 08:00-18:00\"")]
    Hours(String),
    /// The offset is none.
    #[error("utc-offset: {0:?} is not as \"+01:00\"")]
    Offset(String),
    /// What is governed is no list, nor all.
    #[error("govern: give names of shared access policies in [], or \"all\", not {0:?}")]
    Govern(String),
    /// A duration is none, or out of bounds.
    #[error("{name}: give a time from {least} to {most}, as \"1h\"")]
    Time {
        /// Which setting.
        name: &'static str,
        /// At least.
        least: &'static str,
        /// At most.
        most: &'static str,
    },
    /// A moment is none.
    #[error("{0}: give a date and time with an offset, as 2026-12-31T18:00:00+01:00")]
    Moment(&'static str),
    /// Nobody can approve.
    #[error(
        "approval.by: name the people or groups that may approve, or leave it out: then only `stream-hub approvals` can"
    )]
    NoApprovers,
}
