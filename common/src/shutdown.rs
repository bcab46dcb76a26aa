//! Signals become one cancellation; the first asks, the second insists. And what else tells that
//! a program is no longer wanted.

use tokio_util::sync::CancellationToken;

use crate::telemetry;

/// Cancels `stop` at the first SIGINT, SIGTERM or Ctrl-C, and ends the process at
/// the second one. A signal that was ignored when the program started stays ignored, as `nohup`
/// and shells want it for what they start in the background. Runs until then; give it to a task
/// of its own, and no second one.
pub async fn on_signal(stop: CancellationToken) {
    let mut signals = Signals::new();
    signals.next().await;
    stop.cancel();
    signals.next().await;
    telemetry::flush();
    std::process::exit(130);
}

#[cfg(unix)]
use unix::Signals;
#[cfg(unix)]
pub use unix::{hangup, output_gone};

#[cfg(unix)]
mod unix {
    use std::future::pending;
    use std::io;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;
    use tokio::signal::unix::{Signal, SignalKind, signal};

    /// The signals that end a program, but for those that it was started to ignore.
    pub(super) struct Signals {
        interrupt: Option<Signal>,
        terminate: Option<Signal>,
    }

    impl Signals {
        pub(super) fn new() -> Self {
            Self {
                interrupt: unless_ignored(SignalKind::interrupt()),
                terminate: unless_ignored(SignalKind::terminate()),
            }
        }

        pub(super) async fn next(&mut self) {
            tokio::select! {
                () = received(&mut self.interrupt) => {}
                () = received(&mut self.terminate) => {}
            }
        }
    }

    /// Takes a signal over, unless the program was started to ignore it.
    fn unless_ignored(kind: SignalKind) -> Option<Signal> {
        if is_ignored(kind) {
            return None;
        }
        signal(kind).ok()
    }

    async fn received(signal: &mut Option<Signal>) {
        match signal {
            Some(signal) => {
                signal.recv().await;
            }
            None => pending().await,
        }
    }

    /// Whether the signal is ignored now. The system call that asks for it is an unsafe one;
    /// Linux tells it in a file, and elsewhere no signal counts as ignored.
    fn is_ignored(kind: SignalKind) -> bool {
        let Ok(status) = std::fs::read_to_string("/proc/self/status") else {
            return false;
        };
        let number = kind.as_raw_value() - 1;
        status
            .lines()
            .find_map(|line| line.strip_prefix("SigIgn:"))
            .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
            .is_some_and(|mask| mask & (1 << number) != 0)
    }

    /// Ends when whoever started us hangs up; never where there is no such signal, or where it
    /// was ignored at the start. Once it was polled, the signal no longer ends the process.
    pub async fn hangup() {
        received(&mut unless_ignored(SignalKind::hangup())).await;
    }

    /// Ends when nothing can read standard output any more: its pipe has no reader, or its
    /// terminal is gone. Never for a file, nor once standard output was closed. May be dropped.
    pub async fn output_gone() {
        // Not a copy of the descriptor, which would keep a pipe open.
        #[expect(
            deprecated,
            reason = "its successor is unsafe, for descriptors that may be closed meanwhile"
        )]
        let output = AsyncFd::with_interest(io::stdout(), Interest::WRITABLE);
        let Ok(output) = output else {
            return pending().await;
        };
        loop {
            let Ok(mut ready) = output.writable().await else {
                return pending().await;
            };
            let stdout = rustix::stdio::stdout();
            let mut polled = [PollFd::new(&stdout, PollFlags::empty())];
            let gone = PollFlags::ERR | PollFlags::HUP;
            if poll(&mut polled, Some(&Timespec::default())).is_ok()
                && polled.iter().any(|one| one.revents().intersects(gone))
            {
                return;
            }
            ready.clear_ready();
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> Self {
        Self
    }

    async fn next(&mut self) {
        let _ = tokio::signal::ctrl_c().await;
    }
}

/// Ends when whoever started us hangs up; never where there is no such signal.
#[cfg(not(unix))]
pub async fn hangup() {
    std::future::pending().await
}

/// Ends when nothing can read standard output any more; here only a write tells that.
#[cfg(not(unix))]
pub async fn output_gone() {
    std::future::pending().await
}
