//! Waiting for a condition, with a deadline and a useful message.

use std::time::Duration;

/// What may take longest in a story that goes well, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for a future.
///
/// # Panics
/// When it takes too long; `what` says what was awaited.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited too long for: {what}"),
    }
}

/// Looks again and again until a condition holds.
///
/// # Panics
/// When it takes too long; `what` says what was awaited.
pub async fn wait(what: &str, mut condition: impl FnMut() -> bool) {
    soon(what, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}
