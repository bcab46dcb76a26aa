//! How device-proxy starts once its device is enrolled: as the service that its package or, on
//! Windows, `device-proxy service install` has installed, or in the process that enrolled it.

#[cfg(not(windows))]
mod systemd;

use super::Place;

#[cfg(not(windows))]
pub use self::systemd::StartError;
#[cfg(not(windows))]
pub(super) use self::systemd::choose;
#[cfg(windows)]
pub use crate::service::ServiceError as StartError;

/// How device-proxy starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The service was started, and starts with the machine.
    Service,
    /// It goes on in this process.
    Here,
    /// Not now.
    Not,
}

/// Starts the service if it is installed and its configuration is the one in this place; else it is
/// for this process. May be dropped: the service then still starts.
///
/// # Errors
/// [`StartError`].
#[cfg(windows)]
pub(super) async fn choose(place: &Place) -> Result<Start, StartError> {
    use crate::service;
    if !place.is_of_system() {
        return Ok(Start::Here);
    }
    // A service that runs already has the old configuration.
    let restart = || service::is_installed().then(service::restart).transpose();
    let restarted = tokio::task::spawn_blocking(restart).await;
    match restarted {
        Ok(restarted) => Ok(restarted?.map_or(Start::Here, |()| Start::Service)),
        // The program ends.
        Err(_) => Ok(Start::Not),
    }
}
