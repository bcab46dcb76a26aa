//! device-proxy as a service of Windows: installed and controlled by its own commands, run by the
//! service manager, with its log in the event log.
//!
//! The service runs as LocalService, which may do next to nothing, and not as the system. A SID of
//! its own lets it read the machine's configuration, and lets other services of that account not.

mod control;
mod run;

use std::io;
use std::path::Path;

use common::files;

use crate::config;

pub use self::control::{can_install, carry_out, is_installed, restart};
pub use self::run::run;

/// The service's name, also as the source of events.
pub const NAME: &str = "device-proxy";

/// The order to read the configuration again: one of those that a service may define.
const RELOAD: u32 = 128;

/// The SID of a service of this name, as `sc showsid device-proxy` prints it.
const SID: &str = "S-1-5-80-3941375721-2985571842-1726683894-2118500102-1833284655";

/// Has the folder of the machine's configuration belong to the administrators, and lets only the
/// service read it beside them. Any user may have made it before: a key without a configuration is
/// only kept if the folder is known to have been closed already. Blocks.
///
/// # Errors
/// Any error of the file system, also when this process is no administrator's.
pub fn close_folder(folder: &Path, is_closed: bool) -> io::Result<()> {
    files::take_over(folder, &[SID])?;
    let key = folder.join(config::KEY_FILE);
    if !is_closed && key.exists() && !folder.join(config::FILE).exists() {
        std::fs::remove_file(key)?;
    }
    Ok(())
}

/// Why a command did not work.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The service manager refuses, or a call fails.
    #[error("cannot {doing} the service {NAME}{}", hint(source))]
    Manager {
        /// What was asked for.
        doing: &'static str,
        /// Why not.
        source: windows_service::Error,
    },
    /// The service ended at once.
    #[error("the service {NAME} ended with code {0}; the event log (source {NAME}) says why")]
    Ended(u32),
    /// The service is not where it should be in time.
    #[error("the service {NAME} has not {0} within {limit} s", limit = control::PATIENCE.as_secs())]
    Slow(&'static str),
    /// The path of this program or of its configuration cannot be found out.
    #[error("cannot find out the path of {0}")]
    Path(&'static str, #[source] io::Error),
    /// Events cannot be announced.
    #[error("cannot register {NAME} as a source of the event log")]
    Events(#[from] eventlog::Error),
    /// The folder of its configuration cannot be closed.
    #[error("cannot close the folder of the configuration")]
    Folder(#[source] io::Error),
    /// Started by hand.
    #[error("`service run` is for the service manager; use `device-proxy service start`")]
    ByHand,
}

/// What to do about an error of the service manager (winerror.h).
fn hint(error: &windows_service::Error) -> &'static str {
    match code(error) {
        Some(ACCESS_DENIED) => " (administrators may: \"Run as administrator\")",
        Some(DOES_NOT_EXIST) => " (`device-proxy service install` installs it)",
        Some(MARKED_FOR_DELETE) => " (it is being removed: close the windows that show services)",
        _ => "",
    }
}

const ACCESS_DENIED: i32 = 5;
const INVALID_LEVEL: i32 = 124;
const ALREADY_RUNNING: i32 = 1056;
const DOES_NOT_EXIST: i32 = 1060;
const NOT_ACTIVE: i32 = 1062;
const NOT_BY_MANAGER: i32 = 1063;
const MARKED_FOR_DELETE: i32 = 1072;
const EXISTS: i32 = 1073;

fn code(error: &windows_service::Error) -> Option<i32> {
    match error {
        windows_service::Error::Winapi(error) => error.raw_os_error(),
        _ => None,
    }
}
