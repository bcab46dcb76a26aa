//! Waiting for a condition, with a deadline and a useful message.

use std::time::Duration;

/// Upper limit of every wait; a successful test stays below it on a busy machine too.
const TIME_LIMIT: Duration = Duration::from_secs(20);

/// Waits for a future.
///
/// # Panics
/// When it takes too long; `what` names what was awaited.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(TIME_LIMIT, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited too long for: {what}"),
    }
}

/// Polls until a condition holds.
///
/// # Panics
/// When it takes too long; `what` names what was awaited.
pub async fn wait(what: &str, mut condition: impl FnMut() -> bool) {
    soon(what, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}
