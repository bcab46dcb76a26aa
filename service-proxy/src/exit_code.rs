//! The exit code of a program that was run, as ours.

use std::process::ExitStatus;

/// The exit code; of a program that a signal has ended, the one that shells give it.
pub fn of(status: ExitStatus) -> u8 {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return u8::try_from(128 + signal).unwrap_or(1);
    }
    let code = status.code().map(|code| u8::try_from(code).unwrap_or(1));
    code.unwrap_or(1)
}
