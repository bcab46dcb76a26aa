//! Where events go: to the log, and to what else this hub has been given.

use std::sync::Arc;
use std::time::Duration;

use super::audit::{Audit, AuditStopped};
use super::{AuditFault, Counts, Event, Fault, log};

/// How long the hub's end waits for the audit log.
const FINISH: Duration = Duration::from_secs(5);

/// The sinks of one hub; several hubs may run in one process. Cheap to clone.
///
/// A sink never waits: what it has to write goes through a bounded queue to a task or thread of its
/// own.
#[derive(Clone, Default)]
pub struct Events(Arc<Sinks>);

/// What learns of events besides the log, each if it is wanted.
#[derive(Default)]
struct Sinks {
    counts: Counts,
    audit: Option<Audit>,
}

impl Events {
    /// Gives events to the log, and to these.
    pub fn new(audit: Option<Audit>, counts: Counts) -> Self {
        Self(Arc::new(Sinks { counts, audit }))
    }

    /// Gives an event to all sinks.
    pub fn emit(&self, event: Event<'_>) {
        let Sinks { counts, audit } = &*self.0;
        counts.count(&event);
        if let Some(audit) = audit {
            audit.take(&event);
        }
        #[cfg(feature = "otel")]
        super::spans::write(&event);
        log::write(event);
    }

    /// What was counted.
    pub fn counts(&self) -> &Counts {
        &self.0.counts
    }

    /// The audit log, if there is one.
    pub fn audit(&self) -> Option<&Audit> {
        self.0.audit.as_ref()
    }

    /// Whether streams may be opened: not while an audit log that is to have them cannot be
    /// written.
    ///
    /// # Errors
    /// [`AuditStopped`].
    pub fn allow_streams(&self) -> Result<(), AuditStopped> {
        self.audit().map_or(Ok(()), Audit::allows_streams)
    }

    /// Has on the disk what sinks have queued, as far as that takes a few seconds. May be dropped.
    pub async fn finish(&self) {
        if let Some(audit) = self.audit()
            && !audit.finish(FINISH).await
        {
            self.emit(Event::Fault(Fault::Audit(AuditFault::NotFinished)));
        }
    }
}
