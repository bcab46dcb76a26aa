//! A service-proxy in this process.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser as _;
use common::connection_string::ServiceConnectionString;
use common::net::Dialer;
use common::wire::twin::SessionReport;
use service_proxy::cli::Cli;
use service_proxy::config::{self, Config, resolve};
use service_proxy::hub_api::HubApi;
use service_proxy::local::listener::{Address, Listener};
use service_proxy::local::socks::Proxy;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::hub::identity;
use crate::{TestHub, soon};

/// A listening service-proxy; dropped, it stops.
pub struct TestService {
    /// Where it listens, IPv4 only, in the order of its arguments.
    pub addresses: Vec<SocketAddr>,
    stop: CancellationToken,
    running: Option<JoinHandle<()>>,
}

/// The configuration for these arguments.
pub fn config(hub: &TestHub, service: &ServiceConnectionString, arguments: &[&str]) -> Config {
    let ca_file = hub.ca_file();
    let line = [
        &["service-proxy", "--ca-file", ca_file.to_str().unwrap()],
        arguments,
    ]
    .concat();
    let text = service.to_secret_text();
    let environment =
        |name: &str| (name == "IOTHUB_CONNECTION_STRING").then(|| text.expose().into());
    let cli = Cli::parse_from(line);
    let sources = config::sources(&cli.options, &environment).unwrap();
    resolve(cli, &sources).unwrap()
}

impl TestService {
    /// Starts `service-proxy listen` with these arguments, ports usually `0`.
    pub async fn listen(hub: &TestHub, arguments: &[&str]) -> Self {
        let service = hub.policy("service").await;
        let Config::Listen(config) = config(hub, &service, &[&["listen"], arguments].concat())
        else {
            panic!("not listen")
        };
        let listener = Listener::bind(config).await.unwrap();
        let addresses = listener
            .addresses()
            .filter_map(|listening| match listening.address {
                Address::Tcp(address) => address.is_ipv4().then_some(address),
                Address::Unix(_) => None,
            })
            .collect();
        let stop = CancellationToken::new();
        Self {
            addresses,
            running: Some(tokio::spawn(listener.run(stop.clone()))),
            stop,
        }
    }

    /// Starts `service-proxy socks` on a free port with these arguments.
    pub async fn socks(hub: &TestHub, arguments: &[&str]) -> Self {
        let service = hub.policy("service").await;
        let words = [&["socks", "127.0.0.1:0"], arguments].concat();
        let Config::Socks(config) = config(hub, &service, &words) else {
            panic!("not socks")
        };
        let proxy = Proxy::bind(config).await.unwrap();
        let addresses = proxy.addresses().collect();
        let stop = CancellationToken::new();
        Self {
            addresses,
            running: Some(tokio::spawn(proxy.run(stop.clone()))),
            stop,
        }
    }

    /// A connection to its first port.
    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addresses[0]).await.unwrap()
    }

    /// Whether a byte comes back over a new connection to it; false: the connection ends.
    ///
    /// # Panics
    /// As [`crate::echo::echoes`].
    pub async fn echoes(&self) -> bool {
        crate::echo::echoes(self.addresses[0].port()).await
    }

    /// Stops it and waits for its end.
    pub async fn shut_down(mut self) {
        self.stop.cancel();
        if let Some(running) = self.running.take() {
            soon("the service-proxy's end", running).await.unwrap();
        }
    }
}

impl Drop for TestService {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A service-proxy's client of the hub's REST API, with this policy.
pub async fn hub_api(hub: &TestHub, policy: &str) -> HubApi {
    HubApi::new(&hub.policy(policy).await, None, &Dialer::new(&hub.tls()))
}

/// The session report in this identity's twin.
pub async fn session_report(hub: &TestHub, id: &str) -> Option<SessionReport> {
    let api = hub_api(hub, "service").await;
    api.session_report(&identity(id)).await.unwrap()
}

/// Waits until the session report satisfies a condition.
pub async fn wait_for_report(
    hub: &TestHub,
    id: &str,
    condition: impl Fn(Option<SessionReport>) -> bool,
) {
    soon("the session report", async {
        while !condition(session_report(hub, id).await) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}
