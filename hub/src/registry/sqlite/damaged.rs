//! Rows that cannot be read: lists go on without them, and the log names each of them once.

use std::collections::HashSet;
use std::sync::Mutex;

use common::locks::lock;

use super::Result;
use crate::events::{Event, Events, Fault};
use crate::registry::{Owner, RegistryError};

/// Damaged rows that are remembered as reported. More in one database are no accident of
/// single rows, and a log that repeats some of them is then the smaller evil.
const REMEMBERED: usize = 1_000;

/// The rows that were reported as damaged.
#[derive(Default)]
pub(super) struct Damaged {
    reported: Mutex<HashSet<(Owner, &'static str)>>,
    events: Events,
}

impl Damaged {
    /// Reports to these sinks.
    pub(super) fn reporting_to(events: &Events) -> Self {
        Self {
            events: events.clone(),
            ..Self::default()
        }
    }

    /// What can be read of a list.
    pub(super) fn leave_out<T>(
        &self,
        rows: impl Iterator<Item = rusqlite::Result<Result<T>>>,
    ) -> Result<Vec<T>> {
        let mut readable = Vec::new();
        for row in rows {
            match row? {
                Ok(value) => readable.push(value),
                Err(RegistryError::Damaged { owner, what }) => self.report(owner, what),
                Err(error) => return Err(error),
            }
        }
        Ok(readable)
    }

    /// Reports a row, once.
    pub(super) fn report(&self, owner: Owner, what: &'static str) {
        {
            let mut reported = lock(&self.reported);
            if reported.len() >= REMEMBERED {
                reported.clear();
            }
            if !reported.insert((owner.clone(), what)) {
                return;
            }
        }
        let error = RegistryError::Damaged { owner, what };
        self.events.emit(Event::Fault(Fault::LeftOut(&error)));
    }
}
