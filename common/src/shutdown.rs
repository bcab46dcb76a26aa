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

/// Runs a command that has nothing to close: the first signal drops it.
///
/// # Errors
/// [`Interrupted`] after the signal.
pub async fn until_signal<F: Future>(command: F) -> Result<F::Output, Interrupted> {
    let running = with_signals(|stop| async move {
        tokio::select! {
            biased;
            () = stop.cancelled() => Err(Interrupted),
            output = command => Ok(output),
        }
    });
    running.await?
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
pub use unix::{Hangups, has_terminal, output_gone};

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

    /// Whether this process has a controlling terminal, and that is not closed yet. May block for a
    /// moment.
    pub fn has_terminal() -> bool {
        std::fs::File::open("/dev/tty").is_ok()
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

#[cfg(windows)]
use windows::Signals;
#[cfg(windows)]
pub use windows::{Hangups, ask_to_reload, ask_to_stop, has_terminal, output_gone};

#[cfg(windows)]
mod windows {
    use std::future::pending;

    use tokio::signal::windows::{
        CtrlBreak, CtrlC, CtrlClose, CtrlShutdown, ctrl_break, ctrl_c, ctrl_close, ctrl_shutdown,
    };
    use tokio::sync::Notify;

    use crate::optional::or_never;

    /// What the service manager asks for, which knows no signals. Asking once is enough, also
    /// before somebody waits.
    static STOP: Notify = Notify::const_new();
    static RELOAD: Notify = Notify::const_new();

    /// Has the same effect as Ctrl-C.
    pub fn ask_to_stop() {
        STOP.notify_one();
    }

    /// Has the same effect as SIGHUP elsewhere: the configuration is read again.
    pub fn ask_to_reload() {
        RELOAD.notify_one();
    }

    /// What stops a program: Ctrl-C, Ctrl-Break, a console window that is closed, the end of the
    /// system, and the service manager. At the last but one Windows waits some seconds for the
    /// process to end (`HandlerRoutine` in Microsoft's documentation of consoles). The end of a
    /// user's session is not among them, since services hear of the end of every session.
    pub(super) struct Signals {
        interrupt: Option<CtrlC>,
        break_: Option<CtrlBreak>,
        close: Option<CtrlClose>,
        shutdown: Option<CtrlShutdown>,
    }

    impl Signals {
        pub(super) fn new() -> Self {
            Self {
                interrupt: ctrl_c().ok(),
                break_: ctrl_break().ok(),
                close: ctrl_close().ok(),
                shutdown: ctrl_shutdown().ok(),
            }
        }

        pub(super) async fn next(&mut self) {
            tokio::select! {
                _ = or_never(self.interrupt.as_mut().map(CtrlC::recv)) => {}
                _ = or_never(self.break_.as_mut().map(CtrlBreak::recv)) => {}
                _ = or_never(self.close.as_mut().map(CtrlClose::recv)) => {}
                _ = or_never(self.shutdown.as_mut().map(CtrlShutdown::recv)) => {}
                () = STOP.notified() => {}
            }
        }
    }

    /// SIGHUP, which does not exist here: what the service manager asks for in its place.
    #[derive(Default)]
    pub struct Hangups(());

    impl Hangups {
        /// Those that come.
        pub fn new() -> Self {
            Self(())
        }

        /// Waits for the next one. The future may be dropped; none is lost.
        pub async fn next(&mut self) {
            RELOAD.notified().await;
        }
    }

    /// There is no SIGHUP that would have to be told apart.
    pub fn has_terminal() -> bool {
        false
    }

    /// Waits forever: here only a failed write shows this. The future may be dropped.
    pub async fn output_gone() {
        pending().await
    }
}
