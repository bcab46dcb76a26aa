//! The one phase in which every setting is decided. Option, then positional argument, then
//! environment, then configuration file, then default.

use std::path::PathBuf;

use common::connection_string::{DeviceConnectionString, DeviceCredential};
use common::hub_address::MQTTS_PORT;
use common::net::Dialer;
use common::net::proxy::{ProxyOptions, ProxySettings};
use common::places;
use common::secret::Secret;
use common::settings::connection_string::{self, Found};
use common::settings::session::{SessionConfig, SessionOptions};
use common::settings::{self, Environment, Setting, SettingError, Source, Sources};
use common::tls::{self, ClientIdentity};
use tracing::level_filters::LevelFilter;

use super::{Config, ConfigError, FollowedFile, keys};
use crate::cli::Cli;
use crate::limits;
use crate::policy::{Allowed, Limits};
use crate::target::{Target, Targets};
use crate::transport::Transport;

/// The configuration file that counts when the command line and the environment name neither one
/// nor a connection string: what `device-proxy enrol` has written.
pub fn default_file(cli: &Cli, environment: Environment<'_>) -> Option<PathBuf> {
    let is_given = cli.config.is_some()
        || cli.connection_string.is_some()
        || cli.connection_string_file.is_some()
        || !cli.positional.is_empty()
        || [keys::CONFIG, keys::CONNECTION_STRING]
            .iter()
            .flat_map(|key| key.variables)
            .any(|variable| environment(variable).is_some());
    if is_given {
        return None;
    }
    places::configuration(FILE)
}

/// The name of the configuration file that `device-proxy enrol` writes.
pub const FILE: &str = "device-proxy.toml";

/// The layers below the command line: this environment, and the configuration file if there is
/// one.
///
/// # Errors
/// [`ConfigError::Setting`] when that cannot be used.
pub fn sources<'a>(cli: &Cli, environment: Environment<'a>) -> Result<Sources<'a>, ConfigError> {
    let file = cli.config.clone();
    Ok(Sources::open(
        keys::CONFIG,
        file,
        environment,
        keys::IN_FILE,
    )?)
}

/// How much to log.
///
/// # Errors
/// [`ConfigError::Setting`] when a layer says something that is no level.
pub fn log_level(cli: &Cli, sources: &Sources<'_>) -> Result<LevelFilter, ConfigError> {
    Ok(sources.log_level(keys::LOG_LEVEL, cli.log_level)?)
}

impl Config {
    /// Resolves the arguments and what is below them. Reads the files that they name; blocks.
    ///
    /// # Errors
    /// [`ConfigError`]: one sentence on what to give.
    pub fn resolve(cli: Cli, sources: &Sources<'_>) -> Result<Self, ConfigError> {
        let file = FollowedFile::new(&cli, sources)?;
        let has_all = cli.positional.len() == 3;
        let mut arguments = cli.positional.into_iter().peekable();
        let option = connection_string::of_options(
            (keys::CONNECTION_STRING, cli.connection_string.as_ref()),
            (keys::CONNECTION_STRING_FILE, cli.connection_string_file),
        )?;
        let argument = arguments.next_if(connection_string::is_one);
        let found = match option.or_else(|| argument.as_ref().map(Found::argument)) {
            Some(found) => Some(found),
            None => connection_string::of_sources(
                sources,
                keys::CONNECTION_STRING,
                keys::CONNECTION_STRING_FILE,
            )?,
        };
        let found = match found {
            Some(found) => found,
            // Of three arguments the first is meant to be it, whatever it looks like.
            None => arguments
                .next()
                .filter(|_| has_all)
                .map(|text| Found::argument(&text))
                .ok_or(ConfigError::NoConnectionString)?,
        };
        let connection = connection(&found)?;
        let targets = targets(cli.target, cli.echo, arguments, sources)?;

        let is_x509 = connection.credential == DeviceCredential::X509;
        let certificate = sources.path(keys::CERT, cli.cert)?;
        let identity = match (certificate, sources.path(keys::KEY, cli.key)?) {
            (Some(one), None) | (None, Some(one)) => {
                return Err(ConfigError::HalfCertificate(one.source));
            }
            (Some(_), Some(_)) if !is_x509 => return Err(ConfigError::UnusedCertificate),
            (Some(certificate), Some(key)) => Some(ClientIdentity {
                certificate: certificate.value,
                key: key.value,
            }),
            (None, None) if is_x509 => return Err(ConfigError::NoCertificate),
            (None, None) => None,
        };
        let ca_file = sources
            .path(keys::CA_FILE, cli.ca_file)?
            .map(Setting::into_value);
        let proxy = ProxyOptions {
            proxy: cli.proxy,
            file: cli.proxy_auth_file,
            no_proxy: cli.no_proxy,
        };
        let proxy = ProxySettings::resolve(sources, keys::OF_PROXY, proxy)?;
        let tls = tls::client_config(ca_file.as_deref(), identity.as_ref())?;
        let sample_output = sources.flag(keys::SAMPLE_OUTPUT, cli.sample_output)?;
        let given = SessionOptions {
            mode: cli.session,
            grace: cli.session_grace,
            memory: cli.memory,
        };
        let session = SessionConfig::resolve(sources, keys::OF_SESSION, given, sample_output)?;
        let max_streams = sources.setting(keys::MAX_STREAMS, cli.max_streams, |text| {
            settings::number(text, 1..=1_000_000)
        })?;
        let allowed = allowed(cli.allow_cloud, sources)?;
        Ok(Self {
            dialer: Dialer::new(&tls).through(proxy),
            connection,
            connection_file: found.file,
            file,
            targets,
            allowed,
            transport: sources.value(
                keys::TRANSPORT,
                cli.transport,
                settings::choice,
                Transport::MqttWs,
            )?,
            session,
            mqtts_port: sources.value(
                keys::MQTTS_PORT,
                cli.mqtts_port,
                |text| settings::number(text, 0..=u16::MAX),
                MQTTS_PORT,
            )?,
            streaming_hosts: sources
                .setting(keys::STREAMING_HOSTS, cli.streaming_hosts, str::parse)?
                .map(Setting::into_value),
            max_streams: max_streams.map_or(limits::STREAMS_PER_DEVICE, |most| {
                usize::try_from(most.value).unwrap_or(usize::MAX)
            }),
            limits: limits(sources)?,
            sample_output,
        })
    }
}

/// What the hub is reached through, by these options and the environment. Reads the file with the
/// credentials; blocks.
///
/// # Errors
/// [`SettingError`] names the place of what cannot be used.
pub fn proxy(
    environment: Environment<'_>,
    options: ProxyOptions,
) -> Result<ProxySettings, SettingError> {
    ProxySettings::resolve(&Sources::new(environment), keys::OF_PROXY, options)
}

/// What the file alone can change.
fn limits(sources: &Sources<'_>) -> Result<Limits, ConfigError> {
    let default = Limits::default();
    let look = |key, default| {
        let parse = |text: &str| settings::number(text, 1..=1_000_000);
        sources.value(key, None, parse, default)
    };
    Ok(Limits {
        sessions: look(keys::SESSIONS, default.sessions)?,
        connections: look(keys::CONNECTIONS, default.connections)?,
        detached_bytes: sources.value(
            keys::DETACHED_BYTES,
            None,
            |text: &str| settings::number(text, 0..=1 << 40),
            default.detached_bytes,
        )?,
    })
}

/// What the cloud may name as targets: the list of the highest layer that has one.
fn allowed(options: Vec<String>, sources: &Sources<'_>) -> Result<Allowed, ConfigError> {
    let mut allowed = Allowed::default();
    if options.is_empty()
        && let Some(variable) = sources.variable(keys::ALLOW_CLOUD)?
    {
        let add = |list: Secret| {
            let patterns = list.expose().split(',').map(str::trim);
            let mut patterns = patterns.filter(|pattern| !pattern.is_empty());
            patterns.try_for_each(|pattern| allowed.add(pattern))
        };
        variable.read(add)?;
        return Ok(allowed);
    }
    for pattern in sources.list(keys::ALLOW_CLOUD, options)? {
        pattern.read(|text| allowed.add(&text))?;
    }
    Ok(allowed)
}

fn connection(found: &Found) -> Result<DeviceConnectionString, ConfigError> {
    DeviceConnectionString::parse(found.text.expose()).map_err(|error| match &found.source {
        None | Some(Source::Option(_)) => error.into(),
        Some(source) => ConfigError::ConnectionStringAt(source.clone(), error),
    })
}

/// What streams can reach: the targets of the highest layer that names any, and the built-in echo
/// if it is wanted.
fn targets(
    options: Vec<String>,
    echo: bool,
    mut arguments: impl Iterator<Item = Secret>,
    sources: &Sources<'_>,
) -> Result<Targets, ConfigError> {
    let mut targets = Targets::parse(&[], sources.flag(keys::ECHO, echo)?)?;
    let add = |targets: &mut Targets, options: Vec<String>| {
        for target in sources.list(keys::TARGET, options)? {
            target.read(|text| targets.add(&text))?;
        }
        Ok::<_, ConfigError>(())
    };
    let has_targets = !options.is_empty();
    if has_targets {
        add(&mut targets, options)?;
    }
    match (arguments.next(), arguments.next()) {
        (Some(host), Some(port)) => {
            targets.set_unnamed(Target::tcp(host.expose(), port.expose())?)?;
        }
        (Some(host), None) => return Err(ConfigError::NoPort(host.expose().to_owned())),
        (None, _) if has_targets => {}
        (None, _) => {
            let host = match sources.variable(keys::TARGET_HOST)? {
                // An echo target of the command line leaves no room for it either.
                Some(host) if !echo => Some(host),
                _ => None,
            };
            match host {
                Some(host) => {
                    let host = host.value.expose();
                    let port = sources
                        .variable(keys::TARGET_PORT)?
                        .ok_or_else(|| ConfigError::NoPort(host.to_owned()))?;
                    targets.set_unnamed(Target::tcp(host, port.value.expose())?)?;
                }
                None => add(&mut targets, Vec::new())?,
            }
        }
    }
    if let Some(extra) = arguments.next() {
        return Err(ConfigError::TooMany(extra.expose().to_owned()));
    }
    if targets.is_empty() {
        return Err(ConfigError::NoTarget);
    }
    Ok(targets)
}
