//! The layers, and mistakes in them; the environment is a table, so that tests run in parallel.

use std::ffi::OsString;

use clap::Parser as _;
use common::report;

use super::*;
use crate::cli::{AdminCommand, Cli, Command, DeviceCommand};
use crate::tls::acme::LETS_ENCRYPT;

fn resolve(line: &str, environment: &[(&str, &str)]) -> Result<ServeConfig, ConfigError> {
    let cli = Cli::try_parse_from(format!("stream-hub serve {line}").split_whitespace()).unwrap();
    let lookup = |name: &str| {
        let found = environment.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| OsString::from(value))
    };
    let sources = sources(&cli, &lookup)?;
    let folder = data_dir(&cli, &sources)?;
    match cli.command {
        Command::Serve(args) => serve(args, folder, &sources),
        Command::Admin(_) => panic!("not serve"),
    }
}

fn advertised(line: &str, port: u16) -> String {
    let last = HubAddress::parse("localhost").unwrap();
    let config = resolve(line, &[]).unwrap();
    config.advertised(&last, port).to_string()
}

#[test]
fn serve_as_the_readme_says() {
    let line =
        "--data-dir ./d --hostname localhost:8443 --https 127.0.0.1:8443 --mqtts 127.0.0.1:8883";
    let config = resolve(line, &[]).unwrap();
    assert_eq!(config.https.to_string(), "127.0.0.1:8443");
    assert_eq!(config.data_dir, PathBuf::from("./d"));
    let amqps = "127.0.0.1:5671".parse().unwrap();
    assert_eq!(config.amqps, AmqpsListen::IfFree(amqps));
    assert_eq!(advertised(line, 8443), "localhost:8443");
    let config = resolve("", &[]).unwrap();
    assert_eq!(config.https.to_string(), "[::]:443");
    assert_eq!(config.mqtts.unwrap().to_string(), "[::]:8883");
    assert_eq!(config.data_dir, PathBuf::from("./hub-data"));
    assert_eq!(config.certificate, CertificateSource::Managed);
    assert_eq!(advertised("", 443), "localhost");
    let config = resolve("--mqtts off", &[]).unwrap();
    assert_eq!((config.mqtts, config.amqps), (None, AmqpsListen::Off));
    let line = "--hostname localhost --https 127.0.0.1:8443";
    assert_eq!(advertised(line, 8443), "localhost:8443");
    let line = "--hostname hub.example.net:443 --https 8443";
    assert_eq!(advertised(line, 8443), "hub.example.net");
    for half in ["--tls-cert c", "--tls-key k"] {
        let error = resolve(half, &[]).unwrap_err();
        assert!(matches!(error, ConfigError::HalfCertificate(_)), "{error}");
    }
    let config = resolve("--tls-cert c --tls-key k", &[]).unwrap();
    assert!(matches!(config.check(), Err(ConfigError::Tls(_))));
}

#[test]
fn acme_is_of_lets_encrypt_unless_another_ca_is_named() {
    let acme = |line: &str| match resolve(line, &[]).unwrap().certificate {
        CertificateSource::Acme(settings) => settings,
        other => panic!("{other:?}"),
    };
    let settings = acme("--acme");
    assert_eq!(settings.directory, LETS_ENCRYPT);
    assert!(settings.contacts.is_empty() && settings.ca_file.is_none());
    let line = "--acme --acme-directory https://ca:9000/acme/directory --acme-ca-file c \
                --acme-contact a@example.com --acme-contact mailto:b@example.com";
    let settings = acme(line);
    assert_eq!(settings.directory, "https://ca:9000/acme/directory");
    assert_eq!(
        settings.contacts,
        ["mailto:a@example.com", "mailto:b@example.com"]
    );
    assert_eq!(settings.ca_file, Some("c".into()));
    let (_file, path) = file("acme = true\nacme-contact = 'a@example.com'");
    assert_eq!(acme(&format!("--config {path}")).contacts.len(), 1);
}

#[test]
fn mistakes_about_acme_are_named() {
    let error = |line: &str| {
        let config = resolve(line, &[]);
        report::chain(&config.and_then(|config| config.check()).unwrap_err())
    };
    let (_file, path) = file("acme = true");
    for (line, said) in [
        (
            "--acme --tls-cert c --tls-key k".to_owned(),
            "--acme and --tls-cert exclude each other",
        ),
        (
            format!("--config {path} --tls-cert c --tls-key k"),
            "--tls-cert is given beside --acme",
        ),
        (
            "--acme-contact a@b".to_owned(),
            "--acme-contact needs --acme",
        ),
        (
            "--acme-directory https://ca".to_owned(),
            "--acme-directory needs",
        ),
        ("--acme-ca-file c".to_owned(), "--acme-ca-file needs --acme"),
        (
            "--acme --data-dir /no/such".to_owned(),
            "localhost is each machine's own",
        ),
        ("--acme --hostname 192.0.2.7".to_owned(), "is an address"),
        ("--acme --hostname hub".to_owned(), "public DNS"),
        (
            "--acme --hostname hub.example.com --acme-ca-file /no/such".to_owned(),
            "/no/such",
        ),
    ] {
        assert!(error(&line).contains(said), "{line}: {}", error(&line));
    }
    let line = "stream-hub serve --acme --acme-directory http://ca/";
    let refused = Cli::try_parse_from(line.split(' ')).unwrap_err();
    assert!(refused.to_string().contains("https URL"), "{refused}");
    let config = resolve("--acme --hostname hub.example.com:8443", &[]).unwrap();
    config.check().unwrap();
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
        data-dir = "of-file"
        hostname = "file.example"
        https = "127.0.0.1:1"
        mqtts = 2
        amqps = "off"
        tls-cert = "c"
        tls-key = "k"
        "#,
    );
    let with = [("STREAM_HUB_CONFIG", path.as_str())];
    for config in [
        resolve(&format!("--config {path}"), &[]).unwrap(),
        resolve("", &with).unwrap(),
    ] {
        assert_eq!(config.data_dir, PathBuf::from("of-file"));
        assert_eq!(config.hostname.unwrap().name(), "file.example");
        assert_eq!(config.https.to_string(), "127.0.0.1:1");
        assert_eq!(config.mqtts.unwrap().port(), 2);
        assert_eq!(config.amqps, AmqpsListen::Off);
        assert!(matches!(
            config.certificate,
            CertificateSource::Files { .. }
        ));
    }
    let variables = [
        with[0],
        ("STREAM_HUB_DATA_DIR", "of-environment"),
        ("STREAM_HUB_HOSTNAME", "environment.example"),
    ];
    let config = resolve("--https 3", &variables).unwrap();
    assert_eq!(config.data_dir, PathBuf::from("of-environment"));
    assert_eq!(config.hostname.unwrap().name(), "environment.example");
    assert_eq!(config.https.port(), 3);
    let config = resolve("--data-dir of-option --hostname o", &variables).unwrap();
    assert_eq!(config.data_dir, PathBuf::from("of-option"));
    assert_eq!(config.hostname.unwrap().name(), "o");
}

#[test]
fn a_mistake_in_a_file_or_variable_is_named_by_its_place() {
    for (text, said) in [
        (
            "\nhttps = 'localhost:1'",
            "f.toml, line 2: https: give IP:PORT",
        ),
        ("mqtts = 'of'", "f.toml, line 1: mqtts: give IP:PORT"),
        ("hostname = 'a b'", "f.toml, line 1: hostname: "),
        ("http = 1", "f.toml, line 1: http is no setting"),
        (
            "primary-key = 'x'",
            "f.toml, line 1: primary-key is no setting",
        ),
    ] {
        let (_file, path) = file(text);
        let error = resolve(&format!("--config {path}"), &[]).unwrap_err();
        let error = report::chain(&error).replace(&path, "f.toml");
        assert!(error.starts_with(said), "{error}");
    }
    let error = resolve("", &[("STREAM_HUB_HOSTNAME", "a b")]).unwrap_err();
    let said = "the environment variable STREAM_HUB_HOSTNAME: ";
    assert!(error.to_string().starts_with(said), "{error}");
}

#[test]
fn the_key_of_the_environment_is_for_those_without_another_proof() {
    let key = |line: &str| {
        let line = format!("stream-hub device create d {line}");
        let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
        let environment = |name: &str| (name == "STREAM_HUB_PRIMARY_KEY").then(|| "e".into());
        let sources = sources(&cli, &environment).unwrap();
        let Command::Admin(command) = cli.command else {
            panic!("not an admin command")
        };
        match admin(command, &sources).unwrap() {
            AdminCommand::Device(DeviceCommand::Create(args)) => args.credential.primary_key,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(key("").unwrap().expose(), "e");
    assert_eq!(key("--primary-key o").unwrap().expose(), "o");
    assert_eq!(key("--primary-key-file f"), None);
    let thumbprint = "0".repeat(40);
    assert_eq!(key(&format!("--x509-thumbprint {thumbprint}")), None);
}

/// The commented example in `examples/` is a file of ours, also with all that it leaves out.
#[test]
fn the_example_can_be_used() {
    let text = include_str!("../../../examples/stream-hub.toml");
    let (_file, path) = file(text);
    let config = resolve(&format!("--config {path}"), &[]).unwrap();
    assert_eq!(config.hostname.unwrap().name(), "hub.example.com");
    // A setting that is not used stands behind a `#` alone, a comment behind a blank.
    let is_setting = |line: &str| line.starts_with(|c: char| c.is_ascii_lowercase() || c == '[');
    let whole: Vec<&str> = text
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if is_setting(rest) => rest,
            _ => line,
        })
        .collect();
    let path = std::path::Path::new("example.toml");
    common::settings::File::parse(
        path,
        &whole.join("\n"),
        &keys::in_file(),
        &super::limits::TABLES,
    )
    .unwrap();
    let mut table = String::new();
    let mut names = Vec::new();
    for line in &whole {
        if let Some(name) = line.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
            table = format!("{name}.");
        } else if let Some((name, _)) = line.split_once(" = ") {
            names.push(format!("{table}{name}"));
        }
    }
    for key in keys::in_file() {
        let count = names.iter().filter(|name| *name == key.name).count();
        assert_eq!(count, 1, "{}", key.name);
    }
}
