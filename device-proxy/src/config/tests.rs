//! The layers, and mistakes in them; the environment is a table, so that tests run in parallel.

use std::ffi::OsString;
use std::time::Duration;

use clap::Parser as _;
use common::session_mode::SessionMode;

use super::*;
use crate::cli::Cli;

const CS: &str = "HostName=h;DeviceId=argument;SharedAccessKey=AAEC";
const ENV_CS: &str = "HostName=h;DeviceId=environment;SharedAccessKey=AAEC";

fn resolve(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    // A root that any machine can read, so that none needs roots of its own.
    let ca = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ca.path(), include_str!("../../testdata/ca.pem")).unwrap();
    let ca_file = ca.path().to_str().unwrap();
    let line = [&["device-proxy", "--ca-file", ca_file], arguments].concat();
    let lookup = |name: &str| {
        let found = environment.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| OsString::from(value))
    };
    let options = Cli::try_parse_from(line).unwrap().options;
    let sources = sources(&options, &lookup)?;
    Config::resolve(options, &sources)
}

/// A configuration for other rooms' tests.
pub(crate) fn config(arguments: &[&str]) -> Config {
    resolve(arguments, &[("IOTHUB_DEVICE_CONNECTION_STRING", CS)]).unwrap()
}

fn device(config: &Config) -> &str {
    config.connection.identity.device.as_str()
}

fn target(config: &Config, name: &str) -> Option<String> {
    config.targets.select(name).map(ToString::to_string)
}

#[test]
fn the_samples_arguments() {
    let config = resolve(&[CS, "localhost", "22"], &[]).unwrap();
    assert_eq!(device(&config), "argument");
    assert_eq!(target(&config, "TestStream").unwrap(), "localhost:22");
}

#[test]
fn the_samples_environment() {
    let environment = [
        ("IOTHUB_DEVICE_CONN_STRING", ENV_CS),
        ("REMOTE_HOST_NAME", "box"),
        ("REMOTE_PORT", "3389"),
    ];
    let config = resolve(&[], &environment).unwrap();
    assert_eq!(device(&config), "environment");
    assert_eq!(target(&config, "x").unwrap(), "box:3389");
}

#[test]
fn precedence() {
    let environment = [
        ("IOTHUB_DEVICE_CONNECTION_STRING", ENV_CS),
        ("REMOTE_HOST_NAME", "box"),
        ("REMOTE_PORT", "3389"),
    ];
    let config = resolve(&[CS, "localhost", "22"], &environment).unwrap();
    assert_eq!(
        (device(&config), target(&config, "x").unwrap().as_str()),
        ("argument", "localhost:22")
    );
    let option = "HostName=h;DeviceId=option;SharedAccessKey=AAEC";
    let config = resolve(
        &["--connection-string", option, CS, "localhost", "22"],
        &environment,
    )
    .unwrap();
    assert_eq!(device(&config), "option");
    let config = resolve(&["localhost", "22"], &environment).unwrap();
    assert_eq!(
        (device(&config), target(&config, "x").unwrap().as_str()),
        ("environment", "localhost:22")
    );
    let config = resolve(&["--target", "ssh=a:1"], &environment).unwrap();
    assert_eq!(
        target(&config, "x"),
        None,
        "options leave no room for the environment's target"
    );
}

#[test]
fn mistakes_get_one_sentence() {
    let error = |arguments: &[&str]| resolve(arguments, &[]).unwrap_err();
    assert!(matches!(error(&[]), ConfigError::NoConnectionString));
    assert!(matches!(
        error(&["garbage", "localhost", "22"]),
        ConfigError::ConnectionString(_)
    ));
    assert!(matches!(
        error(&["localhost", "22"]),
        ConfigError::NoConnectionString
    ));
    assert!(matches!(error(&[CS]), ConfigError::NoTarget));
    assert!(matches!(error(&[CS, "localhost"]), ConfigError::NoPort(_)));
    assert!(matches!(
        error(&[CS, "localhost", "x"]),
        ConfigError::Target(_)
    ));
    let service = "HostName=h;SharedAccessKeyName=service;SharedAccessKey=AAEC";
    assert!(
        error(&[service, "h", "1"])
            .to_string()
            .contains("service's connection string")
    );
    let x509 = "HostName=h;DeviceId=d;x509=true";
    assert!(matches!(
        error(&[x509, "h", "1"]),
        ConfigError::NoCertificate
    ));
    assert!(matches!(
        error(&[CS, "h", "1", "--cert", "a", "--key", "b"]),
        ConfigError::UnusedCertificate
    ));
    assert!(matches!(
        error(&["--connection-string-file", "/no/such", "h", "1"]),
        ConfigError::Setting(SettingError::SecretFile { .. })
    ));
}

#[test]
fn a_certificate_and_its_key_belong_together() {
    for option in ["--cert", "--key"] {
        let error = resolve(&[CS, "h", "1", option, "f.pem"], &[]).unwrap_err();
        assert!(matches!(error, ConfigError::HalfCertificate(_)), "{error}");
        assert!(error.to_string().contains(option), "{error}");
    }
}

/// A configuration file with this text, and its path.
fn file(text: &str) -> (tempfile::NamedTempFile, String) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    (file, path)
}

#[test]
fn a_file_stands_below_the_environment() {
    let (_file, path) = file(
        r#"
        connection-string = "HostName=h;DeviceId=file;SharedAccessKey=AAEC"
        target = ["ssh=localhost:22", "10.0.0.5:3389"]
        echo = true
        session = "never"
        session-grace = 60
        max-streams = 3
        memory = 5
        transport = "mqtt"
        mqtts-port = 8884
        streaming-hosts = "a.example"
        [limits]
        sessions = 9
        detached-bytes = 1048576
        "#,
    );
    let with = [("DEVICE_PROXY_CONFIG", path.as_str())];
    for config in [
        resolve(&["--config", &path], &[]).unwrap(),
        resolve(&[], &with).unwrap(),
    ] {
        assert_eq!(device(&config), "file");
        assert_eq!(target(&config, "ssh").unwrap(), "localhost:22");
        assert_eq!(target(&config, "x").unwrap(), "10.0.0.5:3389");
        assert!(target(&config, "echo").is_some());
        assert_eq!(config.session.mode, SessionMode::Never);
        assert_eq!(config.session.grace, Duration::from_secs(60));
        assert_eq!((config.max_streams, config.session.memory), (3, 5 << 20));
        assert_eq!(config.transport, Transport::Mqtt);
        assert_eq!(config.mqtts_port, 8884);
        assert_eq!(config.limits.sessions, 9);
        assert_eq!(config.limits.connections, Limits::default().connections);
        assert_eq!(config.limits.detached_bytes, 1 << 20);
        assert!(config.streaming_hosts.is_some());
    }
    let variables = [
        ("DEVICE_PROXY_CONFIG", path.as_str()),
        ("IOTHUB_DEVICE_CONNECTION_STRING", ENV_CS),
        ("DEVICE_PROXY_SESSION", "always"),
        ("REMOTE_HOST_NAME", "box"),
        ("REMOTE_PORT", "1"),
    ];
    let config = resolve(&[], &variables).unwrap();
    assert_eq!(device(&config), "environment");
    assert_eq!(config.session.mode, SessionMode::Always);
    assert_eq!(target(&config, "ssh").unwrap(), "box:1");
    let options = [
        "--session",
        "auto",
        "--target",
        "ssh=c:3",
        "--max-streams",
        "4",
    ];
    let config = resolve(&options, &variables).unwrap();
    assert_eq!(config.session.mode, SessionMode::Auto);
    assert_eq!(target(&config, "ssh").unwrap(), "c:3");
    assert_eq!(config.max_streams, 4);
    let config = resolve(&["localhost", "22"], &variables).unwrap();
    assert_eq!(target(&config, "ssh").unwrap(), "localhost:22");
    // The echo target of a command line joins the targets of a file.
    let config = resolve(&["--echo"], &with).unwrap();
    assert_eq!(target(&config, "ssh").unwrap(), "localhost:22");
}

#[test]
fn a_mistake_in_a_file_or_variable_is_named_by_its_place() {
    let error = |text: &str, variables: &[(&str, &str)]| {
        let (_file, path) = file(text);
        let error = resolve(&["--config", &path, "--echo", CS], variables).unwrap_err();
        common::report::chain(&error).replace(&path, "f.toml")
    };
    for (text, said) in [
        (
            "\nmax-streams = 0",
            "f.toml, line 2: max-streams: give a whole number from 1",
        ),
        (
            "session = 'sometimes'",
            "f.toml, line 1: session: give one of auto, always, never",
        ),
        (
            "target = ['ssh=a:1',\n 'b']",
            "f.toml, line 2: target: \"b\" is not",
        ),
        (
            "max-streems = 1",
            "f.toml, line 1: max-streems is no setting",
        ),
        ("[limits]\nx = 1", "f.toml, line 2: limits.x is no setting"),
        (
            "allow-cloud = ['127.0.0.1:*',\n '10.0.0.0/8']",
            "f.toml, line 2: allow-cloud: \"10.0.0.0/8\" is not HOST:PORT",
        ),
        (
            "streaming-hosts = 'a b'",
            "f.toml, line 1: streaming-hosts: ",
        ),
    ] {
        let error = error(text, &[]);
        assert!(error.starts_with(said), "{error}");
    }
    let error = error("", &[("DEVICE_PROXY_MEMORY", "0")]);
    assert!(
        error.starts_with("the environment variable DEVICE_PROXY_MEMORY: "),
        "{error}"
    );
    let wrong = [("IOTHUB_DEVICE_CONNECTION_STRING", "HostName=h")];
    let error = common::report::chain(&resolve(&["--echo"], &wrong).unwrap_err());
    assert!(
        error.starts_with(
            "the environment variable IOTHUB_DEVICE_CONNECTION_STRING cannot be used: "
        ),
        "{error}"
    );
}

#[test]
fn what_the_cloud_may_open_is_nothing_or_the_list_of_the_highest_layer() {
    let (_file, path) = file("allow-cloud = ['10.0.0.0/8:22', '[::1]:*']");
    let allowed = |arguments: &[&str], variable: &str| {
        let arguments = [&["--echo", CS], arguments].concat();
        let config = resolve(&arguments, &[("DEVICE_PROXY_ALLOW_CLOUD", variable)]);
        config.map(|config| config.allowed.to_string())
    };
    let with = ["--config", &path];
    let options = [&with[..], &["--allow-cloud", "a:1", "--allow-cloud", "b:2"]].concat();
    assert_eq!(allowed(&[], "").unwrap(), "none");
    assert_eq!(allowed(&with, "").unwrap(), "10.0.0.0/8:22, [::1]:*");
    assert_eq!(allowed(&with, "c:3, d:4").unwrap(), "c:3, d:4");
    assert_eq!(allowed(&options, "c:3").unwrap(), "a:1, b:2");
    for (error, said) in [
        (
            allowed(&["--allow-cloud", "a"], ""),
            "--allow-cloud: \"a\" is not",
        ),
        (
            allowed(&[], "a:1,b"),
            "the environment variable DEVICE_PROXY_ALLOW_CLOUD: \"b\" is not",
        ),
    ] {
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with(said), "{error}");
    }
}

#[test]
fn a_changed_file_is_read_again() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{CS}\n")).unwrap();
    let path = file.path().to_str().unwrap();
    let mut config = resolve(&["--connection-string-file", path, "h", "1"], &[]).unwrap();
    std::fs::write(file.path(), ENV_CS).unwrap();
    config.reload();
    assert_eq!(device(&config), "environment");
    std::fs::write(file.path(), "garbage").unwrap();
    config.reload();
    assert_eq!(device(&config), "environment");
}

/// The commented example in `examples/` is a file of ours, also with all that it leaves out.
#[test]
fn the_example_can_be_used() {
    let text = include_str!("../../../examples/device-proxy.toml");
    let (_file, path) = file(text);
    let config = resolve(&["--config", &path, CS], &[]).unwrap();
    assert_eq!(target(&config, "ssh").unwrap(), "localhost:22");
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
    let tables = &[keys::TARGETS];
    common::settings::File::parse(path, &whole.join("\n"), keys::IN_FILE, tables).unwrap();
    let mut table = String::new();
    let mut names = Vec::new();
    for line in whole {
        if let Some(name) = line.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
            table = format!("{name}.");
        } else if let Some((name, _)) = line.split_once(" = ") {
            names.push(format!("{table}{name}"));
        }
    }
    let of_target = keys::OF_TARGET
        .iter()
        .map(|key| format!("targets.rdp.{}", key.name));
    let of_all = keys::IN_FILE.iter().map(|key| key.name.to_owned());
    for name in of_all.chain(of_target) {
        let count = names.iter().filter(|it| **it == name).count();
        assert_eq!(count, 1, "{name}");
    }
}

#[test]
fn rules_are_of_all_targets_and_of_single_ones() {
    let rules = |text: &str| {
        let (_file, path) = file(text);
        resolve(&["--config", &path, CS], &[]).map(|config| config.rules)
    };
    let all = rules(
        r#"
target = ["ssh=localhost:22", "a.b=localhost:1", "localhost:80"]
[limits]
new-per-second = 20
[access]
hours = ["Mon-Fri 08:00-18:00", "Sat 09:00-12:00 UTC"]
at-end-of-hours = "close"
approve-command = ["ask", "--all"]
[targets.ssh]
connections = 2
bytes-per-second = 1000
approve-command = "ask"
approve-seconds = 5
approve-for = 60
[targets."a.b"]
hours = "22:00-06:00"
[targets."*"]
"#,
    )
    .unwrap();
    assert_eq!(all.all.new_per_second.unwrap().get(), 20);
    assert_eq!(all.at_end, crate::policy::AtEnd::Close);
    let approval = all.all.approval.unwrap();
    assert_eq!(approval.command, ["ask", "--all"]);
    assert_eq!(approval.limit, crate::limits::APPROVAL);
    let ssh = &all.named["ssh"];
    assert_eq!(ssh.connections, Some(2));
    assert_eq!(ssh.bytes_per_second.unwrap().get(), 1000);
    let approval = ssh.approval.as_ref().unwrap();
    assert_eq!(
        (approval.limit.as_secs(), approval.holds.as_secs()),
        (5, 60)
    );
    assert_eq!(all.named["a.b"].hours.to_string(), "22:00-06:00");
    let names: Vec<_> = all.named.keys().collect();
    assert_eq!(names, ["*", "a.b", "ssh"]);

    let target = "target = \"ssh=localhost:22\"\n";
    for (bad, place) in [
        (
            "[targets.rdp]\nconnections = 1",
            "there is no target \"rdp\"",
        ),
        (
            "[targets.ssh]\nconnections = 0",
            "line 3: targets.ssh.connections: give a whole number",
        ),
        (
            "[targets.ssh]\nhours = \"08-18\"",
            "line 3: targets.ssh.hours: \"08-18\" is not [DAYS]",
        ),
        (
            "[targets.ssh]\nconnection = 1",
            "line 3: targets.ssh.connection is no setting",
        ),
        (
            "[access]\nat-end-of-hours = \"cut\"",
            "give one of stay, close",
        ),
        (
            "[access]\napprove-command = [\"\"]",
            "give the program and its arguments",
        ),
        (
            "[access]\napprove-seconds = 51",
            "give a whole number from 0 to 50",
        ),
        ("[targets]\nssh = 1", "is no setting"),
    ] {
        let error = rules(&format!("{target}{bad}")).unwrap_err();
        let error = common::report::chain(&error);
        assert!(error.contains(place), "{bad}: {error}");
    }
    // The cloud may add it.
    let cloud = "allow-cloud = \"10.0.0.0/8:*\"\n";
    let rules = rules(&format!("{target}{cloud}[targets.rdp]\nconnections = 1")).unwrap();
    assert!(rules.named.contains_key("rdp"));
}

#[test]
fn targets_are_at_addresses_of_the_list() {
    let list = [
        "--allow-addresses",
        "10.0.0.0/8",
        "--allow-addresses",
        "::1",
    ];
    let resolve = |target: &str| {
        let line = [&list[..], &["--target", target, CS]].concat();
        resolve(&line, &[]).map(|config| config.addresses.to_string())
    };
    for good in ["ssh=10.1.2.3:22", "ssh=[::1]:22", "ssh=desk.lan:22"] {
        assert_eq!(resolve(good).unwrap(), "10.0.0.0/8, ::1");
    }
    let error = resolve("ssh=127.0.0.1:22").unwrap_err().to_string();
    assert_eq!(
        error,
        "the target 127.0.0.1:22 is not at an address of allow-addresses"
    );
}
