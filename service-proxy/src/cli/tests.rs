//! Command lines as people type them.

use clap::CommandFactory as _;
use clap::error::ErrorKind;

use super::*;

fn parse(words: &[&str]) -> Result<Cli, ErrorKind> {
    Cli::try_parse_from([&["service-proxy"], words].concat()).map_err(|error| error.kind())
}

const CS: &str = "HostName=h;SharedAccessKeyName=service;SharedAccessKey=AAAA";

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn the_samples_own_arguments() {
    let cli = parse(&[CS, "MyDevice", "2222", "--ca-file", "ca.pem"]).unwrap();
    assert_eq!(cli.first.unwrap().expose(), CS);
    assert_eq!(cli.second.as_deref(), Some("MyDevice"));
    assert_eq!(cli.third.as_deref(), Some("2222"));
    assert!(cli.command.is_none());
}

#[test]
fn a_connection_string_may_stand_before_a_command() {
    let cli = parse(&[CS, "echo", "MyDevice", "--count", "1"]).unwrap();
    assert!(cli.first.is_some());
    assert!(matches!(cli.command, Some(Command::Echo { .. })));
}

#[test]
fn two_dashes_protect_devices_with_a_commands_name() {
    for name in ["echo", "listen", "connect"] {
        let cli = parse(&["--", name, "2222"]).unwrap();
        assert!(cli.command.is_none());
        assert_eq!(cli.first.unwrap().expose(), name);
        let cli = parse(&[CS, "--", name, "2222"]).unwrap();
        assert!(cli.command.is_none());
        assert_eq!(cli.second.as_deref(), Some(name));
        let cli = parse(&["echo", name]).unwrap();
        assert!(
            matches!(cli.command, Some(Command::Echo { device, .. }) if device.as_str() == name)
        );
    }
    assert!(parse(&["help", "2222"]).unwrap().command.is_none());
}

#[test]
fn options_stand_before_or_after_a_command() {
    for words in [
        ["--module", "m", "listen", "d", "0"],
        ["listen", "d", "0", "--module", "m"],
        ["listen", "--module", "m", "d", "0"],
    ] {
        let cli = parse(&words).unwrap();
        assert_eq!(cli.options.module.unwrap().as_str(), "m");
    }
}

#[test]
fn wrong_words_are_refused() {
    for words in [
        &["listen", "d"][..],
        &["listen"],
        &["connect"],
        &["connect", "d", "a", "b"],
        &["connect", "d", "a/b"],
        &["connect", "a b"],
        &["listen", "d", "99999"],
        &["echo", "d", "--size", "0"],
        &["echo", "d", "--size", "65537"],
        &["echo", "d", "--text", ""],
        &["echo", "d", "--bytes", "0"],
        &["echo", "d", "--bytes", "1G", "--count", "2"],
        &["d", "1", "--connect-timeout", "61"],
        &["d", "1", "--connect-timeout", "-1"],
        &["d", "1", "--connect-timeout", "inf"],
        &["d", "1", "--connect-timeout", "1e1"],
        &["d", "1", "--max-connections", "0"],
        &["d", "1", "--log-level", "loud"],
        &["a", "b", "c", "d"],
    ] {
        assert!(parse(words).is_err(), "{words:?}");
    }
}

#[test]
fn debug_hides_the_connection_string() {
    let shown = format!("{:?}", parse(&[CS, "d", "1"]).unwrap());
    assert!(!shown.contains("AAAA"), "{shown}");
}
