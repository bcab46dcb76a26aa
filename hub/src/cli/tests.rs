//! Command lines as people type them.

use common::hub_address::HubAddress;

use super::*;
use clap::CommandFactory as _;
use clap::error::ErrorKind;

fn parse(line: &str) -> Result<Cli, ErrorKind> {
    Cli::try_parse_from(format!("stream-hub {line}").split_whitespace())
        .map_err(|error| error.kind())
}

fn serve(line: &str) -> ServeArgs {
    match parse(&format!("serve {line}")).unwrap().command {
        Command::Serve(args) => args,
        Command::Admin(_) => panic!("not serve"),
    }
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

fn advertised(args: ServeArgs, port: u16) -> String {
    let last = HubAddress::parse("localhost").unwrap();
    args.into_config(PathBuf::from("d"))
        .advertised(&last, port)
        .to_string()
}

#[test]
fn serve_as_the_readme_says() {
    let args = serve(
        "--data-dir ./d --hostname localhost:8443 --https 127.0.0.1:8443 --mqtts 127.0.0.1:8883",
    );
    assert_eq!(args.https.to_string(), "127.0.0.1:8443");
    assert_eq!(advertised(args.clone(), 8443), "localhost:8443");
    let args = serve("");
    assert_eq!(args.https, Listen::everywhere(443));
    assert_eq!(args.mqtts, ListenOrOff(Some(Listen::everywhere(8883))));
    assert_eq!(advertised(args.clone(), 443), "localhost");
    assert_eq!(serve("--mqtts off").mqtts, ListenOrOff(None));
    let args = serve("--hostname localhost --https 127.0.0.1:8443");
    assert_eq!(advertised(args.clone(), 8443), "localhost:8443");
    let args = serve("--hostname hub.example.net:443 --https 8443");
    assert_eq!(advertised(args.clone(), 8443), "hub.example.net");
    for bad in ["--tls-cert c", "--tls-key k"] {
        let kind = parse(&format!("serve {bad}")).unwrap_err();
        assert_eq!(kind, ErrorKind::MissingRequiredArgument);
    }
    serve("--tls-cert c --tls-key k");
}

#[test]
fn options_stand_before_or_after() {
    for line in [
        "device create MyDevice --data-dir ./x --log-level debug",
        "--data-dir ./x --log-level DEBUG device create MyDevice",
        "device --data-dir=./x create --log-level=debug MyDevice",
    ] {
        let cli = parse(line).unwrap();
        assert_eq!(cli.data_dir, PathBuf::from("./x"), "{line}");
        assert_eq!(cli.log_level, LevelFilter::DEBUG);
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
        ("device list --log-level loud", ErrorKind::InvalidValue),
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
