//! Command lines as people type them.

use super::*;
use clap::CommandFactory as _;
use clap::error::ErrorKind;

fn parse(line: &str) -> Result<Cli, ErrorKind> {
    Cli::try_parse_from(format!("stream-hub {line}").split_whitespace())
        .map_err(|error| error.kind())
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn options_stand_before_or_after() {
    for line in [
        "device create MyDevice --data-dir ./x --log-level debug",
        "--data-dir ./x --log-level DEBUG device create MyDevice",
        "device --data-dir=./x create --log-level=debug MyDevice",
    ] {
        let cli = parse(line).unwrap();
        assert_eq!(cli.data_dir, Some(PathBuf::from("./x")), "{line}");
        assert_eq!(cli.log_level, Some(LevelFilter::DEBUG));
    }
    for line in [
        "device list --json",
        "device show d --json",
        "device connection-string d --secondary",
        "device enable d",
        "device disable d",
        "device delete d",
        "module create d m --json",
        "module list d --json",
        "module show d m",
        "module connection-string d m",
        "module delete d m",
        "policy list --json",
        "policy connection-string service",
        "endpoints",
        "endpoints --data-dir ./x",
    ] {
        assert!(parse(line).is_ok(), "{line}");
    }
}

#[test]
fn wrong_usage() {
    for (line, kind) in [
        ("device create a/b", ErrorKind::ValueValidation),
        ("device create", ErrorKind::MissingRequiredArgument),
        (
            "device create d --x509-thumbprint 12",
            ErrorKind::ValueValidation,
        ),
        (
            "device create d --primary-key a --primary-key-file b",
            ErrorKind::ArgumentConflict,
        ),
        ("device list --log-level loud", ErrorKind::ValueValidation),
        ("nothing", ErrorKind::InvalidSubcommand),
    ] {
        assert_eq!(parse(line).unwrap_err(), kind, "{line}");
    }
}

#[test]
fn keys_are_not_shown() {
    let cli = parse("device create d --primary-key TOPSECRET").unwrap();
    assert!(!format!("{cli:?}").contains("TOPSECRET"));
}
