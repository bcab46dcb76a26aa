//! The service of the Debian package.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use super::{Place, Start};

/// The service's unit, as the package installs it.
const UNIT: &str = "device-proxy.service";
/// Where units of packages and of administrators are.
const UNIT_FOLDERS: [&str; 3] = [
    "/etc/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];
/// How long systemd may take to start it.
const STARTING: Duration = Duration::from_secs(30);

/// Why the service does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// systemctl cannot be run.
    #[error("cannot run systemctl to start {UNIT}")]
    Run(#[source] io::Error),
    /// It does not end.
    #[error("systemctl has not started {UNIT} within {} s; see `journalctl -u {UNIT}`", STARTING.as_secs())]
    Timeout,
    /// It failed.
    #[error("systemctl could not start {UNIT}; see `journalctl -u {UNIT}`")]
    Failed,
}

/// Starts the service if its configuration is the one in this place; else it is for this process.
/// May be dropped: systemctl then goes on.
///
/// # Errors
/// [`StartError`].
pub(in crate::enrol) async fn choose(place: &Place) -> Result<Start, StartError> {
    let has_unit = || {
        UNIT_FOLDERS
            .iter()
            .any(|folder| Path::new(folder).join(UNIT).exists())
    };
    if !(place.is_of_system() && Path::new("/run/systemd/system").exists() && has_unit()) {
        return Ok(Start::Here);
    }
    // A service that runs already has the old configuration.
    for verb in ["enable", "restart"] {
        let status = Command::new("systemctl")
            .args(["--quiet", verb, UNIT])
            .stdin(Stdio::null())
            .status();
        let status = timeout(STARTING, status)
            .await
            .map_err(|_| StartError::Timeout)?
            .map_err(StartError::Run)?;
        if !status.success() {
            return Err(StartError::Failed);
        }
    }
    Ok(Start::Service)
}
