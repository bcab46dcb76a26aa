//! What the hub could not do, by a mistake of its own or for want of what the machine should give.

use std::time::Duration;

use super::Reason;
use super::audit::WhenFull;

/// Something that failed, and that an operator should look at.
#[derive(Clone, Copy)]
pub enum Fault<'a> {
    /// A connection could not be accepted; the listener goes on after a while.
    NotAccepted {
        /// How long it waits.
        delay: Duration,
        /// Why not.
        reason: Reason<'a>,
    },
    /// The pattern of a path contradicts another one: what it names cannot be reached.
    Pattern {
        /// Which.
        pattern: &'a str,
        /// How it contradicts.
        reason: Reason<'a>,
    },
    /// What the hub has for a device has no form in MQTT: it is not sent.
    NotInMqtt(Reason<'a>),
    /// The registry could not do its part of a request.
    Registry(Reason<'a>),
    /// What a request is about is damaged in the registry.
    Damaged(Reason<'a>),
    /// Lists leave out what is damaged; this comes once for each.
    LeftOut(Reason<'a>),
    /// The registry cannot be asked what has changed; it is asked again.
    ChangesNotFollowed(Reason<'a>),
    /// Jobs cannot go on; they are tried again.
    JobsNotRun(Reason<'a>),
    /// When devices were connected is not in the registry.
    ActivityNotStored {
        /// Why not.
        reason: Reason<'a>,
        /// Whether the hub tries again; else it stops, and it is lost.
        is_retried: bool,
    },
    /// How many bytes were moved today is not in the registry, or cannot be read there; it is tried
    /// again.
    UsageNotStored(Reason<'a>),
    /// The webhook of approvals has not taken a message.
    WebhookNotTold {
        /// Why not.
        reason: Reason<'a>,
        /// Whether the message is lost; else the hub tries again.
        is_given_up: bool,
    },
    /// It cannot be looked for decisions of approvers; it is tried again.
    ApprovalsNotFollowed(Reason<'a>),
    /// The audit log is not as it should be.
    Audit(AuditFault<'a>),
    /// What devices have written last is not in the registry at the hub's end.
    WritesNotStored,
}

/// What is wrong with the audit log.
#[derive(Clone, Copy)]
pub enum AuditFault<'a> {
    /// It cannot be written; it is tried again.
    NotWritten {
        /// Why not.
        reason: Reason<'a>,
        /// What becomes of streams.
        full: WhenFull,
    },
    /// The disk, or who reads standard output, takes nothing, and gives no error.
    Stalled {
        /// How long already.
        since: Duration,
        /// What becomes of streams.
        full: WhenFull,
    },
    /// It can be written again.
    WrittenAgain {
        /// Records that were lost meanwhile.
        lost: u64,
    },
    /// At the end of the hub some records are not on the disk.
    NotFinished,
    /// How far it goes is not in the data folder: a cut end could not be found.
    EndNotStored(Reason<'a>),
    /// A file cannot be put aside, or an old one not be removed.
    NotRotated(Reason<'a>),
    /// Files are missing that rotation has not removed, so that it removes none behind them.
    Missing {
        /// The file that is written.
        file: &'a str,
        /// What is missing.
        finding: Reason<'a>,
    },
    /// What is there is not what the last hub has written.
    Broken {
        /// Its file.
        file: &'a str,
        /// In this line.
        line: u64,
        /// What.
        finding: Reason<'a>,
    },
}

impl AuditFault<'_> {
    /// Whether something is wrong; else it is over.
    pub fn is_fault(&self) -> bool {
        !matches!(self, Self::WrittenAgain { .. })
    }
}
