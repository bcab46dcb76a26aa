//! From arguments, files and environment to a configuration without open options.
//! Precedence: option, then positional argument, then environment.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use common::connection_string::{ConnectionStringError, DeviceConnectionString, DeviceCredential};
use common::secret::Secret;
use common::streaming_hosts::{Patterns, StreamingHosts};
use common::text_input::{self, TextError};
use common::tls::{self, ClientIdentity, TlsConfigError};
use rustls::ClientConfig;

use crate::cli::Cli;
use crate::policy::Policy;
use crate::target::{Target, TargetError, Targets};
use crate::transport::Transport;
use common::session_mode::SessionMode;

/// What is wrong with how the program was called.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is no connection string anywhere.
    #[error(
        "give the device's connection string: --connection-string-file FILE, the environment variable IOTHUB_DEVICE_CONNECTION_STRING, or the first argument"
    )]
    NoConnectionString,
    /// The connection string's file cannot be read.
    #[error("cannot read the connection string from {}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: TextError,
    },
    /// The connection string is not a device's.
    #[error(transparent)]
    ConnectionString(#[from] ConnectionStringError),
    /// A target is wrong.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// There is nothing to reach.
    #[error("give a target: HOST PORT, --target [NAME=]HOST:PORT, or --echo")]
    NoTarget,
    /// A host without its port.
    #[error("the target {0:?} has no port; give HOST PORT")]
    NoPort(String),
    /// More arguments than there is meaning for.
    #[error(
        "the argument {0:?} is one too many: the connection string is given elsewhere, and HOST PORT follow it"
    )]
    TooMany(String),
    /// The connection string wants a certificate.
    #[error(
        "the connection string says x509=true; give the certificate with --cert FILE --key FILE"
    )]
    NoCertificate,
    /// A certificate is given that would not be used.
    #[error("--cert is given, but the connection string has a key; use one with x509=true")]
    UnusedCertificate,
    /// TLS files cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsConfigError),
}

/// Everything the program needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Who this device is, and where its hub.
    pub connection: DeviceConnectionString,
    /// The file that the connection string came from, to read it again.
    pub connection_file: Option<PathBuf>,
    /// What streams can reach.
    pub targets: Targets,
    /// How MQTT reaches the hub.
    pub transport: Transport,
    /// Whether streams may outlive the network connections that carry them.
    pub session: SessionMode,
    /// How long a session is kept while no stream carries it.
    pub session_grace: Duration,
    /// Bytes that all sessions may hold in memory.
    pub memory: u64,
    /// Port of MQTT over TLS.
    pub mqtts_port: u16,
    /// Trust, and the client certificate if there is one.
    pub tls: Arc<ClientConfig>,
    /// Where streams may lead instead of what the hub's name allows.
    pub streaming_hosts: Option<Patterns>,
    /// Streams at once.
    pub max_streams: usize,
    /// Print the official samples' lines.
    pub sample_output: bool,
}

impl Config {
    /// Resolves arguments and environment.
    ///
    /// # Errors
    /// [`ConfigError`]: one sentence on what to give.
    pub fn resolve(
        cli: Cli,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let environment = |name: &str| {
            let text = environment(name)?;
            text_input::variable(&text).map(|value| value.to_string())
        };
        let has_all = cli.positional.len() == 3;
        let mut arguments = cli.positional.into_iter().peekable();
        let from_option = match (&cli.connection_string, &cli.connection_string_file) {
            (Some(text), _) => Some(value(text)),
            (None, Some(path)) => Some(read(path)?),
            (None, None) => None,
        };
        let positional = arguments
            .next_if(looks_like_connection_string)
            .map(|text| value(&text));
        let from_environment = || {
            environment("IOTHUB_DEVICE_CONNECTION_STRING")
                .or_else(|| environment("IOTHUB_DEVICE_CONN_STRING"))
                .map(Secret::new)
        };
        let text = from_option
            .or(positional)
            .or_else(from_environment)
            // Of three arguments the first is meant to be it, whatever it looks like.
            .or_else(|| arguments.next().filter(|_| has_all))
            .ok_or(ConfigError::NoConnectionString)?;
        let connection = DeviceConnectionString::parse(text.expose())?;

        let mut targets = Targets::parse(&cli.target, cli.echo)?;
        match (arguments.next(), arguments.next()) {
            (Some(host), Some(port)) => {
                targets.set_unnamed(Target::tcp(host.expose(), port.expose())?)?;
            }
            (Some(host), None) => return Err(ConfigError::NoPort(host.expose().to_owned())),
            (None, _) if targets.is_empty() => {
                if let Some(host) = environment("REMOTE_HOST_NAME") {
                    let port = environment("REMOTE_PORT")
                        .ok_or_else(|| ConfigError::NoPort(host.clone()))?;
                    targets.set_unnamed(Target::tcp(&host, &port)?)?;
                }
            }
            (None, _) => {}
        }
        if let Some(extra) = arguments.next() {
            return Err(ConfigError::TooMany(extra.expose().to_owned()));
        }
        if targets.is_empty() {
            return Err(ConfigError::NoTarget);
        }

        let is_x509 = connection.credential == DeviceCredential::X509;
        let identity = match (cli.cert, cli.key) {
            (Some(_), Some(_)) if !is_x509 => return Err(ConfigError::UnusedCertificate),
            (Some(certificate), Some(key)) => Some(ClientIdentity { certificate, key }),
            _ if is_x509 => return Err(ConfigError::NoCertificate),
            _ => None,
        };
        Ok(Self {
            tls: tls::client_config(cli.ca_file.as_deref(), identity.as_ref())?,
            connection,
            connection_file: cli.connection_string_file,
            targets,
            transport: cli.transport,
            // The samples' lines tell of plain streams.
            session: if cli.sample_output {
                SessionMode::Never
            } else {
                cli.session
            },
            // Far beyond the life of a process is as good as for ever.
            memory: common::session::memory::limit(cli.memory),
            session_grace: Duration::from_secs(cli.session_grace.min(100 * 365 * 24 * 3600)),
            mqtts_port: cli.mqtts_port,
            streaming_hosts: cli.streaming_hosts,
            max_streams: usize::try_from(cli.max_streams).unwrap_or(usize::MAX),
            sample_output: cli.sample_output,
        })
    }

    /// What others may do on this device.
    pub fn policy(&self) -> Policy {
        Policy {
            targets: self.targets.clone(),
            session: self.session,
            max_streams: self.max_streams,
        }
    }

    /// Which hosts the hub may name as streaming endpoints.
    pub fn endpoint_rule(&self) -> StreamingHosts {
        let connection = &self.connection;
        let hubs = [&connection.host, connection.connect_host()];
        StreamingHosts::new(hubs, self.streaming_hosts.as_ref())
    }

    /// Reads the connection string's file again: its key may have been rotated. What
    /// cannot be used is logged, and the old one stays.
    pub fn reload(&mut self) {
        let Some(path) = &self.connection_file else {
            return;
        };
        let fresh = read(path).and_then(|text| Ok(DeviceConnectionString::parse(text.expose())?));
        match fresh {
            Ok(fresh) if fresh != self.connection => {
                tracing::info!(device = %fresh.identity, "read a changed connection string from {}", path.display());
                self.connection = fresh;
            }
            Ok(_) => {}
            Err(error) => tracing::warn!("{}", common::report::chain(&error)),
        }
    }
}

fn looks_like_connection_string(argument: &Secret) -> bool {
    argument.expose().to_ascii_lowercase().contains("hostname=")
}

fn value(text: &Secret) -> Secret {
    Secret::new(text_input::value(text.expose()).as_str())
}

fn read(path: &Path) -> Result<Secret, ConfigError> {
    let text = text_input::read(path).map_err(|source| ConfigError::File {
        path: path.to_owned(),
        source,
    })?;
    Ok(Secret::new(text_input::value(&text).as_str()))
}

#[cfg(test)]
pub(crate) mod tests {
    use clap::Parser as _;

    use super::*;

    const CS: &str = "HostName=h;DeviceId=argument;SharedAccessKey=AAEC";
    const ENV_CS: &str = "HostName=h;DeviceId=environment;SharedAccessKey=AAEC";

    fn resolve(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        // A root that any machine can read, so that none needs roots of its own.
        let ca = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(ca.path(), include_str!("../testdata/ca.pem")).unwrap();
        let ca_file = ca.path().to_str().unwrap();
        let line = [&["device-proxy", "--ca-file", ca_file], arguments].concat();
        let lookup = |name: &str| {
            let found = environment.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Config::resolve(Cli::try_parse_from(line).unwrap(), lookup)
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
            ConfigError::File { .. }
        ));
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
}
