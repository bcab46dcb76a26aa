//! A device-proxy in this process.

use clap::Parser as _;
use common::connection_string::DeviceConnectionString;
use device_proxy::cli::Cli;
use device_proxy::config::{self, Config};
use device_proxy::hub_session::Fatal;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{TestHub, soon, wait};

/// A running device-proxy; dropped, it stops.
pub struct TestDevice {
    stop: CancellationToken,
    running: Option<JoinHandle<Result<(), Fatal>>>,
}

/// The configuration for these arguments.
pub fn config(hub: &TestHub, connection: &DeviceConnectionString, arguments: &[&str]) -> Config {
    let ca_file = hub.ca_file();
    let mqtts_port = hub.mqtts.port().to_string();
    let line = [
        &["device-proxy", "--ca-file", ca_file.to_str().unwrap()],
        &["--mqtts-port", &mqtts_port][..],
        arguments,
    ]
    .concat();
    let text = connection.to_secret_text();
    let environment =
        |name: &str| (name == "IOTHUB_DEVICE_CONNECTION_STRING").then(|| text.expose().into());
    let options = Cli::parse_from(line).options;
    let sources = config::sources(&options, &environment).unwrap();
    Config::resolve(options, &sources).unwrap()
}

impl TestDevice {
    /// Starts a device-proxy with these arguments, and waits until it takes streams.
    pub async fn start(
        hub: &TestHub,
        connection: &DeviceConnectionString,
        arguments: &[&str],
    ) -> Self {
        let stop = CancellationToken::new();
        let config = config(hub, connection, arguments);
        let device = Self {
            running: Some(tokio::spawn(device_proxy::run(config, stop.clone()))),
            stop,
        };
        let identity = &connection.identity;
        wait("the device-proxy's hub session", || {
            hub.state.presence.is_subscribed(identity)
        })
        .await;
        device
    }

    /// Stops it and waits for its end.
    pub async fn shut_down(mut self) -> Result<(), Fatal> {
        self.stop.cancel();
        match self.running.take() {
            Some(running) => soon("the device-proxy's end", running).await.unwrap(),
            None => Ok(()),
        }
    }
}

impl Drop for TestDevice {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A device-proxy that can be killed: all its tasks run on threads of its own.
pub struct KillableDevice(Option<Runtime>);

impl KillableDevice {
    /// Starts one as [`TestDevice::start`] does.
    pub async fn start(
        hub: &TestHub,
        connection: &DeviceConnectionString,
        arguments: &[&str],
    ) -> Self {
        let config = config(hub, connection, arguments);
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime.spawn(device_proxy::run(config, CancellationToken::new()));
        let identity = &connection.identity;
        wait("the device-proxy's hub session", || {
            hub.state.presence.is_subscribed(identity)
        })
        .await;
        Self(Some(runtime))
    }

    /// Ends it without a Close: only its sockets are closed.
    pub fn kill(self) {}
}

impl Drop for KillableDevice {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
