//! What an operator should look at.

use common::report::chain;
use common::telemetry::AUDIT;

use crate::events::audit::WhenFull;
use crate::events::{AuditFault, Fault};

/// What failed. What lists leave out comes once for each, and so is never summed up.
pub(super) fn write_fault(fault: Fault<'_>) {
    match fault {
        Fault::NotAccepted { delay, reason } => {
            tracing::warn!(?delay, "cannot accept a connection: {}", chain(reason));
        }
        Fault::Pattern { pattern, reason } => {
            tracing::error!("{pattern} cannot be served: {}", chain(reason));
        }
        Fault::NotInMqtt(reason) => {
            tracing::error!("what the hub has for a device cannot be written in MQTT: {reason:?}");
        }
        Fault::Registry(reason) => tracing::error!("the registry failed: {}", chain(reason)),
        Fault::Damaged(reason) => tracing::error!("{}", chain(reason)),
        Fault::LeftOut(reason) => {
            tracing::error!(name: AUDIT, "left out of lists: {}", chain(reason));
        }
        Fault::ChangesNotFollowed(reason) => {
            tracing::error!("cannot follow the registry's changes: {}", chain(reason));
        }
        Fault::JobsNotRun(reason) => {
            tracing::error!("jobs wait, since the registry failed: {}", chain(reason));
        }
        Fault::UsageNotStored(reason) => tracing::warn!(
            "cannot store or read how many bytes were moved today: {}; retrying",
            chain(reason)
        ),
        Fault::Audit(fault) => write_audit_fault(fault),
        Fault::ActivityNotStored {
            reason,
            is_retried: true,
        } => tracing::warn!(
            "cannot store when devices were connected: {}; retrying",
            chain(reason)
        ),
        Fault::ActivityNotStored {
            reason,
            is_retried: false,
        } => tracing::warn!(
            "cannot store when devices were connected: {}",
            chain(reason)
        ),
        Fault::WebhookNotTold {
            reason,
            is_given_up: false,
        } => tracing::warn!(
            "the webhook of approvals does not take a message, it is tried again: {}",
            chain(reason)
        ),
        Fault::WebhookNotTold {
            reason,
            is_given_up: true,
        } => tracing::warn!(
            "the webhook of approvals does not take a message, it is given up: {}",
            chain(reason)
        ),
        Fault::ApprovalsNotFollowed(reason) => {
            tracing::error!("cannot look for approvals: {}", chain(reason));
        }
        Fault::WritesNotStored => {
            tracing::warn!("what devices have written last is not stored: the disk is busy");
        }
    }
}

/// What is wrong with the audit log.
pub(super) fn write_audit_fault(fault: AuditFault<'_>) {
    match fault {
        AuditFault::NotWritten {
            reason,
            full: WhenFull::Stop,
        } => tracing::error!(
            "THE AUDIT LOG CANNOT BE WRITTEN, and new streams are refused until it can: {}",
            chain(reason)
        ),
        AuditFault::NotWritten {
            reason,
            full: WhenFull::Continue,
        } => tracing::error!(
            "THE AUDIT LOG CANNOT BE WRITTEN; streams are opened all the same, as configured: {}",
            chain(reason)
        ),
        AuditFault::Stalled { since, full } => {
            let seconds = since.as_secs();
            let streams = match full {
                WhenFull::Stop => "new streams are refused until it is",
                WhenFull::Continue => "streams are opened all the same, as configured",
            };
            tracing::error!(
                "THE AUDIT LOG IS NOT WRITTEN: its disk, or who reads standard output, has taken nothing for {seconds} s; {streams}"
            );
        }
        AuditFault::WrittenAgain { lost } => {
            tracing::warn!(lost, "the audit log is written again");
        }
        AuditFault::NotFinished => {
            tracing::error!("the last records of the audit log are not on the disk");
        }
        AuditFault::EndNotStored(reason) => tracing::error!(
            "how far the audit log goes cannot be stored, so that nobody could find its end cut off: {}",
            chain(reason)
        ),
        AuditFault::NotRotated(reason) => {
            tracing::error!(
                "a file of the audit log cannot be put aside or removed: {}",
                chain(reason)
            );
        }
        AuditFault::Missing { file, finding } => tracing::error!(
            "older files of the audit log {file} are missing, and none is removed behind them: {}",
            chain(finding)
        ),
        AuditFault::Broken {
            file,
            line,
            finding,
        } => tracing::error!(
            "the audit log is not as the hub has left it: {file}, line {line}: {}",
            chain(finding)
        ),
    }
}
