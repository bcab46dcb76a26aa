//! Commands that take devices as host names.

use std::net::{IpAddr, Ipv4Addr};

use common::identity::StreamName;
use common::settings::{Setting, Sources};

use super::settings::Settings;
use super::{
    Config, ConfigError, HubForwards, ListenConfig, RdpConfig, SocksConfig, SshConfig,
    SshConfigConfig, fleet, keys,
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
    if !settings.connection.secrets.is_empty() {
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
        identity: settings.identity(args.device.clone()),
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
        device: args.device,
        listen: ListenConfig {
            hubs: vec![HubForwards {
                name: settings.name,
                forwards: vec![forward],
                hub: settings.hub,
            }],
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

#[cfg(test)]
mod tests {
    use super::super::tests::{cs, file, listen, port, resolved};
    use super::*;

    #[test]
    fn devices_as_host_names() {
        let string = cs("h");
        let variables = [("IOTHUB_CONNECTION_STRING", string.as_str())];
        let device = |words: &[&str]| match resolved(words, &variables).unwrap() {
            Config::Connect(config) => config.identity.to_string(),
            other => panic!("{other:?}"),
        };
        // Without the option a name is an id as it stands.
        assert_eq!(device(&["connect", "D.device"]), "D.device");
        let suffix = ["connect", "--suffix", "device"];
        assert_eq!(device(&[&suffix[..], &["D.device"]].concat()), "D");
        assert_eq!(device(&[&suffix[..], &["D"]].concat()), "D");
        let socks = |words: &[&str]| match resolved(words, &variables).unwrap() {
            Config::Socks(config) => config,
            other => panic!("{other:?}"),
        };
        let plain = socks(&["socks", "--module", "m"]);
        assert_eq!(plain.place.to_string(), "1080");
        assert_eq!(plain.names, HostNames::default());
        assert_eq!(plain.module.unwrap().as_str(), "m");
        let text =
            "suffix = 'lab'\n[socks]\nlisten = '127.0.0.1:9'\nport = ['8080=web', '22=shell']";
        let (_file, path) = file(text);
        let found = socks(&["socks", "--config", &path]);
        assert_eq!(found.place.to_string(), "127.0.0.1:9");
        let target = |config: &SocksConfig, port| {
            let (device, name) = config.names.find("D.lab", port).unwrap();
            format!("{device} {name}")
        };
        assert_eq!(target(&found, "8080"), "D web");
        assert_eq!(target(&found, "22"), "D shell");
        let options = ["0", "--suffix", ".lab", "--port", "22=x", "--config", &path];
        let found = socks(&[&["socks"], &options[..]].concat());
        assert_eq!(target(&found, "22"), "D x");
        assert_eq!(target(&found, "8080"), "D 8080");
        assert_eq!(found.place.port, 0);
        let (_file, path) = file("[socks]\nport = ['x=y']");
        let error = resolved(&["socks", "--config", &path], &variables).unwrap_err();
        assert!(
            error.to_string().contains("line 2: socks.port: \"x=y\""),
            "{error}"
        );
    }

    #[test]
    fn a_file_has_forwards_to_many_devices() {
        let text = "forward = ['1:ssh', 'Other/2', 'Third/0.0.0.0:3:rdp']\nmodule = 'm'";
        let (_file, path) = file(&format!("device = 'd'\n{text}"));
        let words = ["--config", &path, &cs("h")];
        let forwards = |words: &[&str]| -> Vec<String> {
            let forwards = listen(words, &[]).forwards.into_iter();
            forwards
                .map(|it| format!("{} {} {}", port(&it), it.identity, it.name))
                .collect()
        };
        let others = ["2 Other/m TestStream", "3 Third/m rdp"];
        assert_eq!(forwards(&words), [&["1 d/m ssh"], &others[..]].concat());
        // An argument is the device of those that name none.
        let words = [&words[..], &["e"]].concat();
        assert_eq!(forwards(&words), [&["1 e/m ssh"], &others[..]].concat());
        let (_file, path) = file(text);
        let error = resolved(&["--config", &path, &cs("h")], &[]).unwrap_err();
        assert!(matches!(error, ConfigError::NoDevice), "{error}");
        let (_file, path) = file("forward = 'Other/2'");
        assert_eq!(
            forwards(&["--config", &path, &cs("h")]),
            ["2 Other TestStream"]
        );
    }
}
