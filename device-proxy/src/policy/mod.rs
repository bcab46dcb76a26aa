//! What others may do on this device. It can change while the program runs, by the configuration
//! file and by the desired properties of the device's twin: a stream request is judged by the policy
//! at its arrival. What is open goes on, unless its target is withdrawn.

mod addresses;
mod allowed;
mod combine;
mod control;
mod hours;
mod rules;
mod wanted;

pub use addresses::{Addresses, NotANetwork};
pub use allowed::{Allowed, AllowedError};
pub use combine::{Local, combine, judge};
pub use control::Control;
pub use hours::{BadHours, Hours, Now};
pub use rules::{Approval, AtEnd, Rule, Rules};
pub use wanted::{Refused, Wanted, WantedTarget};

use std::fmt::Write as _;
use std::sync::Arc;

use common::descriptors;
use common::session_mode::SessionMode;
use tokio::sync::watch;

use crate::limits;
use crate::target::{Target, Targets};

/// What others may do on this device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// What streams can reach.
    pub targets: Targets,
    /// Which addresses they may have.
    pub addresses: Addresses,
    /// How much they may be used, and when.
    pub rules: Rules,
    /// The targets of the local configuration: it has rules for them.
    pub configured: Targets,
    /// Whether sessions, plain streams or both are served.
    pub session: SessionMode,
    /// Streams at once, as far as there are descriptors for them.
    pub max_streams: usize,
    /// Whether new streams are accepted at all.
    pub accept: bool,
}

impl Policy {
    /// One line for the log.
    pub fn summary(&self) -> String {
        let targets = self.targets.summary();
        let mut summary = format!(
            "{}; session mode {}; at most {} streams at once",
            if !self.accept {
                "no new stream is accepted".to_owned()
            } else if targets.is_empty() {
                "streams reach nothing".to_owned()
            } else {
                format!("streams reach {targets}")
            },
            self.session,
            self.max_streams
        );
        let names = self.rules.named.keys().map(String::as_str);
        let of_all = (self.rules.all != Rule::default()).then_some("all targets");
        let ruled: Vec<_> = of_all.into_iter().chain(names).collect();
        if !ruled.is_empty() {
            let _ = write!(summary, "; with rules for {}", ruled.join(", "));
        }
        if self.addresses.are_listed() {
            let _ = write!(summary, "; at addresses of {}", self.addresses);
        }
        summary
    }

    /// The rules for one target, if it has any, and their name.
    pub fn rule(&self, name: &str, target: &Target) -> Option<(&str, &Rule)> {
        self.rules.of(name, target, &self.configured)
    }

    /// Streams at once, a target and a leg each, for which there are descriptors. At least 1.
    pub fn streams(&self) -> usize {
        descriptors::room(self.max_streams, 2, 2)
    }
}

/// What an operator may tune of all sessions together; it holds from the start to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Sessions at once, detached ones included: where there are more, the newest detached one
    /// goes, and a session is refused when none is detached.
    pub sessions: usize,
    /// Connections at once in all of them, as far as there are descriptors and memory.
    pub connections: usize,
    /// Bytes that all detached sessions may hold: where they hold more, the newest go.
    pub detached_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sessions: limits::SESSIONS,
            connections: limits::DEVICE_CONNECTIONS,
            detached_bytes: limits::SESSION_DETACHED_BYTES,
        }
    }
}

/// The policy in force. Its sender changes it; when that is gone, the last policy stays.
pub type PolicyWatch = watch::Receiver<Arc<Policy>>;
