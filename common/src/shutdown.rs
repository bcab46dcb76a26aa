//! Signals that stop a program: the first one cancels a token, the second one ends the program at
//! once. Also other signs that a program should stop.

use std::process::ExitCode;

use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// A second signal was received: the program must end at once, without waiting for anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interrupted;

impl From<Interrupted> for ExitCode {
    /// The exit code of a program that SIGINT has ended.
    fn from(_: Interrupted) -> Self {
        Self::from(128 + 2)
    }
}

/// Runs a program with a token that the first SIGINT, SIGTERM or Ctrl-C cancels. The second one
/// drops the program. A signal that was ignored at the start stays ignored, as `nohup` and shells
/// expect it of background programs. Call it once in a process. Dropping the future drops the
/// program.
///
/// # Errors
/// [`Interrupted`] after the second signal.
pub async fn with_signals<F: Future>(
    program: impl FnOnce(CancellationToken) -> F,
) -> Result<F::Output, Interrupted> {
    let stop = CancellationToken::new();
    // In a task of its own: polling its handle costs almost nothing while the program runs.
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
pub use unix::{Hangups, output_gone};

#[cfg(unix)]
mod unix {
    use std::future::pending;
    use std::io;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;
    use tokio::signal::unix::{Signal, SignalKind, signal};

    use crate::optional::or_never;

    /// The signals that stop a program, except those that were ignored at its start.
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

    /// Handles a signal, unless it was ignored at the start.
    fn unless_ignored(kind: SignalKind) -> Option<Signal> {
        if is_ignored(kind) {
            return None;
        }
        signal(kind).ok()
    }

    async fn received(signal: &mut Option<Signal>) {
        or_never(signal.as_mut().map(Signal::recv)).await;
    }

    /// Whether the signal is ignored now. The system call for this is unsafe, so Linux's status
    /// file is read; elsewhere no signal counts as ignored.
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

    /// SIGHUP: the controlling terminal was closed, or somebody asks for the configuration to be
    /// read again. From the first one of these on, the signal no longer ends the process.
    pub struct Hangups(Option<Signal>);

    impl Hangups {
        /// Those from now on; none if the signal was ignored at the start of the program.
        pub fn new() -> Self {
            Self(unless_ignored(SignalKind::hangup()))
        }

        /// Waits for the next one. The future may be dropped; none is lost.
        pub async fn next(&mut self) {
            received(&mut self.0).await;
        }
    }

    impl Default for Hangups {
        fn default() -> Self {
            Self::new()
        }
    }

    /// Waits until nothing can read standard output any more: its pipe has no reader, or its
    /// terminal is closed. Forever for a file, and if standard output is closed. The future may be
    /// dropped.
    pub async fn output_gone() {
        // Not a duplicate of the descriptor, which would keep a pipe open.
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

/// SIGHUP, which does not exist here.
#[cfg(not(unix))]
#[derive(Default)]
pub struct Hangups(());

#[cfg(not(unix))]
impl Hangups {
    /// None will come.
    pub fn new() -> Self {
        Self(())
    }

    /// Waits forever. The future may be dropped.
    pub async fn next(&mut self) {
        std::future::pending().await
    }
}

/// Waits forever: here only a failed write shows this. The future may be dropped.
#[cfg(not(unix))]
pub async fn output_gone() {
    std::future::pending().await
}
