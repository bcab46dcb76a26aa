//! From arguments, environment, files and defaults to what they mean: every value decided, every
//! mistake named.

mod by_name;
mod connection;
mod fleet;
mod forwards;
mod hubs;
mod keys;
mod reload;
mod resolve;
mod settings;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use common::connection_string::{ConnectionStringError, ServiceConnectionString};
use common::identity::{DeviceId, DeviceIdentity, IdentityError, ModuleId, StreamName};
use common::limits;
use common::net::Dialer;
use common::net::proxy::{ProxyOptions, ProxySettings};
use common::session::STREAM_PREFIX;
use common::settings::session::SessionConfig;
use common::settings::{SettingError, Source};
use common::status::Asked;
use common::streaming_hosts::Patterns;
use common::tls::{self, TlsConfigError};
use common::wire::initiation::Timeouts;

use crate::cli::{DoctorArgs, LoginArgs, SshConfigAction};
use crate::echo_plan::EchoPlan;
use crate::forward::{Forward, ForwardError, Place};
use crate::host_names::{HostNames, Suffix};
use crate::hub_name::HubName;
use crate::sample_output::SampleOutput;

pub use self::connection::ServiceConnection;
pub use self::fleet::{FleetConfig, MethodLimits, Task};
pub use self::reload::{Current, Reader};
pub use self::resolve::{
    FILE, admin, default_file, log_format, log_level, resolve, sources, status_place,
};

/// The stream name of the official samples.
pub const DEFAULT_STREAM: &str = "TestStream";
/// The stream name of echo tests, which device-proxy's built-in echo target has.
pub const ECHO_STREAM: &str = "echo";

/// How to reach a hub as a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubConfig {
    /// The hub, and who we are there.
    pub service: ServiceConnectionString,
    /// The file that the connection string came from, to read it again.
    pub connection_file: Option<PathBuf>,
    /// A CA in addition to the system's.
    pub ca_file: Option<PathBuf>,
    /// The proxy on the way to the hub, if there is one.
    pub proxy: ProxySettings,
    /// Where streams may lead instead of what the hub's name allows.
    pub streaming_hosts: Option<Patterns>,
    /// How long the hub waits for the device.
    pub timeouts: Timeouts,
    /// How long an approver is waited for.
    pub approval_wait: Duration,
}

impl HubConfig {
    /// Whether both are of the same hub, by its name.
    pub fn is_same_hub(&self, other: &Self) -> bool {
        self.service.host == other.service.host
    }

    /// The files that it was read from, and that its CA is read from.
    fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let files = self.connection_file.iter().chain(&self.ca_file);
        files.chain(&self.proxy.file)
    }

    /// What reaches the hub. Says in the log if that goes through a proxy; one is enough for a
    /// program. Reads the CA file; blocks.
    ///
    /// # Errors
    /// [`TlsConfigError`] names the file at fault.
    pub fn dialer(&self) -> Result<Dialer, TlsConfigError> {
        let tls = tls::client_config(self.ca_file.as_deref(), None)?;
        let dialer = Dialer::new(&tls).through(self.proxy.clone());
        let hub = &self.service.host;
        if let Some(proxy) = dialer.way_to(hub.name(), hub.https_port()) {
            tracing::info!(%proxy, %hub, "the hub is reached through a proxy");
        }
        Ok(dialer)
    }
}

/// A hub, and what leads to its devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubForwards {
    /// Its name in the configuration file, if it has one.
    pub name: Option<HubName>,
    /// The hub.
    pub hub: HubConfig,
    /// The ports and sockets, and the device and the stream name behind each.
    pub forwards: Vec<Forward>,
}

/// Listening on local ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenConfig {
    /// The hubs; no two have the same name, nor none.
    pub hubs: Vec<HubForwards>,
    /// How connections get through.
    pub session: SessionConfig,
    /// Connections at once, over all ports; more wait.
    pub max_connections: usize,
    /// Whether and where to print the official samples' lines.
    pub sample_output: SampleOutput,
}

/// A proxy port, for any device of the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocksConfig {
    /// The hub.
    pub hub: HubConfig,
    /// A module of every device instead of the device itself.
    pub module: Option<ModuleId>,
    /// Where to listen.
    pub place: Place,
    /// How host names and ports stand for devices and targets.
    pub names: HostNames,
    /// How connections get through.
    pub session: SessionConfig,
    /// Connections at once; more wait.
    pub max_connections: usize,
    /// Whether and where to print the official samples' lines.
    pub sample_output: SampleOutput,
}

/// ssh to a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshConfig {
    /// The device.
    pub device: DeviceId,
    /// The stream name of its SSH server.
    pub target: StreamName,
    /// Who logs in, if it is not ssh that decides.
    pub user: Option<String>,
    /// Further arguments of ssh.
    pub arguments: Vec<OsString>,
    /// How ssh's own service-proxy reaches the hub.
    pub connection: ServiceConnection,
}

/// ssh's own configuration, by which devices are hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshConfigConfig {
    /// What to do.
    pub action: SshConfigAction,
    /// What host names of devices end with.
    pub suffix: Suffix,
    /// The stream name of SSH servers.
    pub target: StreamName,
    /// How ssh's own service-proxy reaches the hub; it has no secret.
    pub connection: ServiceConnection,
}

/// An RDP client for a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RdpConfig {
    /// The device.
    pub device: DeviceId,
    /// The port that leads to it: one is picked.
    pub listen: ListenConfig,
    /// The client, if it is not looked for.
    pub client: Option<String>,
    /// Who logs in.
    pub user: Option<String>,
    /// Further arguments of the client.
    pub arguments: Vec<OsString>,
}

/// One stream on stdin and stdout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectConfig {
    /// The hub.
    pub hub: HubConfig,
    /// The device, or a module of it.
    pub identity: DeviceIdentity,
    /// The stream's name.
    pub name: StreamName,
    /// How the connection gets through.
    pub session: SessionConfig,
    /// Whether and where to print the official samples' lines.
    pub sample_output: SampleOutput,
}

/// An echo test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EchoConfig {
    /// The hub.
    pub hub: HubConfig,
    /// The device, or a module of it.
    pub identity: DeviceIdentity,
    /// The stream's name.
    pub name: StreamName,
    /// What to send.
    pub plan: EchoPlan,
    /// Whether and where to print the official samples' lines.
    pub sample_output: SampleOutput,
}

/// An examination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoctorConfig {
    /// The hub.
    pub hub: HubConfig,
    /// Its name in the configuration file, if it has one.
    pub name: Option<HubName>,
    /// The device, or a module of it, if one is to be examined.
    pub identity: Option<DeviceIdentity>,
    /// The target, if it is to be one alone.
    pub target: Option<StreamName>,
    /// How connections would get through.
    pub session: SessionConfig,
    /// How long each step may take.
    pub limit: Duration,
    /// What to print and write.
    pub args: DoctorArgs,
}

/// Getting a connection string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginConfig {
    /// The code, and where to write.
    pub args: LoginArgs,
    /// The hub to log in at by name.
    pub hub: Option<HubName>,
    /// A CA in addition to the system's.
    pub ca_file: Option<PathBuf>,
    /// What the hub is reached through.
    pub proxy: ProxySettings,
    /// The same, as it is written down for later.
    pub proxy_options: ProxyOptions,
}

/// What the program does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Config {
    /// Listen on local ports.
    Listen(ListenConfig),
    /// Carry one stream on stdin and stdout.
    Connect(ConnectConfig),
    /// Listen for clients of a proxy.
    Socks(SocksConfig),
    /// Run ssh.
    Ssh(Box<SshConfig>, Box<HubConfig>),
    /// Print or install a configuration of ssh.
    SshConfig(Box<SshConfigConfig>, Box<HubConfig>),
    /// Run an RDP client.
    Rdp(Box<RdpConfig>),
    /// Test a stream.
    Echo(EchoConfig),
    /// Examine the path.
    Doctor(Box<DoctorConfig>),
    /// Get a connection string.
    Login(LoginConfig),
    /// The status of running programs.
    Status(Asked),
    /// Manage devices.
    Fleet(FleetConfig),
}

impl Config {
    /// Reads what else a start would read: the CA file. Blocks.
    ///
    /// # Errors
    /// [`TlsConfigError`] names the file at fault.
    pub fn check(&self) -> Result<(), TlsConfigError> {
        for hub in self.hubs() {
            tls::client_config(hub.ca_file.as_deref(), None)?;
        }
        Ok(())
    }

    fn hubs(&self) -> Vec<&HubConfig> {
        match self {
            Self::Listen(config) => config.hubs.iter().map(|of| &of.hub).collect(),
            Self::Rdp(config) => config.listen.hubs.iter().map(|of| &of.hub).collect(),
            Self::Connect(config) => vec![&config.hub],
            Self::Socks(config) => vec![&config.hub],
            Self::Ssh(_, hub) | Self::SshConfig(_, hub) => vec![hub],
            Self::Echo(config) => vec![&config.hub],
            Self::Doctor(config) => vec![&config.hub],
            Self::Fleet(config) => vec![&config.hub],
            Self::Login(_) | Self::Status(_) => Vec::new(),
        }
    }

    /// The files that it was read from, beside the configuration file.
    fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.hubs().into_iter().flat_map(HubConfig::files)
    }

    /// What has to be the same as long as the program runs, and is not in `other`.
    pub fn fixed_differing(&self, other: &Self) -> Vec<&'static str> {
        let fixed = match (self, other) {
            (Self::Listen(ours), Self::Listen(theirs)) => {
                vec![("sample-output", ours.sample_output != theirs.sample_output)]
            }
            (Self::Socks(ours), Self::Socks(theirs)) => vec![
                ("sample-output", ours.sample_output != theirs.sample_output),
                ("module", ours.module != theirs.module),
                ("socks.listen", ours.place != theirs.place),
                ("suffix or socks.port", ours.names != theirs.names),
                ("the hub", !ours.hub.is_same_hub(&theirs.hub)),
            ],
            _ => Vec::new(),
        };
        let differing = fixed.into_iter().filter(|(_, is_other)| *is_other);
        differing.map(|(name, _)| name).collect()
    }
}

/// Why it is not clear what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No connection string anywhere.
    #[error(
        "no connection string: give --connection-string-file FILE or set IOTHUB_CONNECTION_STRING; `stream-hub policy connection-string service` prints one"
    )]
    NoConnectionString,
    /// The connection string of the command line is none.
    #[error(transparent)]
    ConnectionString(#[from] ConnectionStringError),
    /// One that was given elsewhere is none.
    #[error("{0} cannot be used")]
    ConnectionStringAt(Source, #[source] ConnectionStringError),
    /// A setting is wrong.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// The hub has no connection string.
    #[error(
        "the hub {0} has no connection string: give connection-string-file in [hubs.{0}] of the configuration file"
    )]
    NoConnectionStringOf(HubName),
    /// There is no such hub.
    #[error("there is no hub {0}{known}", known = known(.1))]
    NoSuchHub(HubName, Vec<HubName>),
    /// There are several hubs, and one is needed.
    #[error("there are several hubs: give --hub with one of {}", list(.0))]
    SeveralHubs(Vec<HubName>),
    /// Two forwards listen on the same place.
    #[error("{second}: {place} is taken by {first}; give each forward a place of its own")]
    SamePlace {
        /// The place.
        place: String,
        /// Where the first one was given.
        first: String,
        /// Where the second one was given.
        second: String,
    },
    /// The CA file cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsConfigError),
    /// No device anywhere.
    #[error(
        "no device: give DEVICE_ID behind the connection string, or set STREAMING_TARGET_DEVICE"
    )]
    NoDevice,
    /// The device's id is none.
    #[error(transparent)]
    Device(#[from] IdentityError),
    /// No port anywhere.
    #[error("no local port: give LOCAL_PORT behind the device, or set PROXY_PORT")]
    NoPort,
    /// The port is none.
    #[error(transparent)]
    Port(#[from] ForwardError),
    /// More arguments than there are things to say.
    #[error(
        "one argument too many: the connection string comes from elsewhere, so DEVICE_ID and LOCAL_PORT are all"
    )]
    TooMany,
    /// Something else than a connection string before a command.
    #[error(
        "only the connection string may stand before a command; write `--` before a device that is called like a command"
    )]
    BeforeCommand,
    /// The inventory would have to show the connection string.
    #[error(
        "the inventory says how Ansible reaches the devices, and would have to show the connection string, or the password in --proxy: give these with --connection-string-file and --proxy-auth-file, in the environment or in a configuration file"
    )]
    SecretInInventory,
    /// ssh's configuration would have to show the connection string.
    #[error(
        "ssh's configuration would have to show the connection string: give that with --connection-string-file, in IOTHUB_CONNECTION_STRING or in a configuration file"
    )]
    SecretInSshConfig,
    /// The name is one of ours.
    #[error(
        "a target's name may not begin with {STREAM_PREFIX} as {0} does: streams of session mode do"
    )]
    Reserved(StreamName),
    /// The name leaves no room for session mode's own.
    #[error(
        "{0} is too long a name for session mode, which has {length} characters for one: give a shorter one, or --session auto",
        length = limits::ID_LENGTH - STREAM_PREFIX.len()
    )]
    TooLongForSessions(StreamName),
}

fn list(names: &[HubName]) -> String {
    let names: Vec<_> = names.iter().map(HubName::as_str).collect();
    names.join(", ")
}

fn known(names: &[HubName]) -> String {
    if names.is_empty() {
        " in the configuration file: name it there in [hubs.NAME]".to_owned()
    } else {
        format!("; the configuration file has {}", list(names))
    }
}

/// A hub that cannot be reached, for tests.
#[cfg(test)]
pub(crate) fn unreachable_hub() -> HubConfig {
    let text = "HostName=localhost:1;SharedAccessKeyName=p;SharedAccessKey=AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let wait = std::time::Duration::ZERO;
    HubConfig {
        service: ServiceConnectionString::parse(text).expect("it is one"),
        connection_file: None,
        ca_file: None,
        streaming_hosts: None,
        proxy: ProxySettings::default(),
        timeouts: Timeouts {
            connect: wait,
            response: wait,
        },
        approval_wait: wait,
    }
}

#[cfg(test)]
mod tests;
