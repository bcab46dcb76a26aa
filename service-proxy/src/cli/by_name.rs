//! Arguments of the commands that take devices as host names.

use std::ffi::OsString;

use clap::Args;
use common::identity::{DeviceId, StreamName};

use super::fleet::SshArgs;
use super::values::user;
use crate::forward::Place;
use crate::host_names::{PortTarget, Suffix};

/// Arguments of `socks`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct SocksArgs {
    /// Where to listen; on loopback unless an address is given; port 0 picks one [default: 1080].
    #[arg(value_name = "[BIND:]PORT")]
    pub place: Option<Place>,

    /// What host names of devices end with [default: device].
    #[arg(long, value_name = "NAME")]
    pub suffix: Option<Suffix>,

    /// Connections to PORT lead to TARGET. Repeatable; by default 22 leads to ssh, 80 to http, 443 to
    /// https, 3389 to rdp, 5900 to vnc, and any other port to the target that is called like it.
    #[arg(long = "port", value_name = "PORT=TARGET")]
    pub ports: Vec<PortTarget>,
}

/// Arguments of `ssh-config`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct SshConfigArgs {
    /// Write the block to ~/.ssh/device-streams.conf, and include that in the first line of
    /// ~/.ssh/config.
    #[arg(long, conflicts_with = "uninstall")]
    pub install: bool,

    /// Undo --install.
    #[arg(long)]
    pub uninstall: bool,

    /// What host names of devices end with [default: device].
    #[arg(long, value_name = "NAME")]
    pub suffix: Option<Suffix>,

    /// The stream name of the devices' SSH servers [default: ssh].
    #[arg(long, value_name = "NAME")]
    pub target: Option<StreamName>,
}

/// What `ssh-config` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SshConfigAction {
    /// Print the block.
    Print,
    /// Install it.
    Install,
    /// Remove it.
    Uninstall,
}

impl SshConfigArgs {
    /// What to do.
    pub fn action(&self) -> SshConfigAction {
        match (self.install, self.uninstall) {
            (true, _) => SshConfigAction::Install,
            (_, true) => SshConfigAction::Uninstall,
            _ => SshConfigAction::Print,
        }
    }
}

/// Arguments of `ssh`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct SshSessionArgs {
    /// The device.
    #[arg(value_name = "DEVICE")]
    pub device: DeviceId,

    #[command(flatten)]
    pub ssh: SshArgs,

    /// Options of ssh, and a command for the device.
    #[arg(value_name = "ARGUMENTS", last = true)]
    pub arguments: Vec<OsString>,
}

/// Arguments of `rdp`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct RdpArgs {
    /// The device.
    #[arg(value_name = "DEVICE")]
    pub device: DeviceId,

    /// The stream name of the device's RDP server [default: rdp].
    #[arg(long, value_name = "NAME")]
    pub target: Option<StreamName>,

    /// The user that the client logs in.
    #[arg(long, value_name = "NAME", value_parser = user)]
    pub user: Option<String>,

    /// The client, which is given the name of an .rdp file [default: mstsc on Windows, else xfreerdp3
    /// or xfreerdp].
    #[arg(long, value_name = "PROGRAM")]
    pub client: Option<String>,

    /// Further arguments of the client.
    #[arg(value_name = "ARGUMENTS", last = true)]
    pub arguments: Vec<OsString>,
}
