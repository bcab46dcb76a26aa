//! The command line of `service-proxy`: arguments only. The help text is the manual. What is not
//! given is found in [`crate::config`].

mod by_name;
mod fleet;
mod values;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use common::identity::{DeviceId, ModuleId, StreamName};
use common::secret::Secret;
use common::session_mode::SessionMode;
use common::settings;
use common::streaming_hosts::Patterns;
use parse_size::Config as Size;
use tracing::level_filters::LevelFilter;

use crate::forward::ForwardSpec;
use crate::host_names::Suffix;
use crate::limits;

pub use self::by_name::{RdpArgs, SocksArgs, SshConfigAction, SshConfigArgs, SshSessionArgs};
pub use self::fleet::{
    DevicesArgs, FleetCommand, FormArgs, InventoryArgs, JobCommand, MethodArgs, MonitorArgs,
    QueryArgs, RunArgs, ScheduleArgs, SshArgs, TwinCommand,
};

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
  service-proxy echo MyDevice
  service-proxy devices --where \"tags.site = 'berlin'\"
  service-proxy job twin --where \"tags.customer = 'acme'\" \\
      '{\"properties\":{\"desired\":{\"deviceStreams\":{\"targets\":{\"rdp\":false}}}}}'
  service-proxy run --where \"tags.site = 'berlin'\" --user root -- uptime";

/// The operator's side of device streams: carries local connections to a device, in sessions that
/// outlive interruptions, or each in a stream of its own.
#[derive(Debug, Parser)]
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

    /// A file with the service's connection string.
    #[arg(long, global = true, value_name = "FILE")]
    pub connection_string_file: Option<PathBuf>,

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

    /// Local connections carried at once; more wait [default: 2048].
    #[arg(
        long,
        global = true,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    pub max_connections: Option<u32>,

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
    /// Get an operator's connection string with a one-time code, and write the configuration file
    /// that is used when nothing else is given.
    Login(LoginArgs),
    #[command(flatten)]
    Fleet(FleetCommand),
}

/// Options of `login`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct LoginArgs {
    /// The code, as `stream-hub enrol --operator` prints it; `-` reads it from stdin
    /// [env: SERVICE_PROXY_ENROLMENT].
    #[arg(value_name = "CODE@HUB")]
    pub code: Option<Secret>,

    /// Where to write the files [default: ~/.config/device-streams].
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,

    /// Replace the configuration file of an earlier login.
    #[arg(long)]
    pub force: bool,
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
