//! The command line of `stream-hub`. What it does is in
//! [`crate::commands`], and for `serve` in the server.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::builder::TypedValueParser as _;
use clap::{Args, Parser, Subcommand};
use common::hub_address::{AMQPS_PORT, HTTPS_PORT, HubAddress, HubAddressError, MQTTS_PORT};
use common::identity::{DeviceId, ModuleId};
use common::secret::Secret;
use tracing::level_filters::LevelFilter;

use crate::config::{AmqpsListen, CertificateSource, ServeConfig};
use crate::registry::Thumbprint;

mod listen;

pub use listen::{Listen, ListenOrOff};

/// A self-hosted hub for device streams, wire-compatible with Azure IoT Hub.
#[derive(Debug, Parser)]
#[command(name = "stream-hub", version, arg_required_else_help = true)]
pub struct Cli {
    /// The folder with the hub's database, keys and certificates; made when missing.
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "STREAM_HUB_DATA_DIR",
        default_value = "./hub-data"
    )]
    pub data_dir: PathBuf,

    /// How much to log on stderr.
    #[arg(
        long,
        global = true,
        value_name = "LEVEL",
        env = "STREAM_HUB_LOG",
        default_value = "info",
        ignore_case = true,
        value_parser = PossibleValuesParser::new(["off", "error", "warn", "info", "debug", "trace"])
            .try_map(|level| level.parse::<LevelFilter>())
    )]
    pub log_level: LevelFilter,

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
    /// of --https].
    #[arg(
        long,
        value_name = "NAME[:PORT]",
        env = "STREAM_HUB_HOSTNAME",
        value_parser = hub_address
    )]
    pub hostname: Option<HubAddress>,

    /// Where to listen for HTTPS and WebSockets: IP:PORT, or a port on all addresses.
    #[arg(long, value_name = "ADDR", default_value_t = Listen::everywhere(HTTPS_PORT))]
    pub https: Listen,

    /// Where to listen for MQTT over TLS; `off` for nowhere.
    #[arg(
        long,
        value_name = "ADDR|off",
        default_value_t = ListenOrOff(Some(Listen::everywhere(MQTTS_PORT)))
    )]
    pub mqtts: ListenOrOff,

    /// Where to listen for clients of AMQP, which the hub does not speak yet, to tell them so
    /// at once; `off` for nowhere [default: port 5671 beside an --mqtts on 8883, if it is
    /// free; else off].
    #[arg(long, value_name = "ADDR|off")]
    pub amqps: Option<ListenOrOff>,

    /// PEM file of the TLS certificate, and of intermediates behind it [default: one
    /// that the hub's own CA signs, see DIR/tls/ca.pem].
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// PEM file of the certificate's private key.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
}

impl ServeArgs {
    /// The whole configuration of a hub in this data folder.
    pub fn into_config(self, data_dir: PathBuf) -> ServeConfig {
        ServeConfig {
            data_dir,
            hostname: self.hostname,
            https: self.https.socket_address(),
            mqtts: self.mqtts.0.map(Listen::socket_address),
            amqps: match (self.amqps, self.mqtts.0) {
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
            certificate: match (self.tls_cert, self.tls_key) {
                (Some(certificate), Some(key)) => CertificateSource::Files { certificate, key },
                // Each requires the other.
                _ => CertificateSource::Managed,
            },
        }
    }
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

/// How a new identity is to prove itself; random keys without any option.
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
    /// better give a file or the environment variable.
    #[arg(
        long,
        value_name = "BASE64",
        env = "STREAM_HUB_PRIMARY_KEY",
        hide_env_values = true,
        conflicts_with = "primary_key_file"
    )]
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

fn hub_address(text: &str) -> Result<HubAddress, HubAddressError> {
    HubAddress::parse(text)
}

fn thumbprint(text: &str) -> Result<Thumbprint, &'static str> {
    Thumbprint::parse(text).ok_or("a thumbprint has 40 (SHA-1) or 64 (SHA-256) hex digits")
}

#[cfg(test)]
mod tests;
