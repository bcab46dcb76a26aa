//! Signals become one cancellation; the first asks, the second insists. And what else tells that
//! a program is no longer wanted.

use std::process::ExitCode;

use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// A second signal came: the program is to end at once, without waiting for anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interrupted;

impl From<Interrupted> for ExitCode {
    /// That of a program which SIGINT has ended.
    fn from(_: Interrupted) -> Self {
        Self::from(128 + 2)
    }
}

/// Runs a program with a token that the first SIGINT, SIGTERM or Ctrl-C cancels. The second one
/// drops the program where it is. A signal that was ignored at the start stays ignored, as `nohup`
/// and shells want it for what they start in the background. Once in a process; dropped, it drops
/// the program.
///
/// # Errors
/// [`Interrupted`] after the second signal.
pub async fn with_signals<F: Future>(
    program: impl FnOnce(CancellationToken) -> F,
) -> Result<F::Output, Interrupted> {
    let stop = CancellationToken::new();
    // A task of its own: while the program runs, looking at its handle costs next to nothing.
    let mut insisted = AbortOnDropHandle::new(tokio::spawn(second_signal(stop.clone())));
    tokio::select! {
        biased;
        output = program(stop) => Ok(output),
        _ = &mut insisted => Err(Interrupted),
    }
}

async fn second_signal(stop: CancellationToken) {
    let mut signals = Signals::new();
    signals.next().await;
    stop.cancel();
    signals.next().await;
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

    use crate::optional::or_never;

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
        or_never(signal.as_mut().map(Signal::recv)).await;
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

    /// Ends when the terminal that started us hangs up; never without such a signal, or where it
    /// was ignored at the start. Once it was polled, the signal no longer ends the process.
    ///
    /// May be dropped.
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

/// Ends when the terminal that started us hangs up; never where there is no such signal.
#[cfg(not(unix))]
pub async fn hangup() {
    std::future::pending().await
}

/// Ends when nothing can read standard output any more; here only a write tells that.
#[cfg(not(unix))]
pub async fn output_gone() {
    std::future::pending().await
}
