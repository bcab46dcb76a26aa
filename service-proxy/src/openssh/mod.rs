//! The system's OpenSSH, which reaches devices by a ProxyCommand that is this program's own `connect`:
//! a session by device id, and a configuration for ssh by which devices are hosts.

mod error;
mod host_block;
mod include;
pub mod proxy_command;
mod session;

pub use self::error::OpensshError;
pub use self::session::run as session;

use common::output;

use self::include::SshFolder;
use crate::cli::SshConfigAction;
use crate::config::SshConfigConfig;

/// Prints the block for ssh's configuration, or installs or removes it. Blocks for some file
/// operations.
///
/// # Errors
/// [`OpensshError`] names the file at fault.
pub fn config(config: &SshConfigConfig) -> Result<(), OpensshError> {
    match config.action {
        SshConfigAction::Print => {
            output::stdout().text(&host_block::text(config)?);
        }
        SshConfigAction::Install => {
            let folder = SshFolder::of_user()?;
            let done = folder.install(&host_block::text(config)?)?;
            output::stdout().text(&done);
        }
        SshConfigAction::Uninstall => {
            let done = SshFolder::of_user()?.uninstall()?;
            output::stdout().text(&done);
        }
    }
    Ok(())
}
