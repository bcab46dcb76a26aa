//! The command line of `stream-hub`: arguments only. What is not given is found in
//! [`crate::config`]; what the commands do is in [`crate::commands`], and for `serve` in the server.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use common::hub_address::HubAddress;
use common::identity::{DeviceId, ModuleId};
use common::secret::Secret;
use common::settings;
use tracing::level_filters::LevelFilter;

use crate::listen::{Listen, ListenOrOff};
use crate::registry::Thumbprint;

/// A self-hosted hub for device streams, wire-compatible with Azure IoT Hub.
#[derive(Debug, Parser)]
#[command(name = "stream-hub", version, arg_required_else_help = true)]
pub struct Cli {
    /// The folder with the hub's database, keys and certificates; made when missing
    /// [default: ./hub-data] [env: STREAM_HUB_DATA_DIR].
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// How much to log on stderr: off, error, warn, info, debug or trace
    /// [default: info] [env: STREAM_HUB_LOG].
    #[arg(long, global = true, value_name = "LEVEL", value_parser = settings::log_level)]
    pub log_level: Option<LevelFilter>,

    /// TOML file with settings, named as these options and those of `serve`; what an option or
    /// the environment says counts more [env: STREAM_HUB_CONFIG].
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the hub.
    Serve(ServeArgs),
    #[command(flatten)]
    Admin(AdminCommand),
}

/// Commands on a data folder, also while a hub serves it.
#[derive(Debug, Clone, Subcommand)]
pub enum AdminCommand {
    /// Make, look at and remove devices.
    #[command(subcommand, arg_required_else_help = true)]
    Device(DeviceCommand),
    /// Make, look at and remove the modules of a device.
    #[command(subcommand, arg_required_else_help = true)]
    Module(ModuleCommand),
    /// Look at the shared access policies, whose keys services use.
    #[command(subcommand, arg_required_else_help = true)]
    Policy(PolicyCommand),
    /// Print a one-time code, with which `device-proxy enrol` registers a device and
    /// `service-proxy login` gets an operator's connection string.
    Enrol(EnrolArgs),
    /// Print the streaming endpoints, as JSON.
    Endpoints {
        /// JSON it is anyway.
        #[command(flatten)]
        form: Form,
    },
}

/// Options of `serve`.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// The address that connection strings, certificates and streaming URLs carry, kept
    /// in the data folder [default: the name of the last time, at first localhost; the port
    /// of --https] [env: STREAM_HUB_HOSTNAME].
    #[arg(long, value_name = "NAME[:PORT]", value_parser = HubAddress::parse)]
    pub hostname: Option<HubAddress>,

    /// Where to listen for HTTPS and WebSockets: IP:PORT, or a port on all addresses
    /// [default: :443].
    #[arg(long, value_name = "ADDR")]
    pub https: Option<Listen>,

    /// Where to listen for MQTT over TLS; `off` for nowhere [default: :8883].
    #[arg(long, value_name = "ADDR|off")]
    pub mqtts: Option<ListenOrOff>,

    /// Where to listen for clients of AMQP, which the hub does not speak yet, to tell them so
    /// at once; `off` for nowhere [default: port 5671 beside an --mqtts on 8883, if it is
    /// free; else off].
    #[arg(long, value_name = "ADDR|off")]
    pub amqps: Option<ListenOrOff>,

    /// PEM file of the TLS certificate, and of intermediates behind it [default: one
    /// that the hub's own CA signs, see DIR/tls/ca.pem].
    #[arg(long, value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,

    /// PEM file of the certificate's private key.
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// Only check the options, the environment and the files that they name: exit code 0 if
    /// a hub could start with them, else 2.
    #[arg(long)]
    pub check_config: bool,
}

/// Options of `enrol`.
#[derive(Debug, Clone, Args)]
pub struct EnrolArgs {
    /// How long the code is valid, 1m to 30d.
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = ttl)]
    pub ttl: Duration,

    /// The device that may redeem it; one that exists gets a new certificate. Without this, the
    /// code is for any device that does not exist yet.
    #[arg(long, value_name = "ID")]
    pub device: Option<DeviceId>,

    /// It is for an operator, who gets the connection string of a shared access policy.
    #[arg(long, conflicts_with = "device")]
    pub operator: bool,

    /// The operator's shared access policy.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "service",
        requires = "operator"
    )]
    pub policy: String,

    /// Print no code, but revoke all that were not redeemed yet.
    #[arg(long, conflicts_with_all = ["device", "operator", "policy", "ttl"])]
    pub revoke: bool,
}

/// `device …`
#[derive(Debug, Clone, Subcommand)]
pub enum DeviceCommand {
    /// Make a device and print its connection string.
    Create(DeviceCreateArgs),
    /// List the devices; no keys.
    List {
        #[command(flatten)]
        form: Form,
    },
    /// Show a device; its keys only with --json.
    Show {
        /// The device.
        #[arg(value_name = "ID")]
        id: DeviceId,
        #[command(flatten)]
        form: Form,
    },
    /// Print a device's connection string.
    ConnectionString {
        /// The device.
        #[arg(value_name = "ID")]
        id: DeviceId,
        #[command(flatten)]
        key: WhichKey,
    },
    /// Let a device connect again.
    Enable {
        /// The device.
        #[arg(value_name = "ID")]
        id: DeviceId,
    },
    /// Let a device not connect, and end its session and streams.
    Disable {
        /// The device.
        #[arg(value_name = "ID")]
        id: DeviceId,
    },
    /// Remove a device and its modules, and end its session and streams.
    Delete {
        /// The device.
        #[arg(value_name = "ID")]
        id: DeviceId,
    },
}

/// Options of `device create`.
#[derive(Debug, Clone, Args)]
pub struct DeviceCreateArgs {
    /// The device: letters, digits and - . + % _ # * ? ! ( ) , : = @ $ '
    #[arg(value_name = "ID")]
    pub id: DeviceId,
    #[command(flatten)]
    pub credential: CredentialArgs,
    /// Make it disabled.
    #[arg(long)]
    pub disabled: bool,
    #[command(flatten)]
    pub form: Form,
}

/// How a new identity proves itself; random keys without any option.
#[derive(Debug, Clone, Args, Default)]
pub struct CredentialArgs {
    /// SHA-1 or SHA-256 thumbprint of the certificate it will use instead of keys; give
    /// it twice for a second certificate.
    #[arg(
        long,
        value_name = "HEX",
        value_parser = thumbprint,
        conflicts_with_all = ["primary_key", "primary_key_file"]
    )]
    pub x509_thumbprint: Vec<Thumbprint>,

    /// Its primary key, base64 of 16 to 64 bytes. Other users see the command line:
    /// better give a file or the environment variable [env: STREAM_HUB_PRIMARY_KEY].
    #[arg(long, value_name = "BASE64", conflicts_with = "primary_key_file")]
    pub primary_key: Option<Secret>,

    /// A file with its primary key.
    #[arg(long, value_name = "FILE")]
    pub primary_key_file: Option<PathBuf>,
}

/// `module …`
#[derive(Debug, Clone, Subcommand)]
pub enum ModuleCommand {
    /// Make a module and print its connection string.
    Create {
        #[command(flatten)]
        id: ModuleArgs,
        #[command(flatten)]
        credential: CredentialArgs,
        #[command(flatten)]
        form: Form,
    },
    /// List a device's modules; no keys.
    List {
        /// The device.
        #[arg(value_name = "DEVICE")]
        device: DeviceId,
        #[command(flatten)]
        form: Form,
    },
    /// Show a module; its keys only with --json.
    Show {
        #[command(flatten)]
        id: ModuleArgs,
        #[command(flatten)]
        form: Form,
    },
    /// Print a module's connection string.
    ConnectionString {
        #[command(flatten)]
        id: ModuleArgs,
        #[command(flatten)]
        key: WhichKey,
    },
    /// Remove a module, and end its session and streams.
    Delete {
        #[command(flatten)]
        id: ModuleArgs,
    },
}

/// A module on a device.
#[derive(Debug, Clone, Args)]
pub struct ModuleArgs {
    /// The device.
    #[arg(value_name = "DEVICE")]
    pub device: DeviceId,
    /// The module.
    #[arg(value_name = "MODULE")]
    pub module: ModuleId,
}

/// `policy …`
#[derive(Debug, Clone, Subcommand)]
pub enum PolicyCommand {
    /// List the policies and what they allow; no keys.
    List {
        #[command(flatten)]
        form: Form,
    },
    /// Print a policy's connection string, for a service.
    ConnectionString {
        /// The policy, for instance `service`.
        #[arg(value_name = "NAME")]
        name: String,
        #[command(flatten)]
        key: WhichKey,
    },
}

/// How to print.
#[derive(Debug, Clone, Copy, Args, Default)]
pub struct Form {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Which of two keys.
#[derive(Debug, Clone, Copy, Args, Default)]
pub struct WhichKey {
    /// With the secondary key instead of the primary one.
    #[arg(long)]
    pub secondary: bool,
}

/// How long a code may be valid.
const TTL: RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(30 * 86_400);

fn ttl(text: &str) -> Result<Duration, String> {
    let ttl = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if TTL.contains(&ttl) {
        Ok(ttl)
    } else {
        Err("give a time from 1m to 30d".to_owned())
    }
}

fn thumbprint(text: &str) -> Result<Thumbprint, &'static str> {
    Thumbprint::parse(text).ok_or("a thumbprint has 40 (SHA-1) or 64 (SHA-256) hex digits")
}

#[cfg(test)]
mod tests;
