//! The matrix of precedence; the environment is a table, so that tests run in parallel.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::Write as _;
use std::time::Duration;

use clap::Parser as _;
use common::session_mode::SessionMode;
use common::settings::Sources;
use tracing::level_filters::LevelFilter;

use super::*;
use crate::cli::Cli;
use crate::echo_plan::Payload;
use crate::forward::Local;

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

pub(super) fn cs(host: &str) -> String {
    format!("HostName={host};SharedAccessKeyName=service;SharedAccessKey={KEY}")
}

pub(super) fn resolved(words: &[&str], variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let table: HashMap<&str, &str> = variables.iter().copied().collect();
    let cli = Cli::try_parse_from([&["service-proxy"], words].concat()).unwrap();
    let environment = |name: &str| table.get(name).map(OsString::from);
    let sources = sources(&cli.options, &environment)?;
    resolve(cli, &sources)
}

/// Listening for one hub.
pub(super) struct Listen {
    pub(super) hub: HubConfig,
    pub(super) forwards: Vec<Forward>,
    pub(super) session: SessionConfig,
    pub(super) max_connections: usize,
}

impl From<ListenConfig> for Listen {
    fn from(mut config: ListenConfig) -> Self {
        let of = config.hubs.pop().unwrap();
        assert!(config.hubs.is_empty());
        Self {
            hub: of.hub,
            forwards: of.forwards,
            session: config.session,
            max_connections: config.max_connections,
        }
    }
}

pub(super) fn listen(words: &[&str], variables: &[(&str, &str)]) -> Listen {
    match resolved(words, variables).unwrap() {
        Config::Listen(config) => config.into(),
        other => panic!("{other:?}"),
    }
}

pub(super) fn port(forward: &Forward) -> u16 {
    match &forward.local {
        Local::Port(place) => place.port,
        other => panic!("{other:?}"),
    }
}

fn facts(words: &[&str], variables: &[(&str, &str)]) -> (String, String, u16) {
    let config = listen(words, variables);
    (
        config.hub.service.host.to_string(),
        config.forwards[0].identity.to_string(),
        port(&config.forwards[0]),
    )
}

fn expected(host: &str, device: &str, port: u16) -> (String, String, u16) {
    (host.to_owned(), device.to_owned(), port)
}

#[test]
fn positional_arguments_alone() {
    let config = listen(&[&cs("h"), "MyDevice", "2222"], &[]);
    assert_eq!(config.forwards[0].name.as_str(), "TestStream");
    assert_eq!(config.forwards[0].identity.to_string(), "MyDevice");
    assert_eq!(port(&config.forwards[0]), 2222);
}

#[test]
fn the_environment_alone_in_both_samples_words() {
    let node = [
        ("IOTHUB_CONNECTION_STRING", cs("h")),
        ("STREAMING_TARGET_DEVICE", "d".into()),
        ("PROXY_PORT", "1".into()),
    ];
    let csharp = [
        ("IOTHUB_CONNECTION_STRING", cs("h")),
        ("DEVICE_ID", "d".into()),
        ("LOCAL_PORT", "1".into()),
    ];
    for variables in [node, csharp] {
        let variables = variables.each_ref().map(|(n, v)| (*n, v.as_str()));
        assert_eq!(facts(&[], &variables), expected("h", "d", 1));
        // Positional arguments count more, each by itself.
        assert_eq!(facts(&["e"], &variables), expected("h", "e", 1));
        assert_eq!(facts(&["e", "2"], &variables), expected("h", "e", 2));
        assert_eq!(
            facts(&[&cs("p"), "e", "2"], &variables),
            expected("p", "e", 2)
        );
        assert_eq!(facts(&[&cs("p")], &variables), expected("p", "d", 1));
    }
}

#[test]
fn option_then_positional_then_environment() {
    let environment = cs("environment");
    let variables = [("IOTHUB_CONNECTION_STRING", environment.as_str())];
    let (option, positional) = (cs("option"), cs("positional"));
    let words = ["--connection-string", &option, &positional, "d", "1"];
    assert_eq!(facts(&words, &variables).0, "option");
    assert_eq!(facts(&words[2..], &variables).0, "positional");
    assert_eq!(facts(&words[3..], &variables).0, "environment");
    let short = ["--connection-string", &option, "d", "1"];
    assert_eq!(facts(&short, &variables), expected("option", "d", 1));
}

#[test]
fn a_file_counts_as_an_option() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "{}", cs("file")).unwrap();
    let path = file.path().to_str().unwrap();
    let environment = cs("environment");
    let variables = [("IOTHUB_CONNECTION_STRING", environment.as_str())];
    let words = ["d", "1", "--connection-string-file", path];
    assert_eq!(facts(&words, &variables), expected("file", "d", 1));
    let error = resolved(&["d", "1", "--connection-string-file", "/no/such"], &[]).unwrap_err();
    assert!(error.to_string().contains("/no/such"), "{error}");
}

#[test]
fn empty_variables_are_none() {
    let string = cs("h");
    let error = resolved(&["d", "1"], &[("IOTHUB_CONNECTION_STRING", "")]).unwrap_err();
    assert!(matches!(error, ConfigError::NoConnectionString), "{error}");
    let variables = [
        ("IOTHUB_CONNECTION_STRING", string.as_str()),
        ("STREAMING_TARGET_DEVICE", ""),
        ("DEVICE_ID", "d"),
        ("PROXY_PORT", ""),
        ("SERVICE_PROXY_CA_FILE", ""),
        ("SERVICE_PROXY_LOG", ""),
    ];
    let error = resolved(&[], &variables).unwrap_err();
    assert!(matches!(error, ConfigError::NoPort), "{error}");
    let config = listen(&["e", "1"], &variables);
    assert_eq!(config.hub.ca_file, None);
}

#[test]
fn what_is_missing_is_named() {
    use ConfigError as E;
    let string = cs("h");
    let variables = [("IOTHUB_CONNECTION_STRING", string.as_str())];
    assert!(matches!(resolved(&[], &[]), Err(E::NoConnectionString)));
    assert!(matches!(
        resolved(&["d", "1"], &[]),
        Err(E::NoConnectionString)
    ));
    assert!(matches!(resolved(&[&string], &[]), Err(E::NoDevice)));
    assert!(matches!(resolved(&[], &variables), Err(E::NoDevice)));
    assert!(matches!(resolved(&["d"], &variables), Err(E::NoPort)));
    assert!(matches!(resolved(&["d", "x"], &variables), Err(E::Port(_))));
    assert!(matches!(
        resolved(&["a b", "1"], &variables),
        Err(E::Device(_))
    ));
    assert!(matches!(
        resolved(&["d", "1", "2"], &variables),
        Err(E::TooMany)
    ));
    assert!(matches!(
        resolved(&["SharedAccessKey=AAAA;x", "d", "1"], &[]),
        Err(E::ConnectionString(_))
    ));
    let device = format!("HostName=h;DeviceId=d;SharedAccessKey={KEY}");
    let error = resolved(&[&device, "d", "1"], &[]).unwrap_err();
    assert!(
        error.to_string().contains("device's connection string"),
        "{error}"
    );
    assert!(!error.to_string().contains(KEY));
}

#[test]
fn before_a_command_only_the_connection_string() {
    let string = cs("h");
    let variables = [("IOTHUB_CONNECTION_STRING", string.as_str())];
    assert!(resolved(&[&cs("p"), "connect", "d"], &variables).is_ok());
    for words in [&["d", "connect", "e"][..], &[&cs("p"), "d", "echo", "e"]] {
        assert!(matches!(
            resolved(words, &variables),
            Err(ConfigError::BeforeCommand)
        ));
    }
    // The device variable is the positional form's, and no word before a command.
    let variables = [variables[0], ("DEVICE_ID", "d")];
    assert!(resolved(&["echo", "e"], &variables).is_ok());
}

#[test]
fn a_protected_device_name() {
    let string = cs("h");
    let variables = [("IOTHUB_CONNECTION_STRING", string.as_str())];
    assert_eq!(
        facts(&["--", "echo", "2222"], &variables),
        expected("h", "echo", 2222)
    );
}

#[test]
fn stream_names_and_modules() {
    let string = cs("h");
    let variables = [("IOTHUB_CONNECTION_STRING", string.as_str())];
    let config = listen(
        &[
            "listen", "D", "0", "0:ssh", "--module", "m", "--stream", "s",
        ],
        &variables,
    );
    let names: Vec<_> = config.forwards.iter().map(|f| f.name.as_str()).collect();
    assert_eq!(names, ["s", "ssh"]);
    assert_eq!(config.forwards[0].identity.to_string(), "D/m");
    let name = |words: &[&str]| match resolved(words, &variables).unwrap() {
        Config::Connect(config) => config.name.to_string(),
        Config::Echo(config) => config.name.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(name(&["connect", "D"]), "TestStream");
    assert_eq!(name(&["connect", "D", "ssh"]), "ssh");
    assert_eq!(name(&["echo", "D"]), "echo");
    assert_eq!(name(&["echo", "D", "--stream", "TestStream"]), "TestStream");
}

#[test]
fn the_log_level() {
    let level = |words: &[&str], value: &str| {
        let cli = Cli::try_parse_from([&["service-proxy"], words].concat()).unwrap();
        let environment = |name: &str| (name == "SERVICE_PROXY_LOG").then(|| value.into());
        log_level(&cli.options, &Sources::new(&environment))
    };
    assert_eq!(level(&[], "").unwrap(), LevelFilter::INFO);
    assert_eq!(level(&[], "debug").unwrap(), LevelFilter::DEBUG);
    assert_eq!(
        level(&["--log-level", "warn"], "debug").unwrap(),
        LevelFilter::WARN
    );
    assert!(level(&[], "loud").is_err());
}

#[test]
fn streaming_hosts_by_option_then_environment() {
    let environment = cs("h");
    let hosts = |words: &[&str], value: &str| {
        let variables = [
            ("IOTHUB_CONNECTION_STRING", environment.as_str()),
            ("SERVICE_PROXY_STREAMING_HOSTS", value),
        ];
        let words = [&["listen", "D", "1"], words].concat();
        resolved(&words, &variables).map(|config| match config {
            Config::Listen(config) => Listen::from(config).hub.streaming_hosts,
            other => panic!("{other:?}"),
        })
    };
    let patterns = |text: &str| Some(text.parse::<Patterns>().unwrap());
    assert_eq!(hosts(&[], "").unwrap(), None);
    assert_eq!(hosts(&[], "*.a.net").unwrap(), patterns("*.a.net"));
    let option = ["--streaming-hosts", "b.net"];
    assert_eq!(hosts(&option, "*.a.net").unwrap(), patterns("b.net"));
    let error = hosts(&[], "a b").unwrap_err().to_string();
    let said = "the environment variable SERVICE_PROXY_STREAMING_HOSTS: ";
    assert!(error.starts_with(said), "{error}");
}

#[test]
fn echo_plans() {
    let plan = |words: &[&str]| {
        let string = cs("h");
        let words = [&[&string, "echo", "d"], words].concat();
        match resolved(&words, &[]).unwrap() {
            Config::Echo(config) => config.plan,
            other => panic!("{other:?}"),
        }
    };
    let pings = |count, payload, interval| EchoPlan::Pings {
        count,
        payload,
        interval,
    };
    let second = Duration::from_secs(1);
    assert_eq!(plan(&[]), pings(Some(4), Payload::Pattern(64), second));
    assert_eq!(
        plan(&["--count", "0", "--size", "4K", "--interval", "0.2"]),
        pings(None, Payload::Pattern(4096), Duration::from_millis(200))
    );
    assert_eq!(
        plan(&["--text", "hello", "--count", "1"]),
        pings(Some(1), Payload::Text("hello".into()), second)
    );
    assert_eq!(
        plan(&["--bytes", "1G"]),
        EchoPlan::Throughput { total: 1 << 30 }
    );
}

#[test]
fn timeouts_are_sent_as_given() {
    let timeouts = listen(&[&cs("h"), "d", "1", "--connect-timeout", "0.5"], &[])
        .hub
        .timeouts;
    assert_eq!(timeouts.connect, Duration::from_millis(500));
    assert_eq!(timeouts.response, Duration::from_secs(30));
}

/// A configuration file with this text, and its path.
pub(super) fn file(text: &str) -> (tempfile::NamedTempFile, String) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    (file, path)
}

#[test]
fn a_file_stands_below_the_environment() {
    let (_string, string) = file(&cs("file"));
    let text = format!(
        r#"
        connection-string-file = '{string}'
        device = "d"
        forward = ["1:ssh", "127.0.0.1:2"]
        module = "m"
        stream = "s"
        connect-timeout = 0.5
        response-timeout = 7
        max-connections = 3
        session = "never"
        session-grace = 60
        memory = 5
        ca-file = "ca.pem"
        "#
    );
    let (_file, path) = file(&text);
    let with = [("SERVICE_PROXY_CONFIG", path.as_str())];
    for config in [listen(&["--config", &path], &[]), listen(&[], &with)] {
        assert_eq!(config.hub.service.host.to_string(), "file");
        assert_eq!(config.hub.connection_file, Some(PathBuf::from(&string)));
        assert_eq!(config.forwards[0].identity.to_string(), "d/m");
        let forwards = config.forwards.iter();
        let forwards: Vec<_> = forwards.map(|f| (port(f), f.name.as_str())).collect();
        assert_eq!(forwards, [(1, "ssh"), (2, "s")]);
        let timeouts = config.hub.timeouts;
        assert_eq!(timeouts.connect, Duration::from_millis(500));
        assert_eq!(timeouts.response, Duration::from_secs(7));
        assert_eq!(config.max_connections, 3);
        assert_eq!(config.session.mode, SessionMode::Never);
        assert_eq!(config.session.grace, Duration::from_secs(60));
        assert_eq!(config.session.memory, 5 << 20);
        assert_eq!(config.hub.ca_file, Some(PathBuf::from("ca.pem")));
    }
    let environment = cs("environment");
    let variables = [
        with[0],
        ("IOTHUB_CONNECTION_STRING", environment.as_str()),
        ("PROXY_PORT", "9"),
        ("SERVICE_PROXY_SESSION", "always"),
    ];
    assert_eq!(facts(&[], &variables), expected("environment", "d/m", 9));
    let config = listen(&["e", "--session", "auto", "--module", "n"], &variables);
    assert_eq!(config.session.mode, SessionMode::Auto);
    assert_eq!(config.forwards[0].identity.to_string(), "e/n");
    let config = listen(&["listen", "e", "8"], &variables);
    assert_eq!(port(&config.forwards[0]), 8);
    assert_eq!(config.session.mode, SessionMode::Always);
}

#[test]
fn a_mistake_in_a_file_or_variable_is_named_by_its_place() {
    let error = |text: &str| {
        let (_file, path) = file(text);
        let error = resolved(&["--config", &path, &cs("h"), "d"], &[]).unwrap_err();
        common::report::chain(&error).replace(&path, "f.toml")
    };
    for (text, said) in [
        (
            "\nmax-connections = 0",
            "f.toml, line 2: max-connections: give a whole number",
        ),
        (
            "session = 'sometimes'",
            "f.toml, line 1: session: give one of auto, always, never",
        ),
        (
            "forward = ['1',\n 'x']",
            "f.toml, line 2: forward: \"x\" is not a port",
        ),
        (
            "connect-timeout = 61",
            "f.toml, line 1: connect-timeout: give seconds from 0 to 60",
        ),
        ("target = ['x']", "f.toml, line 1: target is no setting"),
    ] {
        let error = error(text);
        assert!(error.starts_with(said), "{error}");
    }
    let device = format!("HostName=h;DeviceId=d;SharedAccessKey={KEY}");
    let variables = [("IOTHUB_CONNECTION_STRING", device.as_str())];
    let error = common::report::chain(&resolved(&["d", "1"], &variables).unwrap_err());
    let said = "the environment variable IOTHUB_CONNECTION_STRING cannot be used: ";
    assert!(error.starts_with(said) && !error.contains(KEY), "{error}");
    let (_file, path) = file("connection-string = 'x'\nconnection-string-file = 'f'");
    let error = resolved(&["--config", &path, "d", "1"], &[]).unwrap_err();
    assert!(error.to_string().contains("one of the two"), "{error}");
}

/// The commented example in `examples/` is a file of ours, also with all that it leaves out.
#[test]
fn the_example_can_be_used() {
    let text = include_str!("../../../examples/service-proxy.toml");
    let (_file, path) = file(text);
    let config = listen(&["--config", &path, &cs("h")], &[]);
    assert_eq!(config.forwards[1].name.as_str(), "rdp");
    // A setting that is not used stands behind a `#` alone, a comment behind a blank.
    let is_setting = |line: &str| line.starts_with(|c: char| c.is_ascii_lowercase());
    let whole: Vec<&str> = text
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if is_setting(rest) => rest,
            _ => line,
        })
        .collect();
    let path = std::path::Path::new("example.toml");
    common::settings::File::parse(path, &whole.join("\n"), &keys::in_file(), &[keys::HUBS])
        .unwrap();
    for key in keys::in_file() {
        let name = key.name.rsplit('.').next().unwrap();
        let count = whole.iter().filter(|line| {
            line.split_once(" = ")
                .is_some_and(|(before, _)| before == name)
        });
        assert_eq!(count.count(), 1, "{name}");
    }
}
