//! The clock of the drivers.

use std::time::Instant;

/// Now, by tokio's clock, which tests can pause.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
