//! `device` and `module`: identities.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use common::identity::{DeviceId, ModuleId};
use common::secret::Secret;

use super::{Form, WhichKey};
use crate::registry::Thumbprint;

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

    /// It will use a certificate that a CA of `stream-hub ca` has signed, instead of keys; the
    /// certificate's common name is DEVICE, of a module DEVICE/MODULE.
    #[arg(long, conflicts_with_all = ["x509_thumbprint", "primary_key", "primary_key_file"])]
    pub x509_ca: bool,

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

fn thumbprint(text: &str) -> Result<Thumbprint, &'static str> {
    Thumbprint::parse(text).ok_or("a thumbprint has 40 (SHA-1) or 64 (SHA-256) hex digits")
}
