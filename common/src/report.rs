//! How a program reports to the user that it failed.

use std::error::Error;
use std::fmt::Write as _;
use std::iter;
use std::process::ExitCode;

use tracing::Level;

use crate::{output, outside, telemetry};

/// Exit code of invalid usage, the same as that of the command line parser.
pub const USAGE: u8 = 2;

/// One line from an error and its causes: `what: why: why`. Our errors do not repeat their cause in
/// their own text.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    for cause in iter::successors(error.source(), |cause| (*cause).source()) {
        let _ = write!(text, ": {cause}");
    }
    text
}

/// Prints the error on stderr and returns the exit code of a failure.
pub fn failure(error: &dyn Error) -> ExitCode {
    print(error);
    ExitCode::FAILURE
}

/// Prints the error on stderr and returns the exit code of invalid usage.
pub fn usage(error: &dyn Error) -> ExitCode {
    print(error);
    ExitCode::from(USAGE)
}

/// Prints on stdout that a checked configuration is valid, and returns the exit code of success.
pub fn valid() -> ExitCode {
    output::stdout().line("the configuration is valid");
    output::finish();
    ExitCode::SUCCESS
}

/// Prints the error on stderr, without unprintable characters and secrets.
fn print(error: &dyn Error) {
    let text = chain(error);
    let text = outside::printable(&text);
    // Reports of repeated log lines come before the error.
    telemetry::flush();
    let prefix = telemetry::prefix(Level::ERROR);
    output::stderr().line(&format!("{prefix}error: {}", outside::masked(&text)));
    output::finish();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn causes_follow_their_error() {
        let error = Outer(std::io::Error::other("inner"));
        assert_eq!(chain(&error), "outer: inner");
        assert_eq!(chain(&std::io::Error::other("outer")), "outer");
    }
}
