//! `enrol --login`: service-proxy on the hub's own machine gets its connection string, with a code
//! that goes from one program to the other.
//!
//! It runs before an admin command of root's takes the rights of the data folder's owner: the files
//! are for the person at the keyboard.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::secret::Secret;

/// The option, which must not be carried out a second time.
pub const OPTION: &str = "--login";
/// The program that logs in.
const PROGRAM: &str = "service-proxy";
/// How long its code is valid: it is used at once.
const TTL: &str = "2m";

/// Why there is no login on this machine.
#[derive(Debug, thiserror::Error)]
pub enum LocalLoginError {
    /// The code was not made.
    #[error("cannot make a code for this machine's service-proxy")]
    Code(#[source] io::Error),
    /// The code was not made, for the reason that was printed.
    #[error("there is no code for this machine's service-proxy")]
    NoCode,
    /// service-proxy cannot be run.
    #[error(
        "cannot run {PROGRAM} on this machine; install it, or leave {OPTION} out and use `stream-hub enrol --operator` for another machine"
    )]
    Run(#[source] io::Error),
    /// service-proxy did not log in, for the reason that it printed.
    #[error(
        "{PROGRAM} did not log in, for the reason above; without {OPTION} a device gets its code all the same"
    )]
    Failed,
}

/// Makes a code for an operator at the hub of this data folder, and has service-proxy use it: for
/// the user that called sudo, if it was sudo. Blocks, for as long as service-proxy tries.
///
/// # Errors
/// [`LocalLoginError`].
pub fn run(data_dir: &Path) -> Result<(), LocalLoginError> {
    let own = std::env::current_exe().map_err(LocalLoginError::Code)?;
    let made = Command::new(&own)
        .args(["enrol", "--operator", "--ttl", TTL, "--data-dir"])
        .arg(data_dir)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .map_err(LocalLoginError::Code)?;
    if !made.status.success() {
        // Best effort: the exit code says the rest.
        let _ = io::stderr().write_all(&made.stderr);
        return Err(LocalLoginError::NoCode);
    }
    let code = String::from_utf8(made.stdout).map_err(|_| LocalLoginError::NoCode)?;
    redeem(&beside(&own), &Secret::new(code))
}

fn redeem(program: &Path, code: &Secret) -> Result<(), LocalLoginError> {
    let mut command = match person() {
        Some(person) => {
            let mut command = Command::new("sudo");
            command
                .args(["-H", "-u"])
                .arg(person)
                .arg("--")
                .arg(program);
            command
        }
        None => Command::new(program),
    };
    let mut child = command
        .args(["login", "-"])
        .stdin(Stdio::piped())
        // Standard output is for the device's code.
        .stdout(io::stderr())
        .spawn()
        .map_err(LocalLoginError::Run)?;
    let written = child.stdin.take().map_or(Ok(()), |mut stdin| {
        stdin.write_all(code.expose().as_bytes())
    });
    let status = child.wait().map_err(LocalLoginError::Run)?;
    if !status.success() {
        return Err(LocalLoginError::Failed);
    }
    written.map_err(LocalLoginError::Run)
}

/// service-proxy where this program is, or else where the shell would look for it.
fn beside(own: &Path) -> PathBuf {
    let name = format!("{PROGRAM}{}", std::env::consts::EXE_SUFFIX);
    let beside = own.with_file_name(&name);
    if beside.exists() { beside } else { name.into() }
}

/// The user that called sudo, if root is somebody's.
fn person() -> Option<OsString> {
    #[cfg(unix)]
    if rustix::process::geteuid().is_root() {
        return std::env::var_os("SUDO_USER").filter(|user| !user.is_empty() && user != "root");
    }
    None
}
