//! `audit`: looking after the audit log.

use std::path::PathBuf;

use clap::Subcommand;
use common::identity::DeviceId;

use super::Form;

/// `audit …`
#[derive(Debug, Clone, Subcommand)]
pub enum AuditCommand {
    /// Check that nothing in the audit log was changed, removed, added or cut off: exit code 0 if
    /// so, else 1, with the first line that is wrong.
    Verify {
        /// Files of the log, or of a part of it; without any all files of the hub of the data
        /// folder are checked, with their beginning and their end.
        #[arg(value_name = "FILE")]
        files: Vec<PathBuf>,
        /// PEM file of the key that it is signed with, as `audit key` prints it [default: that of
        /// the data folder].
        #[arg(long, value_name = "FILE", requires = "files")]
        key: Option<PathBuf>,
        #[command(flatten)]
        form: Form,
    },
    /// Print the public key that the log is signed with, as PEM: keep it where the hub's machine
    /// cannot change it.
    Key,
    /// Print the last records.
    Tail {
        /// How many.
        #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 20)]
        lines: usize,
        /// Only those about this device.
        #[arg(long, value_name = "ID")]
        device: Option<DeviceId>,
    },
}
