//! From arguments, environment, files and defaults to a configuration without open options.

mod keys;
mod reload;
mod resolve;
mod rules;

use std::path::PathBuf;

use common::connection_string::{ConnectionStringError, DeviceConnectionString};
use common::net::Dialer;
use common::net::proxy::ProxySettings;
use common::settings::session::SessionConfig;
use common::settings::{SettingError, Source, connection_string};
use common::streaming_hosts::{Patterns, StreamingHosts};
use common::tls::TlsConfigError;

use crate::policy::{Addresses, Allowed, Limits, Local, Policy, Rules};
use crate::reports::ReportConnections;
use crate::target::{Target, TargetError, Targets};
use crate::transport::Transport;

pub use self::reload::{Current, Reader};
pub use self::resolve::{
    FILE, KEY_FILE, admin, default_file, log_format, log_level, proxy, sources, status_place,
};

/// What is wrong with how the program was called.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is no connection string anywhere.
    #[error(
        "give the device's connection string: --connection-string-file FILE, the environment variable IOTHUB_DEVICE_CONNECTION_STRING, or the first argument"
    )]
    NoConnectionString,
    /// The connection string of the command line is not a device's.
    #[error(transparent)]
    ConnectionString(#[from] ConnectionStringError),
    /// One that was given elsewhere is not.
    #[error("{0} cannot be used")]
    ConnectionStringAt(Source, #[source] ConnectionStringError),
    /// A setting is wrong.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// A target is wrong.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// There is nothing to reach.
    #[error("give a target: HOST PORT, --target [NAME=]HOST:PORT, or --echo")]
    NoTarget,
    /// A target is not where targets may be.
    #[error("the target {0} is not at an address of allow-addresses")]
    NotAnAddress(Target),
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
    /// A certificate without its key, or the reverse.
    #[error("--cert FILE and --key FILE belong together; {0} is given alone")]
    HalfCertificate(Source),
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
    /// What the cloud may name as targets.
    pub allowed: Allowed,
    /// Which addresses targets may have.
    pub addresses: Addresses,
    /// How much targets may be used, and when.
    pub rules: Rules,
    /// How MQTT reaches the hub.
    pub transport: Transport,
    /// Whether streams may outlive the network connections that carry them.
    pub session: SessionConfig,
    /// Port of MQTT over TLS.
    pub mqtts_port: u16,
    /// The files of its trust and of the client certificate, if there are any.
    pub tls_files: Vec<PathBuf>,
    /// The CA file.
    pub ca_file: Option<PathBuf>,
    /// The file of the client certificate.
    pub certificate_file: Option<PathBuf>,
    /// The file of its key.
    pub key_file: Option<PathBuf>,
    /// The proxy on the way to the hub, if there is one.
    pub proxy: ProxySettings,
    /// What reaches the hub, by these, and everything else.
    pub dialer: Dialer,
    /// Where streams may lead instead of what the hub's name allows.
    pub streaming_hosts: Option<Patterns>,
    /// Streams at once.
    pub max_streams: usize,
    /// What all sessions together may have.
    pub limits: Limits,
    /// Print the official samples' lines.
    pub sample_output: bool,
    /// Whether the hub is told of connections in sessions.
    pub report_connections: ReportConnections,
}

impl Config {
    /// What others may do on this device, as far as the configuration says it.
    pub fn policy(&self) -> Policy {
        Policy {
            targets: self.targets.clone(),
            addresses: self.addresses.clone(),
            rules: self.rules.clone(),
            configured: self.targets.clone(),
            session: self.session.mode,
            max_streams: self.max_streams,
            accept: true,
        }
    }

    /// The port of the hub that the hub session is opened to.
    pub fn session_port(&self) -> u16 {
        match self.transport {
            Transport::Mqtt => self.mqtts_port,
            Transport::MqttWs => self.connection.connect_host().https_port(),
        }
    }

    /// How MQTT reaches the hub, for a person.
    pub fn transport_name(&self) -> &'static str {
        match self.transport {
            Transport::Mqtt => "MQTT over TLS",
            Transport::MqttWs => "MQTT over WebSockets",
        }
    }

    /// Says in the log through which proxy the hub is reached, if it is.
    pub fn log_proxy(&self) {
        let host = self.connection.connect_host();
        if let Some(proxy) = self.dialer.way_to(host.name(), self.session_port()) {
            tracing::info!(%proxy, hub = %host, "the hub is reached through a proxy");
        }
    }

    /// The files that it was read from, beside the configuration file.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let tls = self.tls_files.iter();
        tls.chain(&self.connection_file).chain(&self.proxy.file)
    }

    /// What has to be the same as long as the program runs, and is not in `other`.
    pub fn fixed_differing(&self, other: &Self) -> Vec<&'static str> {
        let fixed = [
            ("the hub", self.connection.host != other.connection.host),
            (
                "the device",
                self.connection.identity != other.connection.identity,
            ),
            ("sample-output", self.sample_output != other.sample_output),
        ];
        let differing = fixed.into_iter().filter(|(_, is_other)| *is_other);
        differing.map(|(name, _)| name).collect()
    }

    /// Whether `other` is for the same device at the same hub.
    pub fn is_of_same_device(&self, other: &Self) -> bool {
        let [ours, theirs] = [&self.connection, &other.connection];
        ours.host == theirs.host && ours.identity == theirs.identity
    }

    /// Whether `other` reaches the hub in the same way, with the same credential; what is in the
    /// files of TLS is not compared.
    pub fn connects_as(&self, other: &Self) -> bool {
        self.connection == other.connection
            && self.transport == other.transport
            && self.mqtts_port == other.mqtts_port
            && self.proxy == other.proxy
            && self.tls_files == other.tls_files
    }

    /// What the configuration says of the policy, and what the cloud may make of it.
    pub fn local(&self) -> Local {
        Local {
            policy: self.policy(),
            allowed: self.allowed.clone(),
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
        let fresh = connection_string::again(path)
            .map_err(ConfigError::from)
            .and_then(|text| Ok(DeviceConnectionString::parse(text.expose())?));
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

#[cfg(test)]
pub(crate) mod tests;
