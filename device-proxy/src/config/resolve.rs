//! The one phase in which every setting is decided. Option, then positional argument, then
//! environment, then configuration file, then default.

use std::path::PathBuf;

use common::admin::AdminListen;
use common::connection_string::{DeviceConnectionString, DeviceCredential};
use common::hub_address::MQTTS_PORT;
use common::net::Dialer;
use common::net::proxy::{ProxyOptions, ProxySettings};
use common::places;
use common::secret::Secret;
use common::settings::connection_string::{self, Found};
use common::settings::session::{SessionConfig, SessionOptions};
use common::settings::{self, Environment, Setting, SettingError, Source, Sources};
use common::status::Place;
use common::telemetry::LogFormat;
use common::tls::{self, ClientIdentity};
use tracing::level_filters::LevelFilter;

use super::{Config, ConfigError, keys, rules};
use crate::cli::Options;
use crate::limits;
use crate::policy::{Allowed, Limits};
use crate::reports::ReportConnections;
use crate::target::{Target, Targets};
use crate::transport::Transport;

/// The configuration file that counts when the command line and the environment name neither one
/// nor a connection string: what `device-proxy enrol` has written.
pub fn default_file(options: &Options, environment: Environment<'_>) -> Option<PathBuf> {
    let is_given = options.config.is_some()
        || options.connection_string.is_some()
        || options.connection_string_file.is_some()
        || !options.positional.is_empty()
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

/// The name of the device's key, which it makes beside that file.
pub const KEY_FILE: &str = "device.key";

/// The layers below the command line: this environment, and the configuration file if there is
/// one.
///
/// # Errors
/// [`ConfigError::Setting`] when that cannot be used.
pub fn sources<'a>(
    options: &Options,
    environment: Environment<'a>,
) -> Result<Sources<'a>, ConfigError> {
    let file = options.config.clone();
    Ok(Sources::open_with_tables(
        keys::CONFIG,
        file,
        environment,
        keys::IN_FILE,
        &[keys::TARGETS],
    )?)
}

/// How much to log.
///
/// # Errors
/// [`ConfigError::Setting`] when a layer says something that is no level.
pub fn log_level(options: &Options, sources: &Sources<'_>) -> Result<LevelFilter, ConfigError> {
    Ok(sources.log_level(keys::LOG_LEVEL, options.log_level)?)
}

/// How a line of the log is written.
///
/// # Errors
/// [`ConfigError::Setting`] when a layer says something that is no form.
pub fn log_format(cli: &Options, sources: &Sources<'_>) -> Result<LogFormat, ConfigError> {
    Ok(sources.value(
        keys::LOG_FORMAT,
        cli.log_format,
        settings::choice,
        LogFormat::Text,
    )?)
}

/// Where the admin listener listens.
///
/// # Errors
/// [`ConfigError::Setting`] when a layer says something that is no such place.
pub fn admin(cli: &Options, sources: &Sources<'_>) -> Result<AdminListen, ConfigError> {
    Ok(sources.value(keys::ADMIN, cli.admin, str::parse, AdminListen::Off)?)
}

/// Where the running program is asked for its status.
///
/// # Errors
/// [`ConfigError::Setting`] when a layer says something that is no path.
pub fn status_place(options: &Options, sources: &Sources<'_>) -> Result<Place, ConfigError> {
    let given = options.status_socket.clone();
    Ok(sources.value(keys::STATUS_SOCKET, given, str::parse, Place::Usual)?)
}

impl Config {
    /// Resolves the arguments and what is below them. Reads the files that they name; blocks.
    ///
    /// # Errors
    /// [`ConfigError`]: one sentence on what to give.
    pub fn resolve(options: Options, sources: &Sources<'_>) -> Result<Self, ConfigError> {
        let has_all = options.positional.len() == 3;
        let mut arguments = options.positional.into_iter().peekable();
        let option = connection_string::of_options(
            (keys::CONNECTION_STRING, options.connection_string.as_ref()),
            (keys::CONNECTION_STRING_FILE, options.connection_string_file),
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
        let targets = targets(options.target, options.echo, arguments, sources)?;

        let is_x509 = connection.credential == DeviceCredential::X509;
        let certificate = sources.path(keys::CERT, options.cert)?;
        let identity = match (certificate, sources.path(keys::KEY, options.key)?) {
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
            .path(keys::CA_FILE, options.ca_file)?
            .map(Setting::into_value);
        let proxy = ProxyOptions {
            proxy: options.proxy,
            file: options.proxy_auth_file,
            no_proxy: options.no_proxy,
        };
        let proxy = ProxySettings::resolve(sources, keys::OF_PROXY, proxy)?;
        let tls = tls::client_config(ca_file.as_deref(), identity.as_ref())?;
        let (certificate_file, key_file) = identity
            .map(|identity| (identity.certificate, identity.key))
            .unzip();
        let tls_files = [&ca_file, &certificate_file, &key_file];
        let tls_files = tls_files.into_iter().flatten().cloned().collect();
        let sample_output = sources.flag(keys::SAMPLE_OUTPUT, options.sample_output)?;
        let report_connections = sources.value(
            keys::REPORT_CONNECTIONS,
            options.report_connections,
            settings::choice,
            ReportConnections::default(),
        )?;
        let given = SessionOptions {
            mode: options.session,
            grace: options.session_grace,
            memory: options.memory,
        };
        let session = SessionConfig::resolve(sources, keys::OF_SESSION, given, sample_output)?;
        let max_streams = sources.setting(keys::MAX_STREAMS, options.max_streams, |text| {
            settings::number(text, 1..=1_000_000)
        })?;
        let allowed = allowed(options.allow_cloud, sources)?;
        let addresses = rules::addresses(options.allow_addresses, sources, &targets)?;
        let rules = rules::rules(sources, &targets, &allowed)?;
        Ok(Self {
            dialer: Dialer::new(&tls).through(proxy.clone()),
            proxy,
            tls_files,
            ca_file,
            certificate_file,
            key_file,
            connection,
            connection_file: found.file,
            targets,
            addresses,
            rules,
            allowed,
            transport: sources.value(
                keys::TRANSPORT,
                options.transport,
                settings::choice,
                Transport::MqttWs,
            )?,
            session,
            mqtts_port: sources.value(
                keys::MQTTS_PORT,
                options.mqtts_port,
                |text| settings::number(text, 0..=u16::MAX),
                MQTTS_PORT,
            )?,
            streaming_hosts: sources
                .setting(keys::STREAMING_HOSTS, options.streaming_hosts, str::parse)?
                .map(Setting::into_value),
            max_streams: max_streams.map_or(limits::STREAMS_PER_DEVICE, |most| {
                usize::try_from(most.value).unwrap_or(usize::MAX)
            }),
            limits: limits(sources)?,
            report_connections,
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
    if targets.is_empty() && cfg!(windows) {
        // What one wants of a Windows machine is its desktop.
        Targets::usual()
            .iter()
            .try_for_each(|target| targets.add(target))?;
    }
    if targets.is_empty() {
        return Err(ConfigError::NoTarget);
    }
    Ok(targets)
}
