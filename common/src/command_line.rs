//! The command line of every program: an empty variable is no variable, and no usage error repeats
//! a secret that stands in the wrong place, or what would change how its lines read.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{Arg, Command, Parser};

use crate::outside;

/// Reads this process's arguments and variables; ends the process on a mistake, or after a help
/// text.
pub fn parse<C: Parser>() -> C {
    let is_empty = |name: &std::ffi::OsStr| {
        std::env::var_os(name).is_some_and(|value| value.to_string_lossy().trim().is_empty())
    };
    match try_parse(std::env::args_os(), is_empty) {
        Ok(cli) => cli,
        Err(error) => exit(&error, has_line_ends(&C::command())),
    }
}

/// Whether a value of an argument or variable has several lines.
fn has_line_ends(command: &Command) -> bool {
    let variables = command.get_arguments().filter_map(Arg::get_env);
    let mut values = std::env::args_os().chain(variables.filter_map(std::env::var_os));
    values.any(|value| value.to_string_lossy().contains('\n'))
        || command.get_subcommands().any(has_line_ends)
}

/// Reads these arguments; `is_empty` tells of a variable that is set to nothing.
///
/// # Errors
/// clap's.
pub fn try_parse<C: Parser>(
    arguments: impl IntoIterator<Item = OsString>,
    is_empty: impl Fn(&std::ffi::OsStr) -> bool,
) -> Result<C, clap::Error> {
    let mut command = without_empty_variables(C::command(), &is_empty);
    let mut matches = command.try_get_matches_from_mut(arguments)?;
    C::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

/// clap takes a variable that is set to nothing for an empty value.
fn without_empty_variables(
    command: Command,
    is_empty: &dyn Fn(&std::ffi::OsStr) -> bool,
) -> Command {
    command
        .mut_args(|argument| match argument.get_env() {
            Some(name) if is_empty(name) => argument.env(None::<&str>),
            _ => argument,
        })
        .mut_subcommands(|command| without_empty_variables(command, is_empty))
}

/// Prints as clap does, but for what looks like a secret, or would change how a line reads.
fn exit(error: &clap::Error, has_line_ends: bool) -> ! {
    let text = error.to_string();
    let is_help = matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    );
    let plain = plain(&text, has_line_ends);
    if is_help || plain == text {
        error.exit();
    }
    eprint!("{plain}");
    std::process::exit(error.exit_code())
}

/// A usage error for a person. One that repeats a value of several lines becomes one line: which
/// of its line ends are clap's is not known here.
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

    #[derive(Debug, Parser)]
    struct Cli {
        #[arg(long, env = "COMMAND_LINE_TEST_PATH", default_value = "default")]
        path: String,
    }

    #[test]
    fn an_empty_variable_is_none() {
        // PATH stands for a variable that is set.
        #[derive(Debug, Parser)]
        struct WithPath {
            #[arg(long, env = "PATH", default_value = "default")]
            path: String,
        }
        let arguments = || [OsString::from("program")];
        let cli: WithPath = try_parse(arguments(), |_| false).unwrap();
        assert_ne!(cli.path, "default");
        let cli: WithPath = try_parse(arguments(), |name| name == "PATH").unwrap();
        assert_eq!(cli.path, "default");
        let cli: Cli = try_parse(arguments(), |_| true).unwrap();
        assert_eq!(cli.path, "default");
    }

    #[test]
    fn a_usage_error_reads_as_it_is_meant() {
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
