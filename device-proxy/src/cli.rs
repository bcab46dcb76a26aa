//! Arguments; the help text is the manual.

use std::path::PathBuf;

use crate::transport::Transport;
use clap::Parser;
use common::secret::Secret;
use common::session_mode::SessionMode;
use common::streaming_hosts::Patterns;
use tracing::level_filters::LevelFilter;

const EXAMPLES: &str = "\
The connection string holds a key, and arguments are visible to other users of this
machine: prefer --connection-string-file or the environment.

Examples:
  IOTHUB_DEVICE_CONNECTION_STRING=\"$(cat device.cs)\" device-proxy localhost 22
  device-proxy --connection-string-file device.cs --target ssh=localhost:22 --target rdp=10.0.0.5:3389
  device-proxy --connection-string-file device.cs --echo

Environment: IOTHUB_DEVICE_CONNECTION_STRING (or IOTHUB_DEVICE_CONN_STRING),
REMOTE_HOST_NAME, REMOTE_PORT.";

/// Takes device streams from an IoT hub and pipes each to a local TCP service.
///
/// Connects out to the hub, and never opens a port. The name of a stream selects its
/// target: exact name first, then the unnamed target, else the stream is rejected.
#[derive(Debug, Parser)]
#[command(name = "device-proxy", version, after_help = EXAMPLES)]
#[command(override_usage = "device-proxy [OPTIONS] [CONNECTION_STRING] [HOST] [PORT]")]
pub struct Cli {
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
    /// other streams. Repeatable. IPv6 in brackets.
    #[arg(long, value_name = "[NAME=]HOST:PORT")]
    pub target: Vec<String>,

    /// Also serve a built-in echo target named `echo`; alone, every stream echoes.
    #[arg(long)]
    pub echo: bool,

    /// How to reach the hub.
    #[arg(long, value_enum, default_value_t = Transport::MqttWs)]
    pub transport: Transport,

    /// Session mode: many connections in one stream that outlives network failures
    /// (auto: with peers that can; always: refuse plain streams; never: plain streams
    /// only).
    #[arg(long, value_enum, value_name = "MODE", env = "DEVICE_PROXY_SESSION", default_value_t = SessionMode::Auto)]
    pub session: SessionMode,

    /// How many seconds a session is kept while no stream carries it.
    #[arg(long, value_name = "SECONDS", env = "DEVICE_PROXY_SESSION_GRACE", default_value_t = common::limits::SESSION_GRACE.as_secs())]
    pub session_grace: u64,

    /// How many MiB all sessions may hold in memory (default: an eighth of the machine's, 64
    /// to 1024).
    #[arg(long, value_name = "MIB", env = "DEVICE_PROXY_MEMORY", value_parser = clap::value_parser!(u32).range(1..))]
    pub memory: Option<u32>,

    /// Port of `--transport mqtt`.
    #[arg(long, value_name = "PORT", default_value_t = common::hub_address::MQTTS_PORT)]
    pub mqtts_port: u16,

    /// PEM file of CA certificates to trust in addition to the system's.
    #[arg(long, value_name = "FILE", env = "DEVICE_PROXY_CA_FILE")]
    pub ca_file: Option<PathBuf>,

    /// PEM file of the client certificate, for connection strings with `x509=true`.
    #[arg(long, value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,

    /// PEM file of the client certificate's private key.
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,

    /// Where streams may lead instead of the hub's own host (for a hub in Azure: its domain);
    /// NAME[:PORT], *.DOMAIN[:PORT] or *, with commas between. A stream to another host is
    /// rejected.
    #[arg(long, value_name = "HOSTS", env = "DEVICE_PROXY_STREAMING_HOSTS")]
    pub streaming_hosts: Option<Patterns>,

    /// Streams at once; more are rejected.
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = crate::limits::STREAMS_PER_DEVICE as u32,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    pub max_streams: u32,

    /// Print the official samples' lines on stdout.
    #[arg(long)]
    pub sample_output: bool,

    /// off, error, warn, info, debug or trace.
    #[arg(long, value_name = "LEVEL", env = "DEVICE_PROXY_LOG", default_value_t = LevelFilter::INFO)]
    pub log_level: LevelFilter,
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
            assert!(cli.echo);
            assert_eq!(cli.positional.len(), 3);
        }
        assert!(parse(&["a", "b", "c", "d"]).is_err());
        assert!(parse(&["--cert", "c.pem"]).is_err());
        assert_eq!(parse(&[]).unwrap().session, SessionMode::Auto);
        let never = parse(&["--session", "never"]).unwrap();
        assert_eq!(never.session, SessionMode::Never);
        assert!(parse(&["--session", "sometimes"]).is_err());
    }

    #[test]
    fn debug_output_hides_the_secret() {
        let cli =
            Cli::try_parse_from(["device-proxy", "HostName=h;SharedAccessKey=topsecret"]).unwrap();
        assert!(!format!("{cli:?}").contains("topsecret"));
    }
}
