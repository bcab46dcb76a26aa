//! One connection of the proxy, from its request to its end.

use common::boxed::boxed;
use common::identity::{DeviceId, DeviceIdentity, ModuleId, StreamName};
use common::telemetry::About;
use common::tunnel::ConnectionSocket as _;
use common::{log_about, report};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::asked::{Protocol, Unasked};
use super::case::Cases;
use super::refusal::{Kind, Refusal};
use super::request;
use crate::host_names::{HostNameError, HostNames};
use crate::limits;
use crate::local::accept::Client as _;
use crate::session::Route;
use crate::tunnel::{Devices, Outcome, Peer, Tunnel};

/// Serves the connections of a proxy.
#[derive(Debug)]
pub(super) struct Server {
    devices: Devices,
    names: HostNames,
    /// A module of every device instead of the device itself.
    module: Option<ModuleId>,
    cases: Cases,
}

impl Server {
    pub(super) fn new(devices: Devices, names: HostNames, module: Option<ModuleId>) -> Self {
        Self {
            devices,
            names,
            module,
            cases: Cases::default(),
        }
    }

    pub(super) fn devices(&self) -> &Devices {
        &self.devices
    }

    /// Serves a connection to its end, or until `stop` is cancelled. Dropping the future resets it.
    pub(super) async fn serve(&self, mut socket: TcpStream, peer: Peer, stop: &CancellationToken) {
        let asked = tokio::select! {
            asked = boxed(|| timeout(limits::PROXY_REQUEST, request::read(&mut socket))) => asked,
            () = stop.cancelled() => return,
        };
        let (protocol, asked) = match asked {
            Ok(Ok(asked)) => asked,
            Ok(Err(Unasked::Refused(protocol, refusal))) => {
                return refuse(&mut socket, peer, protocol, &refusal).await;
            }
            Ok(Err(Unasked::Foreign(why))) => {
                return log_about!(warn, about(&peer), "refused a client: {why}");
            }
            Ok(Err(Unasked::Lost(error))) => {
                return log_about!(debug, about(&peer), "a client left: {error}");
            }
            Err(_) => {
                let seconds = limits::PROXY_REQUEST.as_secs();
                return log_about!(
                    warn,
                    about(&peer),
                    "refused a client: it sent no request within {seconds} s"
                );
            }
        };
        match self.names.find(&asked.host, &asked.port) {
            Ok((device, name)) => {
                // Dropped without a stream, it is reset: nothing of it was carried.
                socket.arm();
                self.carry(socket, peer, protocol, (device, name), stop)
                    .await;
            }
            Err(error) => {
                let refusal = Refusal::new(kind(&error), report::chain(&error));
                refuse(&mut socket, peer, protocol, &refusal).await;
            }
        }
    }

    /// Carries a connection to this target of this device.
    async fn carry(
        &self,
        mut socket: TcpStream,
        peer: Peer,
        protocol: Protocol,
        (asked, name): (DeviceId, StreamName),
        stop: &CancellationToken,
    ) {
        let known = self.cases.known(&asked).flatten();
        let mut device = known.unwrap_or_else(|| asked.clone());
        loop {
            let identity = DeviceIdentity {
                device: device.clone(),
                module: self.module.clone(),
            };
            let tunnels = match self.devices.tunnels(&identity) {
                Ok(tunnels) => tunnels,
                Err(error) => {
                    return refuse(&mut socket, peer, protocol, &error.into()).await;
                }
            };
            let tunnel = tunnels.tunnel(&name, peer);
            log_about!(debug, about(&peer).of(&identity), "connection accepted");
            let mut found = None;
            let opened = tokio::select! {
                // What it needs is given back before the tunnel's long life.
                opened = boxed(|| async {
                    let opened = open(&tunnel).await;
                    if opened.as_ref().is_err_and(Outcome::is_of_unknown_device) {
                        found = self.other_case(&asked, &device).await;
                    }
                    opened
                }) => opened,
                () = socket.reset() => Err(Outcome::ClientLeft),
                () = stop.cancelled() => Err(Outcome::Stopped),
            };
            if let Some(found) = found {
                device = found;
                continue;
            }
            let outcome = match opened {
                Ok(route) => match accept(&mut socket, protocol).await {
                    Ok(()) => tunnel.carry(route, socket, stop).await,
                    Err(_) => Outcome::ClientLeft,
                },
                Err(outcome) => {
                    if let Some(refusal) = Refusal::of_outcome(&outcome) {
                        answer(&mut socket, protocol, &refusal).await;
                    }
                    outcome
                }
            };
            return outcome.log(&tunnel);
        }
    }

    /// Another device that is meant by a name, since the hub does not know the one that was tried.
    async fn other_case(&self, asked: &DeviceId, tried: &DeviceId) -> Option<DeviceId> {
        if tried != asked {
            // It was found some time ago.
            self.cases.forget(asked);
            return None;
        }
        self.cases.find(self.devices.api(), asked).await
    }
}

/// The way to the device's target, once that is connected.
async fn open(tunnel: &Tunnel<'_>) -> Result<Route, Outcome> {
    let route = tunnel.route().await.map_err(Outcome::Unrouted)?;
    tunnel.opened(route).await
}

/// A few bytes, for which a new socket has room.
async fn accept(socket: &mut TcpStream, protocol: Protocol) -> std::io::Result<()> {
    timeout(limits::PROXY_ANSWER, request::accept(socket, protocol)).await?
}

/// Logs a refusal, and answers it.
async fn refuse(socket: &mut TcpStream, peer: Peer, protocol: Protocol, refusal: &Refusal) {
    log_about!(warn, about(&peer), "refused a client: {}", refusal.text);
    answer(socket, protocol, refusal).await;
}

async fn answer(socket: &mut TcpStream, protocol: Protocol, refusal: &Refusal) {
    // The connection ends in order, with the answer.
    socket.disarm();
    let refusing = boxed(|| request::refuse(socket, protocol, refusal));
    if let Ok(Err(error)) = timeout(limits::PROXY_ANSWER, refusing).await {
        tracing::debug!("a client left before it was refused: {error}");
    }
}

fn kind(error: &HostNameError) -> Kind {
    match error {
        HostNameError::Address(..) => Kind::AddressType,
        HostNameError::Elsewhere(..)
        | HostNameError::Device(..)
        | HostNameError::Port(_)
        | HostNameError::Reserved(_) => Kind::NotAllowed,
    }
}

/// What lines before the tunnel are about.
fn about(peer: &Peer) -> About<'_> {
    About::connection_from(peer)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use common::settings::session::SessionConfig;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::super::asked::tests::pair;
    use super::*;
    use crate::config::unreachable_hub;
    use crate::sample_output::SampleOutput;

    fn server() -> Server {
        let hub = unreachable_hub();
        let session = SessionConfig::default();
        let devices = Devices::new(&hub, session, SampleOutput::Off, false).unwrap();
        Server::new(devices, HostNames::default(), None)
    }

    /// The clock goes on by itself when nothing else happens.
    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_no_request_is_not_waited_for() {
        let server = server();
        let peer = Peer::Address(SocketAddr::from(([127, 0, 0, 1], 1)));
        for part in [
            &b""[..],
            &[5, 1, 0, 5, 1],
            b"CONNECT MyDevice.device:22 HTTP/1.1\r\n",
        ] {
            let (mut client, socket) = pair().await;
            client.write_all(part).await.unwrap();
            let before = tokio::time::Instant::now();
            let stop = CancellationToken::new();
            server.serve(socket, peer, &stop).await;
            assert!(before.elapsed() >= limits::PROXY_REQUEST, "{part:?}");
            let mut all = Vec::new();
            let _ = client.read_to_end(&mut all).await;
        }
    }
}
