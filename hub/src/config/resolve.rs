//! The one phase in which every setting is decided. Option, then environment, then configuration
//! file, then default.

use std::path::PathBuf;

use common::admin::AdminListen;
use common::hub_address::{AMQPS_PORT, HTTPS_PORT, HubAddress, MQTTS_PORT};
use common::places;
use common::settings::{self, Environment, Setting, Sources};
use common::telemetry::LogFormat;
use tracing::level_filters::LevelFilter;

use super::{AmqpsListen, ConfigError, ServeConfig, access, audit, certificate, keys, limits};
use crate::cli::{AdminCommand, Cli, CredentialArgs, DeviceCommand, ModuleCommand, ServeArgs};
use crate::listen::{Listen, ListenOrOff};

/// The data folder where none is named.
const DATA_DIR: &str = "./hub-data";

/// The layers below the command line: this environment, and the configuration file if there is
/// one.
///
/// # Errors
/// [`ConfigError::Setting`] when that cannot be used.
pub fn sources<'a>(cli: &Cli, environment: Environment<'a>) -> Result<Sources<'a>, ConfigError> {
    let file = cli.config.clone();
    Ok(Sources::open_with_tables(
        keys::CONFIG,
        file,
        environment,
        &keys::in_file(),
        &limits::TABLES,
    )?)
}

/// How much to log.
///
/// # Errors
/// [`ConfigError::Setting`] when a layer says something that is no level.
pub fn log_level(cli: &Cli, sources: &Sources<'_>) -> Result<LevelFilter, ConfigError> {
    Ok(sources.log_level(keys::LOG_LEVEL, cli.log_level)?)
}

/// How a line of the log is written.
///
/// # Errors
/// [`ConfigError::Setting`] when a layer says something that is no form.
pub fn log_format(cli: &Cli, sources: &Sources<'_>) -> Result<LogFormat, ConfigError> {
    Ok(sources.value(
        keys::LOG_FORMAT,
        cli.log_format,
        settings::choice,
        LogFormat::Text,
    )?)
}

/// The data folder.
///
/// # Errors
/// [`ConfigError::Setting`] when the file has no path there.
pub fn data_dir(cli: &Cli, sources: &Sources<'_>) -> Result<PathBuf, ConfigError> {
    let path = sources.path(keys::DATA_DIR, cli.data_dir.clone())?;
    Ok(path.map_or_else(|| DATA_DIR.into(), Setting::into_value))
}

/// The configuration file that counts when the command line and the environment name neither one
/// nor a data folder: the machine's, which the package installs.
pub fn default_file(cli: &Cli, environment: Environment<'_>) -> Option<PathBuf> {
    let is_given = cli.config.is_some()
        || cli.data_dir.is_some()
        || [keys::CONFIG, keys::DATA_DIR]
            .iter()
            .flat_map(|key| key.variables)
            .any(|variable| environment(variable).is_some());
    let file = places::of_hub().join("stream-hub.toml");
    (!is_given && file.is_file()).then_some(file)
}

/// The whole configuration of a hub in this data folder.
///
/// # Errors
/// [`ConfigError`]: one sentence on what to give.
pub fn serve(
    args: ServeArgs,
    data_dir: PathBuf,
    sources: &Sources<'_>,
) -> Result<ServeConfig, ConfigError> {
    let https = Listen::everywhere(HTTPS_PORT);
    let mqtts = ListenOrOff(Some(Listen::everywhere(MQTTS_PORT)));
    let mqtts = sources.value(keys::MQTTS, args.mqtts, str::parse, mqtts)?.0;
    let amqps = sources.setting(keys::AMQPS, args.amqps, str::parse)?;
    let certificate = certificate::resolve(&args, sources)?;
    Ok(ServeConfig {
        data_dir,
        hostname: sources
            .setting(keys::HOSTNAME, args.hostname.clone(), HubAddress::parse)?
            .map(Setting::into_value),
        https: sources
            .value(keys::HTTPS, args.https, str::parse, https)?
            .socket_address(),
        mqtts: mqtts.map(Listen::socket_address),
        amqps: match (amqps.map(Setting::into_value), mqtts) {
            (Some(ListenOrOff(Some(listen))), _) => AmqpsListen::At(listen.socket_address()),
            (None, Some(mqtts)) if mqtts.port == MQTTS_PORT => {
                let listen = Listen {
                    port: AMQPS_PORT,
                    ..mqtts
                };
                AmqpsListen::IfFree(listen.socket_address())
            }
            _ => AmqpsListen::Off,
        },
        admin: sources.value(keys::ADMIN, args.admin, str::parse, AdminListen::Off)?,
        certificate,
        limits: limits::resolve(sources)?,
        access: access::resolve(sources)?,
        audit: audit::resolve(&args, sources)?,
    })
}

/// An admin command with what it takes from the environment: the key of a new identity, if no
/// option says how it is to prove itself.
///
/// # Errors
/// [`ConfigError::Setting`] when the variable is not text.
pub fn admin(
    mut command: AdminCommand,
    sources: &Sources<'_>,
) -> Result<AdminCommand, ConfigError> {
    let credential = match &mut command {
        AdminCommand::Device(DeviceCommand::Create(args)) => &mut args.credential,
        AdminCommand::Module(ModuleCommand::Create { credential, .. }) => credential,
        _ => return Ok(command),
    };
    let CredentialArgs {
        x509_thumbprint,
        x509_ca,
        primary_key,
        primary_key_file,
    } = credential;
    let is_x509 = *x509_ca || !x509_thumbprint.is_empty();
    if !is_x509 && primary_key_file.is_none() && primary_key.is_none() {
        *primary_key = sources
            .variable(keys::PRIMARY_KEY)?
            .map(Setting::into_value);
    }
    Ok(command)
}
