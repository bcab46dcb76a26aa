//! The matrix of precedence; the environment is a table, so that tests run in parallel.

use std::collections::HashMap;
use std::io::Write as _;

use clap::Parser as _;

use super::*;

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn cs(host: &str) -> String {
    format!("HostName={host};SharedAccessKeyName=service;SharedAccessKey={KEY}")
}

fn resolved(words: &[&str], variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let table: HashMap<&str, &str> = variables.iter().copied().collect();
    let cli = Cli::try_parse_from([&["service-proxy"], words].concat()).unwrap();
    resolve(cli, &|name| table.get(name).map(OsString::from))
}

fn listen(words: &[&str], variables: &[(&str, &str)]) -> ListenConfig {
    match resolved(words, variables).unwrap() {
        Config::Listen(config) => config,
        other => panic!("{other:?}"),
    }
}

fn facts(words: &[&str], variables: &[(&str, &str)]) -> (String, String, u16) {
    let config = listen(words, variables);
    (
        config.hub.service.host.to_string(),
        config.identity.to_string(),
        config.forwards[0].port,
    )
}

fn expected(host: &str, device: &str, port: u16) -> (String, String, u16) {
    (host.to_owned(), device.to_owned(), port)
}

#[test]
fn positional_arguments_alone() {
    let config = listen(&[&cs("h"), "MyDevice", "2222"], &[]);
    assert_eq!(config.forwards[0].name.as_str(), "TestStream");
    assert_eq!(config.identity.to_string(), "MyDevice");
    assert_eq!(config.forwards[0].port, 2222);
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
    assert_eq!(config.identity.to_string(), "D/m");
    let name = |words: &[&str]| match resolved(words, &variables).unwrap() {
        Config::Connect(config) => config.name.to_string(),
        Config::Echo(config) => config.name.to_string(),
        Config::Listen(_) => panic!(),
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
        log_level(&cli.options, &|_| Some(value.into()))
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
            Config::Listen(config) => config.hub.streaming_hosts,
            other => panic!("{other:?}"),
        })
    };
    let patterns = |text: &str| Some(text.parse::<Patterns>().unwrap());
    assert_eq!(hosts(&[], "").unwrap(), None);
    assert_eq!(hosts(&[], "*.a.net").unwrap(), patterns("*.a.net"));
    let option = ["--streaming-hosts", "b.net"];
    assert_eq!(hosts(&option, "*.a.net").unwrap(), patterns("b.net"));
    assert!(matches!(
        hosts(&[], "a b"),
        Err(ConfigError::StreamingHosts(_))
    ));
}
