//! The command line of every program. No usage error repeats a secret that was given in the wrong
//! place, or characters that change how a line reads.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use crate::outside;

/// Reads this process's arguments. Prints a usage error or a help text; the program must then exit.
///
/// # Errors
/// The exit code: [`crate::report::USAGE`] for a usage error, success for a help text.
pub fn parse<C: Parser>() -> Result<C, ExitCode> {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let has_line_ends = arguments
        .iter()
        .any(|argument| argument.to_string_lossy().contains('\n'));
    C::try_parse_from(arguments).map_err(|error| print(&error, has_line_ends))
}

/// Prints as clap does, but without text that looks like a secret or changes how a line reads.
fn print(error: &clap::Error, has_line_ends: bool) -> ExitCode {
    let text = error.to_string();
    let is_help = matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    );
    let plain = plain(&text, has_line_ends);
    if is_help || plain == text {
        // A closed output does not change the exit code.
        let _ = error.print();
    } else {
        eprint!("{plain}");
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(crate::report::USAGE))
}

/// The printable text of a usage error. If an argument has several lines, the error becomes one
/// line, since clap's own line ends cannot be distinguished.
fn plain(text: &str, has_line_ends: bool) -> String {
    let plain = outside::printable_lines(text);
    let masked = outside::masked(&plain);
    if has_line_ends {
        let words: Vec<&str> = masked.split_whitespace().collect();
        words.join(" ") + "\n"
    } else {
        masked.into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usage_error_has_no_unprintable_text() {
        let text =
            "error: invalid value 'a\u{1b}[2J\u{202e}b' for '<ID>'\n\nFor more, try '--help'.\n";
        let shown = plain(text, false);
        assert_eq!(
            shown,
            "error: invalid value 'a[2Jb' for '<ID>'\n\nFor more, try '--help'.\n"
        );
        let text = "error: invalid value 'a\nforged: b' for '<ID>'\n\nFor more, try '--help'.\n";
        let shown = plain(text, true);
        assert_eq!(
            shown,
            "error: invalid value 'a forged: b' for '<ID>' For more, try '--help'.\n"
        );
    }
}
