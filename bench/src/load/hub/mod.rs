//! The hub alone: many idle devices, stream initiations, and idle streams. Every session has its
//! own TLS handshake, CONNECT with a token, and SUBSCRIBE, as those of the proxies, and uses their
//! code.

pub mod device;
pub mod streams;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::connection_string::{DeviceConnectionString, ServiceConnectionString};
use common::net::Dialer;
use common::tls;
use rustls::ClientConfig;
use rustls::client::Resumption;

use super::LoadError;

/// The address of the hub, and the credential of its devices.
#[derive(Debug, Clone, clap::Args)]
pub struct HubArguments {
    /// A file with the connection string of a device. Many devices have this id with a number
    /// (`ID-0`, `ID-1`, …) and the same key.
    #[arg(long)]
    pub device_string_file: PathBuf,
    /// Port of MQTT over TLS.
    #[arg(long)]
    pub mqtts_port: u16,
    /// Devices use MQTT over WebSocket, at the port in their connection string.
    #[arg(long)]
    pub websocket: bool,
    /// The hub's CA.
    #[arg(long)]
    pub ca_file: PathBuf,
}

/// The hub, ready to be connected to.
#[derive(Debug, Clone)]
pub struct Hub {
    /// The device, or the template of all devices.
    pub device: DeviceConnectionString,
    /// Port of MQTT over TLS.
    pub mqtts_port: u16,
    /// Whether devices use MQTT over WebSocket instead.
    pub websocket: bool,
    /// Connects to it, without TLS session resumption.
    pub dialer: Dialer,
}

impl Hub {
    /// Reads the files.
    ///
    /// # Errors
    /// [`LoadError::Hub`] names the invalid file.
    pub fn new(arguments: &HubArguments) -> Result<Self, LoadError> {
        let text = read(&arguments.device_string_file)?;
        let device = DeviceConnectionString::parse(text.trim()).map_err(hub)?;
        let tls = tls::client_config(Some(&arguments.ca_file), None).map_err(hub)?;
        let mut tls = ClientConfig::clone(&tls);
        // Different devices do not share TLS sessions.
        tls.resumption = Resumption::disabled();
        Ok(Self {
            device,
            mqtts_port: arguments.mqtts_port,
            websocket: arguments.websocket,
            dialer: Dialer::new(&Arc::new(tls)),
        })
    }
}

/// Reads a service's connection string from a file.
///
/// # Errors
/// [`LoadError::Hub`].
pub fn service(file: &Path) -> Result<ServiceConnectionString, LoadError> {
    ServiceConnectionString::parse(read(file)?.trim()).map_err(hub)
}

fn read(file: &Path) -> Result<String, LoadError> {
    std::fs::read_to_string(file)
        .map_err(|error| LoadError::Hub(format!("{}: {error}", file.display())))
}

/// An error of the hub, with all its causes.
pub(crate) fn hub(error: impl std::error::Error) -> LoadError {
    LoadError::Hub(common::report::chain(&error))
}
