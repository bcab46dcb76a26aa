//! An end that breaks nothing off. A package that was upgraded cannot have a proxy started again at
//! once: its connections would end, among them the one in which the upgrade runs. So it sends
//! SIGUSR1, after which the program ends as soon as nothing has been open for a while; the service
//! manager then starts the new version.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::service_manager;

/// How long nothing has to be open: work that consists of many connections, one after the other, goes
/// on undisturbed, and what the last one has sent arrives.
pub const QUIET: Duration = Duration::from_secs(10);

/// Waits for SIGUSR1, and from then on until nothing has been open for [`QUIET`]. `changes` changes
/// whenever `open`, the number of open connections, may have changed. Call it at the start: from its
/// first poll on the signal no longer kills the process. Elsewhere than on Unix it waits forever. The
/// future may be dropped.
pub async fn wait<T>(changes: watch::Receiver<T>, open: impl Fn() -> usize) {
    requested().await;
    let now = open();
    tracing::info!(
        open = now,
        "SIGUSR1: this program ends when nothing has been open for {} s",
        QUIET.as_secs()
    );
    service_manager::status("Ends, to be started anew, when its last connection has ended");
    quiet(changes, open).await;
    tracing::info!("nothing is open any more: ending, as SIGUSR1 asked for");
}

async fn quiet<T>(mut changes: watch::Receiver<T>, open: impl Fn() -> usize) {
    loop {
        changes.mark_unchanged();
        let is_quiet = open() == 0;
        tokio::select! {
            changed = changes.changed() => if changed.is_err() {
                // Nothing can be opened any more.
                return;
            },
            () = sleep(QUIET), if is_quiet => return,
        }
    }
}

#[cfg(unix)]
async fn requested() {
    use tokio::signal::unix::{SignalKind, signal};

    match signal(SignalKind::user_defined1()) {
        Ok(mut signals) => {
            signals.recv().await;
        }
        Err(_) => std::future::pending().await,
    }
}

#[cfg(not(unix))]
async fn requested() {
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_quiet_when_nothing_was_open_for_so_long() {
        let (open, changes) = watch::channel(1_usize);
        let began = Instant::now();
        let counted = changes.clone();
        let (opens, ()) = tokio::join!(
            async {
                quiet(changes, || *counted.borrow()).await;
                began.elapsed()
            },
            async {
                // One that stays long, and one that follows it soon.
                sleep(Duration::from_secs(3600)).await;
                open.send_replace(0);
                sleep(QUIET - Duration::from_secs(1)).await;
                open.send_replace(1);
                sleep(Duration::from_secs(60)).await;
                open.send_replace(0);
            }
        );
        let expected = Duration::from_secs(3600 + 60) + QUIET - Duration::from_secs(1) + QUIET;
        assert_eq!(opens, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_waited_for_when_nothing_can_be_opened() {
        let (open, changes) = watch::channel(());
        drop(open);
        quiet(changes, || 1).await;
    }
}
