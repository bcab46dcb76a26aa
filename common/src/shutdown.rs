//! Signals become one cancellation; the first asks, the second insists.

use tokio_util::sync::CancellationToken;

/// Cancels `stop` at the first SIGINT, SIGTERM or Ctrl-C, and ends the process at
/// the second one. Runs until then; give it to a task of its own.
pub async fn on_signal(stop: CancellationToken) {
    signal().await;
    stop.cancel();
    signal().await;
    std::process::exit(130);
}

#[cfg(unix)]
async fn signal() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
        }
        Err(_) => {
            let _ = tokio::signal::ctrl_c().await;
        }
    }
}

#[cfg(not(unix))]
async fn signal() {
    let _ = tokio::signal::ctrl_c().await;
}

/// Ends when whoever started us hangs up; never where there is no such signal. Once it was
/// polled, the signal no longer ends the process.
#[cfg(unix)]
pub async fn hangup() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::hangup()) {
        Ok(mut hangup) => {
            hangup.recv().await;
        }
        Err(_) => std::future::pending().await,
    }
}

/// Ends when whoever started us hangs up; never where there is no such signal.
#[cfg(not(unix))]
pub async fn hangup() {
    std::future::pending().await
}
