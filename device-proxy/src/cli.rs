//! Arguments; the help text is the manual. What is not given is found in [`crate::config`].

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use common::admin::AdminListen;
use common::identity::DeviceId;
use common::secret::Secret;
use common::session_mode::SessionMode;
use common::settings;
use common::status::{Asked, Place};
use common::streaming_hosts::Patterns;
use common::telemetry::LogFormat;
use tracing::level_filters::LevelFilter;

use crate::reports::ReportConnections;
use crate::transport::Transport;

const EXAMPLES: &str = "\
The connection string holds a key, and arguments are visible to other users of this
machine: prefer --connection-string-file or the environment.

Examples:
  device-proxy enrol CODE@hub.example.com
  IOTHUB_DEVICE_CONNECTION_STRING=\"$(cat device.cs)\" device-proxy localhost 22
  device-proxy --connection-string-file device.cs --target ssh=localhost:22 --target rdp=10.0.0.5:3389
  device-proxy --connection-string-file device.cs --target docker=unix:/run/docker.sock
  device-proxy --connection-string-file device.cs --echo
  device-proxy doctor

Environment: IOTHUB_DEVICE_CONNECTION_STRING (or IOTHUB_DEVICE_CONN_STRING),
REMOTE_HOST_NAME, REMOTE_PORT.

Without --config and connection string, device-proxy.toml in ~/.config/device-streams or
/etc/device-streams (on Windows %APPDATA%\\device-streams or %ProgramData%\\device-streams) is the
configuration file; `device-proxy enrol` writes it.";

#[cfg(not(windows))]
const USAGE: &str = "\
device-proxy [OPTIONS] [CONNECTION_STRING] [HOST] [PORT]
       device-proxy enrol [OPTIONS] [CODE@HUB]
       device-proxy doctor [OPTIONS] [CONNECTION_STRING] [HOST] [PORT]
       device-proxy status [--json] [--watch]";

#[cfg(windows)]
const USAGE: &str = "\
device-proxy [OPTIONS] [CONNECTION_STRING] [HOST] [PORT]
       device-proxy enrol [OPTIONS] [CODE@HUB]
       device-proxy doctor [OPTIONS] [CONNECTION_STRING] [HOST] [PORT]
       device-proxy status [--json] [--watch]
       device-proxy service install|uninstall|start|stop|reload";

/// Takes device streams from an IoT hub and pipes each to a local TCP service.
///
/// Connects out to the hub, and never opens a port. The name of a stream selects its
/// target: exact name first, then the unnamed target, else the stream is rejected.
#[derive(Debug, Clone, Parser)]
#[command(name = "device-proxy", version, after_help = EXAMPLES)]
#[command(disable_help_subcommand = true, args_conflicts_with_subcommands = true)]
#[command(override_usage = USAGE)]
pub struct Cli {
    /// What the program is told.
    #[command(flatten)]
    pub options: Options,

    /// What to do; without a command: take streams.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What the program is told: who it is, where its hub, what may be reached.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// The device's connection string, then host and port of the unnamed target. The
    /// string may be left out when it is given by option or environment.
    #[arg(value_name = "CONNECTION_STRING HOST PORT", num_args = 0..=3)]
    pub positional: Vec<Secret>,

    /// The device's or module's connection string.
    #[arg(long, value_name = "STRING")]
    pub connection_string: Option<Secret>,

    /// File with the connection string; read again when the hub refuses it.
    #[arg(long, value_name = "FILE", conflicts_with = "connection_string")]
    pub connection_string_file: Option<PathBuf>,

    /// A target, by the name of the streams that reach it; without a name, for all
    /// other streams. Repeatable. IPv6 in brackets; a Unix socket as unix:PATH.
    #[arg(long, value_name = "[NAME=]HOST:PORT")]
    pub target: Vec<String>,

    /// Also serve a built-in echo target named `echo`; alone, every stream echoes.
    #[arg(long)]
    pub echo: bool,

    /// How to reach the hub [default: mqtt-ws].
    #[arg(long, value_enum)]
    pub transport: Option<Transport>,

    /// Session mode: many connections in one stream that outlives network failures
    /// (auto: with peers that can; always: refuse plain streams; never: plain streams
    /// only) [default: auto] [env: DEVICE_PROXY_SESSION].
    #[arg(long, value_enum, value_name = "MODE")]
    pub session: Option<SessionMode>,

    /// How many seconds a session is kept while no stream carries it
    /// [default: 259200] [env: DEVICE_PROXY_SESSION_GRACE].
    #[arg(long, value_name = "SECONDS")]
    pub session_grace: Option<u64>,

    /// How many MiB all sessions may hold in memory [default: an eighth of the machine's, 64
    /// to 1024] [env: DEVICE_PROXY_MEMORY].
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..))]
    pub memory: Option<u32>,

    /// Port of `--transport mqtt` [default: 8883].
    #[arg(long, value_name = "PORT")]
    pub mqtts_port: Option<u16>,

    /// PEM file of CA certificates to trust in addition to the system's
    /// [env: DEVICE_PROXY_CA_FILE].
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,

    /// Reach the hub through this proxy: [SCHEME://]HOST:PORT, with http (HTTP CONNECT), https,
    /// socks5 or socks5h (which resolves names itself) as the scheme; `off`: through none. Targets
    /// are never reached through it [env: DEVICE_PROXY_PROXY, https_proxy, HTTPS_PROXY, all_proxy or
    /// ALL_PROXY].
    #[arg(long, value_name = "URL")]
    pub proxy: Option<Secret>,

    /// File with USER:PASSWORD for the proxy, USER perhaps as DOMAIN\USER; read again when the
    /// proxy refuses them [env: DEVICE_PROXY_PROXY_AUTH_FILE, or the text itself in
    /// DEVICE_PROXY_PROXY_AUTH].
    #[arg(long, value_name = "FILE")]
    pub proxy_auth_file: Option<PathBuf>,

    /// Hosts that are reached without the proxy: names (and all below them), addresses, networks
    /// or *, each perhaps with :PORT, with commas between [env: DEVICE_PROXY_NO_PROXY, no_proxy or
    /// NO_PROXY].
    #[arg(long, value_name = "HOSTS")]
    pub no_proxy: Option<String>,

    /// PEM file of the client certificate, for connection strings with `x509=true`.
    #[arg(long, value_name = "FILE")]
    pub cert: Option<PathBuf>,

    /// PEM file of the client certificate's private key.
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,

    /// Where streams may lead instead of the hub's own host (for a hub in Azure: its domain);
    /// NAME[:PORT], *.DOMAIN[:PORT] or *, with commas between. A stream to another host is
    /// rejected [env: DEVICE_PROXY_STREAMING_HOSTS].
    #[arg(long, value_name = "HOSTS")]
    pub streaming_hosts: Option<Patterns>,

    /// Streams at once; more are rejected [default: 512].
    #[arg(
        long,
        value_name = "NUMBER",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    pub max_streams: Option<u32>,

    /// What the desired properties of the device's twin may open as a target: a name, an address or
    /// a network, and a port or *; unix:PATH or unix:FOLDER/*. Repeatable; by default they can only close targets and lower
    /// limits [env: DEVICE_PROXY_ALLOW_CLOUD, with commas between].
    #[arg(long, value_name = "HOST:PORT")]
    pub allow_cloud: Vec<String>,

    /// Whether the hub is told of each connection in a session, for its audit log: auto (a stream-hub),
    /// always (also another hub, which takes it as telemetry) or never [default: auto]
    /// [env: DEVICE_PROXY_REPORT_CONNECTIONS].
    #[arg(long, value_enum, value_name = "MODE", hide_possible_values = true)]
    pub report_connections: Option<ReportConnections>,

    /// Where targets may be, whatever their names resolve to: an address, or a network as
    /// 10.0.0.0/8. Repeatable; by default anywhere, but `localhost` on this machine, and what the
    /// cloud names only at addresses of --allow-cloud [env: DEVICE_PROXY_ALLOW_ADDRESSES, with
    /// commas between].
    #[arg(long, value_name = "NETWORK")]
    pub allow_addresses: Vec<String>,

    /// Where `device-proxy status` asks this program: the path of a Unix socket, on Windows the name
    /// of a pipe as \\.\pipe\NAME, or off [default: one in /run/device-proxy or another folder of
    /// this user alone; on Windows a pipe for this user and administrators]
    /// [env: DEVICE_PROXY_STATUS_SOCKET].
    #[arg(long, value_name = "PATH")]
    pub status_socket: Option<Place>,

    /// Print the official samples' lines on stdout.
    #[arg(long)]
    pub sample_output: bool,

    /// off, error, warn, info, debug or trace [default: info] [env: DEVICE_PROXY_LOG].
    #[arg(long, value_name = "LEVEL", value_parser = settings::log_level)]
    pub log_level: Option<LevelFilter>,

    /// How a line of the log on stderr is written: text, or json, an object a line
    /// [default: text] [env: DEVICE_PROXY_LOG_FORMAT].
    #[arg(long, value_name = "FORMAT", value_enum, hide_possible_values = true)]
    pub log_format: Option<LogFormat>,

    /// Where to answer /metrics (for Prometheus), /healthz and /readyz, in plain HTTP to anyone
    /// who asks: a port on 127.0.0.1, IP:PORT of this machine alone, or off; for others to reach
    /// it, open:IP:PORT [default: off] [env: DEVICE_PROXY_ADMIN].
    #[arg(long, value_name = "ADDR|off")]
    pub admin: Option<AdminListen>,

    /// TOML file with settings, named as these options; what an option or the environment
    /// says counts more. It alone has rules for targets: how many connections, how fast, at
    /// which hours, and who is asked. Read again on SIGHUP: targets and all that concerns
    /// them, echo, session and max-streams change at once [env: DEVICE_PROXY_CONFIG].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Only check the options, the environment and the files that they name: exit code 0 if
    /// device-proxy could start with them, else 2.
    #[arg(long)]
    pub check_config: bool,
}

/// What to do instead of taking streams.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Register this device at a hub with a one-time code, write the configuration file, and
    /// start.
    Enrol(EnrolArgs),

    /// Examine the whole path from here to the hub, and the targets: one line for each step, and in
    /// the end one sentence that says where it is stuck. With the same options as device-proxy
    /// itself. Exit code 0 if nothing has failed, else 1. A device-proxy that runs with the same
    /// identity loses its hub session for a moment, and no stream; --no-connect leaves it alone.
    Doctor(Box<DoctorArgs>),

    /// Show what the running device-proxy carries: its hub session, sessions, connections, bytes, and
    /// what is interrupted since when.
    Status(Asked),

    /// Install device-proxy as a service of Windows, and control it. For administrators.
    #[cfg(windows)]
    #[command(subcommand)]
    Service(ServiceCommand),
}

/// What to do with the service.
#[cfg(windows)]
#[derive(Debug, Clone, Subcommand)]
pub enum ServiceCommand {
    /// Install the service, or change it: this program, from where it is now, starts with Windows,
    /// and again after a failure. It writes its log to the event log.
    Install(ServiceConfigArgs),
    /// Stop the service and remove it; its files stay.
    Uninstall,
    /// Start the service, and wait until it runs.
    Start,
    /// Stop the service, and wait for its end.
    Stop,
    /// Have the service read its configuration file again: targets, echo, session, max-streams and
    /// allow-cloud change at once. The event log says what changed.
    Reload,
    /// What the service manager runs.
    #[command(hide = true)]
    Run(ServiceConfigArgs),
}

/// The service's configuration.
#[cfg(windows)]
#[derive(Debug, Clone, Args)]
pub struct ServiceConfigArgs {
    /// The configuration file [default: device-proxy.toml in %ProgramData%\device-streams, as
    /// `device-proxy enrol` writes it for administrators].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Options of `doctor`.
#[derive(Debug, Clone, Args)]
pub struct DoctorArgs {
    /// How device-proxy is to be called.
    #[command(flatten)]
    pub options: Options,

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

    /// Do not open a hub session: it would take the place of that of a device-proxy that runs.
    #[arg(long)]
    pub no_connect: bool,
}

/// Options of `enrol`.
#[derive(Debug, Clone, Args)]
pub struct EnrolArgs {
    /// The code, as `stream-hub enrol` prints it; `-` reads it from stdin
    /// [env: DEVICE_PROXY_ENROLMENT].
    #[arg(value_name = "CODE@HUB")]
    pub code: Option<Secret>,

    /// The id that this device gets [default: the code's, else this machine's name].
    #[arg(long, value_name = "ID")]
    pub device: Option<DeviceId>,

    /// A target, by the name of the streams that reach it. Repeatable [default: ssh, port 22 of
    /// this machine; on Windows rdp, port 3389].
    #[arg(long, value_name = "[NAME=]HOST:PORT")]
    pub target: Vec<String>,

    /// Reach the hub through this proxy, now and later: as device-proxy's own option; a URL with a
    /// password is not written down.
    #[arg(long, value_name = "URL")]
    pub proxy: Option<Secret>,

    /// File with USER:PASSWORD for the proxy.
    #[arg(long, value_name = "FILE")]
    pub proxy_auth_file: Option<PathBuf>,

    /// Hosts that are reached without the proxy.
    #[arg(long, value_name = "HOSTS")]
    pub no_proxy: Option<String>,

    /// Where to write the configuration file, key and certificate [default: /etc/device-streams
    /// for root, else ~/.config/device-streams; on Windows %ProgramData%\device-streams for
    /// administrators, else %APPDATA%\device-streams].
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,

    /// Replace the configuration file of an earlier enrolment.
    #[arg(long)]
    pub force: bool,

    /// Only write the files. Otherwise device-proxy starts: as the service of its package if that
    /// is installed, else in the foreground.
    #[arg(long)]
    pub no_start: bool,

    /// off, error, warn, info, debug or trace [default: info].
    #[arg(long, value_name = "LEVEL", value_parser = settings::log_level)]
    pub log_level: Option<LevelFilter>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_stand_before_or_after_the_arguments() {
        let parse = |line: &[&str]| Cli::try_parse_from([&["device-proxy"], line].concat());
        for line in [
            ["--echo", "cs", "localhost", "22"],
            ["cs", "localhost", "22", "--echo"],
            ["cs", "--echo", "localhost", "22"],
        ] {
            let cli = parse(&line).unwrap();
            assert!(cli.options.echo);
            assert_eq!(cli.options.positional.len(), 3);
        }
        assert!(parse(&["a", "b", "c", "d"]).is_err());
        assert_eq!(parse(&[]).unwrap().options.session, None);
        let never = parse(&["--session", "never"]).unwrap();
        assert_eq!(never.options.session, Some(SessionMode::Never));
        assert!(parse(&["--session", "sometimes"]).is_err());
    }

    #[test]
    fn debug_output_hides_the_secret() {
        let cli =
            Cli::try_parse_from(["device-proxy", "HostName=h;SharedAccessKey=topsecret"]).unwrap();
        assert!(!format!("{cli:?}").contains("topsecret"));
        let proxy = ["device-proxy", "--proxy", "http://ada:topsecret@proxy:1"];
        let cli = Cli::try_parse_from(proxy).unwrap();
        assert!(!format!("{cli:?}").contains("topsecret"));
    }
}
