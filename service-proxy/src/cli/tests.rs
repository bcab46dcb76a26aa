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
    let command = Cli::command();
    let names: Vec<&str> = command
        .get_subcommands()
        .map(clap::Command::get_name)
        .collect();
    assert!(names.contains(&"connect") && names.contains(&"monitor"));
    for name in names {
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
        &["connect", "d", "--suffix", "a b"],
        &["socks", "x"],
        &["socks", "1080:ssh"],
        &["socks", "--port", "22"],
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
        &["devices", "--json", "--json-lines"],
        &["twin", "set", "d"],
        &["twin", "set", "d", "{"],
        &["twin", "get", "a b"],
        &["method", "d"],
        &["method", "d", "ping", "no JSON"],
        &["method", "d", "ping", "--timeout", "4"],
        &["method", "d", "ping", "--timeout", "301"],
        &["query"],
        &["job"],
        &["job", "twin", "{}"],
        &["job", "twin", "{}", "--where", " "],
        &["job", "twin", "{}", "--where", "*", "--at", "noon"],
        &["job", "twin", "{}", "--where", "*", "--id", "a/b"],
        &["job", "twin", "{}", "--where", "*", "--max-seconds", "0"],
        &["run", "--where", "*"],
        &["run", "--where", "*", "uptime"],
        &["run", "--", "uptime"],
        &["run", "--where", "*", "--parallel", "0", "--", "uptime"],
        &["run", "--where", "*", "--user", "-x", "--", "uptime"],
        &["inventory", "--list", "--host", "d"],
        &["inventory", "--group-by", "tags..site"],
        &["monitor", "a", "b"],
    ] {
        assert!(parse(words).is_err(), "{words:?}");
    }
}

#[test]
fn the_commands_for_fleets() {
    let cli = parse(&[CS, "run", "--where", "*", "--", "sh", "-c", "a b", "--json"]).unwrap();
    let Some(Command::Fleet(FleetCommand::Run(run))) = cli.command else {
        panic!("not run")
    };
    assert_eq!(run.command, ["sh", "-c", "a b", "--json"]);
    let cli = parse(&[
        "method",
        "d",
        "ping",
        "-",
        "--connect-timeout",
        "3",
        "--module",
        "m",
    ]);
    let cli = cli.unwrap();
    assert_eq!(cli.options.connect_timeout, Some(Duration::from_secs(3)));
    assert!(matches!(
        cli.command,
        Some(Command::Fleet(FleetCommand::Method { .. }))
    ));
    let words = [
        "job",
        "method",
        "reboot",
        "--where",
        "tags.a = 1",
        "--at",
        "+1m",
    ];
    let cli = parse(&words).unwrap();
    assert!(matches!(
        cli.command,
        Some(Command::Fleet(FleetCommand::Job(JobCommand::Method { .. })))
    ));
}

#[test]
fn debug_hides_the_connection_string() {
    let shown = format!("{:?}", parse(&[CS, "d", "1"]).unwrap());
    assert!(!shown.contains("AAAA"), "{shown}");
}
