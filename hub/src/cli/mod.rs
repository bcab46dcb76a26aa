//! The command line of `stream-hub`: arguments only. What is not given is found in
//! [`crate::config`]; what the commands do is in [`crate::commands`], and for `serve` in the server.

mod access;
mod audit;
mod authority;
mod identity;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use common::admin::AdminListen;
use common::hub_address::HubAddress;
use common::settings;
use common::telemetry::LogFormat;
use http::Uri;
use http::uri::Scheme;
use tracing::level_filters::LevelFilter;

use crate::events::audit::WhenFull;
use crate::listen::{Listen, ListenOrOff};

pub use self::access::{ApprovalsCommand, EnrolArgs, TokenCommand, TokenCreateArgs};
pub use self::audit::AuditCommand;
pub use self::authority::{CaAddArgs, CaCommand};
pub use self::identity::{
    CredentialArgs, DeviceCommand, DeviceCreateArgs, ModuleArgs, ModuleCommand,
};

/// A self-hosted hub for device streams, wire-compatible with Azure IoT Hub.
#[derive(Debug, Clone, Parser)]
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

    /// How a line of the log on stderr is written: text, or json, an object a line
    /// [default: text] [env: STREAM_HUB_LOG_FORMAT].
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        value_enum,
        hide_possible_values = true
    )]
    pub log_format: Option<LogFormat>,

    /// TOML file with settings, named as these options and those of `serve`; what an option or
    /// the environment says counts more [env: STREAM_HUB_CONFIG].
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Clone, Subcommand)]
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
    /// Make, look at and remove shared access policies, whose keys services use.
    #[command(subcommand, arg_required_else_help = true)]
    Policy(PolicyCommand),
    /// Register the CAs that sign the certificates of devices, look at them and remove them.
    #[command(subcommand, arg_required_else_help = true)]
    Ca(CaCommand),
    /// Print a one-time code, with which `device-proxy enrol` registers a device and
    /// `service-proxy login` gets an operator's connection string.
    Enrol(EnrolArgs),
    /// Print a SAS token for one device, for a time: what an operator gets instead of a connection
    /// string.
    #[command(subcommand, arg_required_else_help = true)]
    Token(TokenCommand),
    /// Decide requests for access that the access file has somebody approve.
    #[command(subcommand, arg_required_else_help = true)]
    Approvals(ApprovalsCommand),
    /// Verify the audit log, or print the key that it is signed with.
    #[command(subcommand, arg_required_else_help = true)]
    Audit(AuditCommand),
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

    /// Where to answer /metrics (for Prometheus), /healthz and /readyz, in plain HTTP to anyone
    /// who asks: a port on 127.0.0.1, IP:PORT of this machine alone, or off; for others to reach
    /// it, open:IP:PORT [default: off] [env: STREAM_HUB_ADMIN].
    #[arg(long, value_name = "ADDR|off")]
    pub admin: Option<AdminListen>,

    /// PEM file of the TLS certificate, and of intermediates behind it [default: that of
    /// --acme, else one that the hub's own CA signs, see DIR/tls/ca.pem].
    #[arg(long, value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,

    /// PEM file of the certificate's private key.
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// Get the TLS certificate from a CA by ACME, Let's Encrypt, and renew it. The CA comes to
    /// port 443 of --hostname (TLS-ALPN-01). This agrees to the CA's terms of service.
    #[arg(long)]
    pub acme: bool,

    /// The CA of --acme, by the URL of its ACME directory
    /// [default: https://acme-v02.api.letsencrypt.org/directory].
    #[arg(long, value_name = "URL", value_parser = acme_directory)]
    pub acme_directory: Option<String>,

    /// Where the CA of --acme reaches you, an e-mail address mostly; can be given more than once.
    #[arg(long, value_name = "mailto:ADDRESS")]
    pub acme_contact: Vec<String>,

    /// PEM file of root certificates by which the CA of --acme is verified, beside the system's.
    /// Enrolment gives those that have signed the hub's certificate to devices and operators.
    #[arg(long, value_name = "FILE")]
    pub acme_ca_file: Option<PathBuf>,

    /// Where the audit log goes: a file, `stdout`, or `off`; give it twice for a file and stdout. In
    /// the file it is a chain that `stream-hub audit verify` checks [default: off].
    #[arg(long, value_name = "FILE|stdout|off")]
    pub audit_log: Vec<String>,

    /// What becomes of new streams while the audit log cannot be written, as on a full disk: they
    /// are refused (stop), or opened all the same (continue) [default: stop].
    #[arg(
        long,
        value_enum,
        value_name = "stop|continue",
        hide_possible_values = true
    )]
    pub audit_full: Option<WhenFull>,

    /// Only check the options, the environment and the files that they name: exit code 0 if
    /// a hub could start with them, else 2.
    #[arg(long)]
    pub check_config: bool,
}

impl AdminCommand {
    /// Its name, without what it is about.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Device(DeviceCommand::Create(_)) => "device create",
            Self::Device(DeviceCommand::Enable { .. }) => "device enable",
            Self::Device(DeviceCommand::Disable { .. }) => "device disable",
            Self::Device(DeviceCommand::Delete { .. }) => "device delete",
            Self::Device(_) => "device",
            Self::Module(ModuleCommand::Create { .. }) => "module create",
            Self::Module(ModuleCommand::Delete { .. }) => "module delete",
            Self::Module(_) => "module",
            Self::Policy(PolicyCommand::Create { .. }) => "policy create",
            Self::Policy(PolicyCommand::Delete { .. }) => "policy delete",
            Self::Policy(PolicyCommand::RegenerateKey { .. }) => "policy regenerate-key",
            Self::Policy(_) => "policy",
            Self::Enrol(_) => "enrol",
            Self::Token(TokenCommand::Create(_)) => "token create",
            Self::Token(TokenCommand::Revoke { .. }) => "token revoke",
            Self::Token(TokenCommand::LetIn { .. }) => "token let-in",
            Self::Token(_) => "token",
            Self::Ca(CaCommand::Add(_)) => "ca add",
            Self::Ca(CaCommand::Crl { .. }) => "ca crl",
            Self::Ca(CaCommand::Remove { .. }) => "ca remove",
            Self::Ca(_) => "ca",
            Self::Approvals(ApprovalsCommand::Grant { .. }) => "approvals grant",
            Self::Approvals(ApprovalsCommand::Refuse { .. }) => "approvals refuse",
            Self::Approvals(_) => "approvals",
            Self::Audit(_) => "audit",
            Self::Endpoints { .. } => "endpoints",
        }
    }
}

/// `policy …`
#[derive(Debug, Clone, Subcommand)]
pub enum PolicyCommand {
    /// List the policies and what they allow; no keys.
    List {
        #[command(flatten)]
        form: Form,
    },
    /// Make a policy with keys of its own, as for one person or one program: the logs name it, and
    /// without it none of its tokens is valid.
    Create {
        /// Letters, digits, `-`, `_` and `.`; 64 at most.
        #[arg(value_name = "NAME", value_parser = policy_name)]
        name: String,
        /// What its keys allow.
        #[arg(
            long,
            value_enum,
            value_name = "PERMISSION",
            value_delimiter = ',',
            ignore_case = true,
            default_value = "ServiceConnect"
        )]
        allow: Vec<PermissionName>,
    },
    /// Remove a policy: its connection strings and tokens are refused from then on, and device
    /// sessions that its keys opened end. Streams that are open go on.
    Delete {
        /// The policy.
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Make a new key in the place of one: what the other key signs stays valid.
    RegenerateKey {
        /// The policy.
        #[arg(value_name = "NAME")]
        name: String,
        /// The secondary key instead of the primary one.
        #[arg(long)]
        secondary: bool,
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

/// IoT Hub's words for what a policy allows, and one of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PermissionName {
    /// Read identities.
    #[value(name = "RegistryRead")]
    RegistryRead,
    /// Read and change identities.
    #[value(name = "RegistryReadWrite")]
    RegistryReadWrite,
    /// Initiate streams, read and write twins, call methods, run jobs, query, send messages.
    #[value(name = "ServiceConnect")]
    ServiceConnect,
    /// Connect as any device.
    #[value(name = "DeviceConnect")]
    DeviceConnect,
    /// Read and query twins, and nothing else: not a permission of IoT Hub's.
    #[value(name = "TwinRead")]
    TwinRead,
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

/// The URL of an ACME directory.
pub(crate) fn acme_directory(text: &str) -> Result<String, &'static str> {
    let is_https = |url: &Uri| url.scheme() == Some(&Scheme::HTTPS) && url.host().is_some();
    match text.parse().ok().filter(is_https) {
        Some(url) => Ok(url.to_string()),
        None => Err("give the https URL of an ACME directory"),
    }
}

fn policy_name(text: &str) -> Result<String, &'static str> {
    name(text).ok_or("a policy's name has 1 to 64 letters, digits, `-`, `_` and `.`")
}

/// A name of the operator's, of which lines and columns can be made.
fn name(text: &str) -> Option<String> {
    let is_fit = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let is_name = (1..=64).contains(&text.len()) && text.chars().all(is_fit);
    is_name.then(|| text.to_owned())
}

#[cfg(test)]
mod tests;
