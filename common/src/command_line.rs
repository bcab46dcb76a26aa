//! The command line of every program: an empty variable is no variable, and no usage error repeats
//! a secret that stands in the wrong place.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{Command, Parser};

use crate::outside;

/// Reads this process's arguments and variables; ends the process on a mistake, or after a help
/// text.
pub fn parse<C: Parser>() -> C {
    let is_empty = |name: &std::ffi::OsStr| {
        std::env::var_os(name).is_some_and(|value| value.to_string_lossy().trim().is_empty())
    };
    match try_parse(std::env::args_os(), is_empty) {
        Ok(cli) => cli,
        Err(error) => exit(&error),
    }
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

/// Prints as clap does, but for what looks like a secret.
fn exit(error: &clap::Error) -> ! {
    let text = error.to_string();
    let plain = outside::masked(&text);
    let is_help = matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    );
    if is_help || plain == text {
        error.exit();
    }
    eprint!("{plain}");
    std::process::exit(error.exit_code())
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
}
