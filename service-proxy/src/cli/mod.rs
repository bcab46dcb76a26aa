//! The command line of `service-proxy`: arguments only. The help text is the manual. What is not
//! given is found in [`crate::config`].

mod approvals;
mod by_name;
mod fleet;
mod form;
mod values;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use common::admin::AdminListen;
use common::identity::{DeviceId, ModuleId, StreamName};
use common::secret::Secret;
use common::session_mode::SessionMode;
use common::settings;
use common::status::{Asked, Place};
use common::streaming_hosts::Patterns;
use common::telemetry::LogFormat;
use parse_size::Config as Size;
use tracing::level_filters::LevelFilter;

use crate::forward::ForwardSpec;
use crate::host_names::Suffix;
use crate::hub_name::HubName;
use crate::limits;

pub use self::approvals::{ApprovalsCommand, RequestArgs};
pub use self::by_name::{RdpArgs, SocksArgs, SshConfigAction, SshConfigArgs, SshSessionArgs};
pub use self::fleet::{
    DevicesArgs, FleetCommand, InventoryArgs, JobCommand, MethodArgs, MonitorArgs, QueryArgs,
    RunArgs, ScheduleArgs, SshArgs, TwinCommand,
};
pub use self::form::FormArgs;

const AFTER_HELP: &str = "\
The connection string is a secret, and other users of this machine see command lines: better
give it with --connection-string-file or in IOTHUB_CONNECTION_STRING. An option counts more
than a positional argument, and that more than the environment. When the connection string
comes from an option or the environment, the first argument may be the device.

A device that is called like a command stands behind `--`: service-proxy -- echo 2222

Without a connection string and --config, service-proxy.toml in ~/.config/device-streams or
/etc/device-streams is the configuration file; `service-proxy login` writes it.

Examples:
  service-proxy login CODE@hub.example.com
  export IOTHUB_CONNECTION_STRING=\"$(stream-hub policy connection-string service)\"
  service-proxy MyDevice 2222                   then: ssh -p 2222 user@localhost
  service-proxy listen MyDevice 2222:ssh 3389:rdp
  ssh -o ProxyCommand='service-proxy connect %n ssh' user@MyDevice
  service-proxy socks                           then: curl -x socks5h://localhost:1080 http://MyDevice.device/
  service-proxy ssh-config --install            then: ssh user@MyDevice.device
  service-proxy rdp MyDevice
  service-proxy --hub acme connect MyDevice ssh
  service-proxy echo MyDevice
  service-proxy doctor MyDevice
  service-proxy devices --where \"tags.site = 'berlin'\"
  service-proxy job twin --where \"tags.customer = 'acme'\" \\
      '{\"properties\":{\"desired\":{\"deviceStreams\":{\"targets\":{\"rdp\":false}}}}}'
  service-proxy run --where \"tags.site = 'berlin'\" --user root -- uptime";

/// The operator's side of device streams: carries local connections to a device, in sessions that
/// outlive interruptions, or each in a stream of its own.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "service-proxy",
    version,
    after_help = AFTER_HELP,
    disable_help_subcommand = true,
    override_usage = "service-proxy [OPTIONS] [CONNECTION_STRING] [DEVICE_ID] [LOCAL_PORT]\n       \
                      service-proxy [OPTIONS] [CONNECTION_STRING] <COMMAND> …"
)]
pub struct Cli {
    /// The service's connection string, as `stream-hub policy connection-string service`
    /// prints it [env: IOTHUB_CONNECTION_STRING].
    #[arg(value_name = "CONNECTION_STRING")]
    pub first: Option<Secret>,

    /// The device to reach [env: STREAMING_TARGET_DEVICE or DEVICE_ID].
    #[arg(value_name = "DEVICE_ID")]
    pub second: Option<String>,

    /// The local port to listen on [env: PROXY_PORT or LOCAL_PORT].
    #[arg(value_name = "LOCAL_PORT")]
    pub third: Option<String>,

    #[command(flatten)]
    pub options: Options,

    /// What to do; without a command: listen on LOCAL_PORT.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Options {
    /// The service's connection string; visible to other users of this machine
    /// [env: IOTHUB_CONNECTION_STRING].
    #[arg(
        long,
        global = true,
        value_name = "TEXT",
        conflicts_with = "connection_string_file"
    )]
    pub connection_string: Option<Secret>,

    /// A file with the service's connection string, or with a SAS token of it, as `stream-hub token
    /// create` prints one.
    #[arg(long, global = true, value_name = "FILE", visible_alias = "token-file")]
    pub connection_string_file: Option<PathBuf>,

    /// Use the hub of this name, of those that the configuration file has in [hubs.NAME]. Without it
    /// a command uses the hub outside of these, or the only one. With login: the hub's address, where
    /// you log in by name.
    #[arg(long, global = true, value_name = "NAME", value_parser = HubName::of_option)]
    pub hub: Option<HubName>,

    /// Reach this module of the device instead of the device itself.
    #[arg(long, global = true, value_name = "ID")]
    pub module: Option<ModuleId>,

    /// The stream's name where none is given: the device chooses its target by it
    /// [default: TestStream, as the official samples; for echo: echo].
    #[arg(long, global = true, value_name = "NAME")]
    pub stream: Option<StreamName>,

    /// PEM file of the CA that signed the hub's certificate, in addition to the system's
    /// [env: SERVICE_PROXY_CA_FILE].
    #[arg(long, global = true, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,

    /// Reach the hub through this proxy: [SCHEME://]HOST:PORT, with http (HTTP CONNECT), https,
    /// socks5 or socks5h (which resolves names itself) as the scheme; `off`: through none
    /// [env: SERVICE_PROXY_PROXY, https_proxy, HTTPS_PROXY, all_proxy or ALL_PROXY].
    #[arg(long, global = true, value_name = "URL")]
    pub proxy: Option<Secret>,

    /// File with USER:PASSWORD for the proxy, USER perhaps as DOMAIN\USER; read again when the
    /// proxy refuses them [env: SERVICE_PROXY_PROXY_AUTH_FILE, or the text itself in
    /// SERVICE_PROXY_PROXY_AUTH].
    #[arg(long, global = true, value_name = "FILE")]
    pub proxy_auth_file: Option<PathBuf>,

    /// Hosts that are reached without the proxy: names (and all below them), addresses, networks
    /// or *, each perhaps with :PORT, with commas between [env: SERVICE_PROXY_NO_PROXY, no_proxy or
    /// NO_PROXY].
    #[arg(long, global = true, value_name = "HOSTS")]
    pub no_proxy: Option<String>,

    /// Where streams may lead instead of the hub's own host (for a hub in Azure: its domain);
    /// NAME[:PORT], *.DOMAIN[:PORT] or *, with commas between
    /// [env: SERVICE_PROXY_STREAMING_HOSTS].
    #[arg(long, global = true, value_name = "HOSTS")]
    pub streaming_hosts: Option<Patterns>,

    /// How long the hub waits for an offline device to connect, 0 to 60 s [default: 30].
    #[arg(long, global = true, value_name = "SECONDS", value_parser = handshake_seconds)]
    pub connect_timeout: Option<Duration>,

    /// How long the hub waits for the device's answer, 0 to 60 s; both together at most
    /// 60 s [default: 30].
    #[arg(long, global = true, value_name = "SECONDS", value_parser = handshake_seconds)]
    pub response_timeout: Option<Duration>,

    /// How long a connection waits for somebody to approve it, where the hub wants that, 0 to 86400 s
    /// [default: 600].
    #[arg(long, global = true, value_name = "SECONDS", value_parser = wait_seconds)]
    pub approval_wait: Option<Duration>,

    /// Local connections carried at once; more wait [default: 2048].
    #[arg(
        long,
        global = true,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    pub max_connections: Option<u32>,

    /// Where `service-proxy status` asks this program: the path of a Unix socket, on Windows the name
    /// of a pipe as \\.\pipe\NAME, or off [default: one in $XDG_RUNTIME_DIR/device-streams or another
    /// folder of this user alone; on Windows a pipe for this user and administrators]
    /// [env: SERVICE_PROXY_STATUS_SOCKET].
    #[arg(long, global = true, value_name = "PATH")]
    pub status_socket: Option<Place>,

    /// Session mode: many connections in one stream that outlives network failures (auto:
    /// with devices that can; always: never a plain stream; never: plain streams only).
    /// Echo tests always use a plain stream [default: auto] [env: SERVICE_PROXY_SESSION].
    #[arg(long, global = true, value_enum, value_name = "MODE")]
    pub session: Option<SessionMode>,

    /// How many seconds a session is kept while no stream carries it
    /// [default: 259200] [env: SERVICE_PROXY_SESSION_GRACE].
    #[arg(long, global = true, value_name = "SECONDS")]
    pub session_grace: Option<u64>,

    /// How many MiB all sessions may hold in memory [default: an eighth of the machine's, 64
    /// to 1024] [env: SERVICE_PROXY_MEMORY].
    #[arg(
        long,
        global = true,
        value_name = "MIB",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub memory: Option<u32>,

    /// Print the official samples' lines instead of ours, on stdout (with connect: on
    /// stderr).
    #[arg(long, global = true)]
    pub sample_output: bool,

    /// How much to log on stderr: off, error, warn, info, debug or trace
    /// [default: info] [env: SERVICE_PROXY_LOG].
    #[arg(long, global = true, value_name = "LEVEL", value_parser = settings::log_level)]
    pub log_level: Option<LevelFilter>,

    /// How a line of the log on stderr is written: text, or json, an object a line
    /// [default: text] [env: SERVICE_PROXY_LOG_FORMAT].
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        value_enum,
        hide_possible_values = true
    )]
    pub log_format: Option<LogFormat>,

    /// Where commands that listen answer /metrics (for Prometheus), /healthz and /readyz, in plain
    /// HTTP to anyone who asks: a port on 127.0.0.1, IP:PORT of this machine alone, or off; for
    /// others to reach it, open:IP:PORT [default: off] [env: SERVICE_PROXY_ADMIN].
    #[arg(long, global = true, value_name = "ADDR|off")]
    pub admin: Option<AdminListen>,

    /// TOML file with settings, named as these options, and `device` and `forward` for what
    /// LOCAL_PORT or `listen` say; what an option, an argument or the environment says counts
    /// more [env: SERVICE_PROXY_CONFIG].
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Only check the arguments, the environment and the files that they name: exit code 0 if
    /// service-proxy could start with them, else 2.
    #[arg(long, global = true)]
    pub check_config: bool,
}

/// What to do.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Listen on local ports; each connection becomes a stream to the device.
    Listen {
        /// The device to reach.
        #[arg(value_name = "DEVICE")]
        device: DeviceId,
        /// Where to listen, and the stream name that selects the target at the device; on
        /// loopback unless an address is given, IPv6 in brackets; port 0 picks one. A path, as
        /// /run/user/1000/docker.sock:docker or unix:PATH[:TARGET], is that of a Unix socket for this
        /// user alone. With DEVICE/ before it, a forward leads to that device.
        #[arg(value_name = "[BIND:]PORT[:TARGET]", required = true)]
        forwards: Vec<ForwardSpec>,
    },
    /// Carry one stream on stdin and stdout, for ssh's ProxyCommand. stdout carries
    /// nothing else; exit code 0 means a complete transfer.
    Connect {
        /// The device to reach. Device ids have case: with ssh use %n, not %h.
        #[arg(value_name = "DEVICE")]
        device: DeviceId,
        /// The stream name that selects the target at the device.
        #[arg(value_name = "TARGET")]
        target: Option<StreamName>,
        /// DEVICE may be a host name that ends with this, as MyDevice.device; `%XX` in it stands for
        /// a character that host names cannot have.
        #[arg(long, value_name = "NAME")]
        suffix: Option<Suffix>,
    },
    /// Listen for programs that can use a proxy, SOCKS5 or HTTP CONNECT on the same port: the name
    /// MyDevice.device and the port that they connect to select the device and its target. Nothing
    /// else is connected to. The proxy must resolve the names (curl: socks5h), and _TARGET.MyDevice.device
    /// names a target whatever the port.
    Socks(SocksArgs),
    /// Run the system's ssh to a device; behind `--` stand its own options and a command. Its exit
    /// code is passed on.
    Ssh(SshSessionArgs),
    /// Print what makes every device a host for ssh, as in `ssh user@MyDevice.device`; --install puts
    /// it into your ssh configuration.
    SshConfig(SshConfigArgs),
    /// Start an RDP client with a device's desktop: mstsc, xfreerdp3 or xfreerdp. Its exit code is
    /// passed on.
    Rdp(RdpArgs),
    /// Test a stream: send, wait for the same bytes to come back, measure. The device needs
    /// an echo target (`device-proxy --echo`, or an official echo sample with --stream
    /// TestStream --count 1).
    Echo {
        /// The device to reach.
        #[arg(value_name = "DEVICE")]
        device: DeviceId,
        #[command(flatten)]
        echo: EchoArgs,
    },
    /// Examine the whole path: configuration, hub, and, if one is named, the device, its targets and
    /// a test stream. One line for each step, and in the end one sentence that says where it is
    /// stuck. Exit code 0 if nothing has failed, else 1.
    Doctor(DoctorArgs),
    /// Get an operator's connection string with a one-time code, or log in by name with --hub HUB at
    /// the hub's identity provider; and write the configuration file that is used when nothing else
    /// is given.
    Login(LoginArgs),
    /// Show what the running service-proxies of this user carry: sessions, connections, bytes, and
    /// what is interrupted since when.
    Status(Asked),
    #[command(flatten)]
    Fleet(FleetCommand),
}

/// Options of `doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct DoctorArgs {
    /// The device to examine; without one, the path to the hub alone.
    #[arg(value_name = "DEVICE")]
    pub device: Option<DeviceId>,

    /// Examine this target of the device alone; otherwise all of them, if the device tells them.
    #[arg(long, value_name = "NAME")]
    pub target: Option<StreamName>,

    /// Print the report as JSON.
    #[arg(long)]
    pub json: bool,

    /// Also write the report, the configuration and the last lines of the service's log into this
    /// file, for support: JSON, without secrets.
    #[arg(long, value_name = "FILE")]
    pub bundle: Option<PathBuf>,

    /// How long each step may take, 1 to 60 s [default: 10].
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=60))]
    pub timeout: Option<u64>,
}

/// Options of `login`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct LoginArgs {
    /// The code, as `stream-hub enrol --operator` prints it; `-` reads it from stdin. Without --hub
    /// there has to be one [env: SERVICE_PROXY_ENROLMENT].
    #[arg(value_name = "CODE@HUB")]
    pub code: Option<Secret>,

    /// Where to write the files [default: ~/.config/device-streams].
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,

    /// Replace the configuration file of an earlier login.
    #[arg(long)]
    pub force: bool,

    /// With --hub: file with the secret of service-proxy's client, where the identity provider wants one.
    /// It is kept beside what renews the login [env: SERVICE_PROXY_CLIENT_SECRET, the secret itself].
    #[arg(long, value_name = "FILE")]
    pub client_secret_file: Option<PathBuf>,
}

/// Options of `echo`.
#[derive(Debug, Clone, Args)]
pub struct EchoArgs {
    /// How many messages to send; 0: until Ctrl-C [default: 4].
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,

    /// Bytes in each message, 1 to 65536 (with suffixes as 4K) [default: 64].
    #[arg(long, value_name = "BYTES", value_parser = message_size)]
    pub size: Option<usize>,

    /// Time from one message to the next [default: 1].
    #[arg(long, value_name = "SECONDS", value_parser = interval)]
    pub interval: Option<Duration>,

    /// Send this text instead of a pattern.
    #[arg(long, value_name = "TEXT", conflicts_with = "size", value_parser = text)]
    pub text: Option<String>,

    /// Test the throughput instead: send so many bytes, and check all that come back. 1K,
    /// 1M and 1G are powers of 1024.
    #[arg(
        long,
        value_name = "BYTES",
        value_parser = total,
        conflicts_with_all = ["count", "size", "interval", "text"]
    )]
    pub bytes: Option<u64>,
}

/// Plain decimals only: no sign, no exponent, no "inf".
fn seconds(text: &str, most: f64) -> Option<Duration> {
    if !text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return None;
    }
    let seconds: f64 = text.parse().ok()?;
    (seconds <= most).then(|| Duration::from_secs_f64(seconds))
}

/// A time that the hub may be asked to wait: seconds, 0 to 60.
pub(crate) fn handshake_seconds(text: &str) -> Result<Duration, &'static str> {
    seconds(text, limits::STREAM_HANDSHAKE.as_secs_f64())
        .ok_or("give seconds from 0 to 60, decimals allowed")
}

/// A time that an approver is waited for: seconds, up to a day.
pub(crate) fn wait_seconds(text: &str) -> Result<Duration, &'static str> {
    seconds(text, 86_400.0).ok_or("give seconds from 0 to 86400, decimals allowed")
}

fn interval(text: &str) -> Result<Duration, &'static str> {
    seconds(text, 86_400.0).ok_or("give seconds, decimals allowed, at most a day")
}

fn size(text: &str) -> Option<u64> {
    Size::new().with_binary().parse_size(text).ok()
}

fn message_size(text: &str) -> Result<usize, &'static str> {
    size(text)
        .and_then(|size| usize::try_from(size).ok())
        .filter(|size| (1..=limits::STREAM_MESSAGE).contains(size))
        .ok_or("give a number of bytes from 1 to 65536")
}

fn total(text: &str) -> Result<u64, &'static str> {
    size(text)
        .filter(|size| *size > 0)
        .ok_or("give a number of bytes, for instance 500M or 1G")
}

fn text(text: &str) -> Result<String, &'static str> {
    if (1..=limits::STREAM_MESSAGE).contains(&text.len()) {
        Ok(text.to_owned())
    } else {
        Err("give a text of 1 to 65536 bytes")
    }
}

#[cfg(test)]
mod tests;
