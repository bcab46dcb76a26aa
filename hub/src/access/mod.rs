//! The access file: who may open streams to which devices and targets, and when. It governs people
//! that have logged in by name, and the shared access policies that it names, in rules or as governed;
//! whatever it does not allow is refused to these. Read when the hub starts and when it changes; asked at every stream
//! initiation. No I/O but to read the file.

mod error;
mod file;
mod hours;
mod pattern;
mod rules;

use std::sync::{Arc, Mutex};

use common::locks::lock;

pub use self::error::{AccessError, RuleFault};
pub use self::rules::{Approval, Decision, NoAccess, Rules, Wanted, Who, target_of};

/// The access file in force; none: nobody is governed, and nobody can log in. It can change while the
/// hub runs; clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct AccessInForce(Arc<Mutex<Option<Arc<Rules>>>>);

impl AccessInForce {
    /// What it says now.
    pub fn now(&self) -> Option<Arc<Rules>> {
        lock(&self.0).clone()
    }

    /// From now on these rules hold.
    pub fn set(&self, rules: Option<Arc<Rules>>) {
        *lock(&self.0) = rules;
    }
}

#[cfg(test)]
mod tests;
