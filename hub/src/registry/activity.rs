//! When an identity was last here.

use std::time::{SystemTime, UNIX_EPOCH};

use common::identity::DeviceIdentity;

/// What is known of an identity's hub sessions. Times are Unix microseconds; `None` means
/// that there was nothing yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Activity {
    /// Whether it holds a hub session.
    pub connected: bool,
    /// When `connected` last changed.
    pub connection_state_updated: Option<u64>,
    /// When it last connected, sent or received something.
    pub last_activity: Option<u64>,
}

/// The activity of one identity, to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActivityRecord {
    /// Whose it is.
    pub id: DeviceIdentity,
    /// Tells the identity from an earlier or later one of the same name.
    pub generation_id: String,
    /// What is known.
    pub activity: Activity,
}

/// The present time, Unix microseconds.
pub fn now() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
