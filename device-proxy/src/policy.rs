//! What others may do on this device. It can change while the program runs: a request is judged by
//! the policy at its arrival, and what is open goes on.

use std::sync::Arc;

use common::descriptors;
use common::session_mode::SessionMode;
use tokio::sync::watch;

use crate::target::Targets;

/// What others may do on this device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// What streams can reach.
    pub targets: Targets,
    /// Whether sessions, plain streams or both are served.
    pub session: SessionMode,
    /// Streams at once, as far as there are descriptors for them.
    pub max_streams: usize,
}

impl Policy {
    /// Streams at once, a target and a leg each, for which there are descriptors. At least 1.
    pub fn streams(&self) -> usize {
        descriptors::room(self.max_streams, 2, 2)
    }
}

/// The policy in force. Its sender changes it; when that is gone, the last policy stays.
pub type PolicyWatch = watch::Receiver<Arc<Policy>>;
