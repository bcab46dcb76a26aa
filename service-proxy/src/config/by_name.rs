//! Commands that take devices as host names.

use std::net::{IpAddr, Ipv4Addr};

use common::identity::StreamName;
use common::settings::{Setting, Sources};

use super::settings::Settings;
use super::{
    Config, ConfigError, ListenConfig, RdpConfig, SocksConfig, SshConfig, SshConfigConfig, fleet,
    keys,
};
use crate::cli::{RdpArgs, SocksArgs, SshConfigArgs, SshSessionArgs};
use crate::forward::{Bind, Forward, Local, Place};
use crate::host_names::{HostNames, PortTarget, Suffix};
use crate::sample_output::SampleOutput;

/// The usual port of SOCKS (IANA).
const SOCKS_PORT: u16 = 1080;
/// The stream name of RDP servers, as in device-proxy's examples.
const RDP: &str = "rdp";

/// Decides a proxy port.
pub(super) fn socks(
    settings: Settings,
    args: SocksArgs,
    sources: &Sources<'_>,
) -> Result<Config, ConfigError> {
    let place = sources.setting(keys::SOCKS_LISTEN, args.place, str::parse::<Place>)?;
    Ok(Config::Socks(SocksConfig {
        place: place.map_or(
            Place {
                bind: Bind::Loopback,
                port: SOCKS_PORT,
            },
            Setting::into_value,
        ),
        names: HostNames {
            suffix: suffix(args.suffix, sources)?,
            ports: ports(args.ports, sources)?
                .into_iter()
                .map(|it| (it.port, it.target))
                .collect(),
        },
        hub: settings.hub,
        module: settings.module,
        session: settings.session,
        max_connections: settings.max_connections,
        sample_output: SampleOutput::on_stdout(settings.sample_output),
    }))
}

/// Decides a run of ssh.
pub(super) fn ssh(settings: Settings, args: SshSessionArgs) -> Result<Config, ConfigError> {
    let target = fleet::ssh_target(&settings, args.ssh.target)?;
    let config = SshConfig {
        device: args.device,
        target,
        user: args.ssh.user,
        arguments: args.arguments,
        connection: settings.connection,
    };
    Ok(Config::Ssh(Box::new(config), Box::new(settings.hub)))
}

/// Decides what becomes of ssh's configuration.
pub(super) fn ssh_config(
    settings: Settings,
    args: SshConfigArgs,
    sources: &Sources<'_>,
) -> Result<Config, ConfigError> {
    if settings.connection.secret.is_some() {
        return Err(ConfigError::SecretInSshConfig);
    }
    let config = SshConfigConfig {
        action: args.action(),
        suffix: suffix(args.suffix, sources)?,
        target: fleet::ssh_target(&settings, args.target)?,
        connection: settings.connection,
    };
    Ok(Config::SshConfig(Box::new(config), Box::new(settings.hub)))
}

/// Decides a run of an RDP client.
pub(super) fn rdp(settings: Settings, args: RdpArgs) -> Result<Config, ConfigError> {
    let forward = Forward {
        local: Local::Port(Place {
            bind: Bind::Address(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            port: 0,
        }),
        name: match args.target {
            Some(target) => settings.usable(target)?,
            None => StreamName::parse(RDP)?,
        },
    };
    Ok(Config::Rdp(Box::new(RdpConfig {
        listen: ListenConfig {
            identity: settings.identity(args.device),
            forwards: vec![forward],
            hub: settings.hub,
            session: settings.session,
            max_connections: settings.max_connections,
            sample_output: SampleOutput::Off,
        },
        client: args.client,
        user: args.user,
        arguments: args.arguments,
    })))
}

/// What host names of devices end with.
fn suffix(given: Option<Suffix>, sources: &Sources<'_>) -> Result<Suffix, ConfigError> {
    let suffix = sources.setting(keys::SUFFIX, given, str::parse::<Suffix>)?;
    Ok(suffix.map_or_else(Suffix::default, Setting::into_value))
}

/// The targets of ports, by option or else by the file. The last one of a port counts.
fn ports(given: Vec<PortTarget>, sources: &Sources<'_>) -> Result<Vec<PortTarget>, ConfigError> {
    if !given.is_empty() {
        return Ok(given);
    }
    let listed = sources.list(keys::SOCKS_PORT, Vec::new())?.into_iter();
    let ports = listed.map(|it| {
        let port = it.read(|text| text.parse::<PortTarget>())?;
        Ok(port.into_value())
    });
    ports.collect()
}
