//! How a program tells a person that it could not do its job.

use std::error::Error;
use std::fmt::Write as _;
use std::iter;
use std::process::ExitCode;

use crate::{output, outside, telemetry};

/// Exit code of wrong usage, as the command line parser's own.
pub const USAGE: u8 = 2;

/// One line from an error and its causes: `what: why: why`. None of our errors repeats its cause in
/// its own text.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    for cause in iter::successors(error.source(), |cause| (*cause).source()) {
        let _ = write!(text, ": {cause}");
    }
    text
}

/// Prints the error on stderr and gives the exit code of a failure.
pub fn failure(error: &dyn Error) -> ExitCode {
    print(error);
    ExitCode::FAILURE
}

/// Prints the error on stderr and gives the exit code of wrong usage.
pub fn usage(error: &dyn Error) -> ExitCode {
    print(error);
    ExitCode::from(USAGE)
}

/// Prints on stdout that a configuration which was only to be checked is valid, and gives the exit
/// code of success.
pub fn valid() -> ExitCode {
    output::stdout().line("the configuration is valid");
    output::finish();
    ExitCode::SUCCESS
}

/// Nothing from outside may change how the line reads, or be a secret in it.
fn print(error: &dyn Error) {
    let text = chain(error);
    let text = outside::printable(&text);
    // What was counted belongs before the last word.
    telemetry::flush();
    output::stderr().line(&format!("error: {}", outside::masked(&text)));
    output::finish();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn causes_follow_what_they_caused() {
        let error = Outer(std::io::Error::other("inner"));
        assert_eq!(chain(&error), "outer: inner");
        assert_eq!(chain(&std::io::Error::other("outer")), "outer");
    }
}
