//! A local port for programs that can use a proxy: SOCKS5 and HTTP CONNECT. The host name and the port
//! that such a program asks for select the device and its target; nothing else is ever connected to.
//!
//! ```text
//! request   what a client asks for: by its first byte in SOCKS5 or in HTTP
//! refusal   why it gets no tunnel, in the words of either protocol
//! case      host names that have lost the case of the device's id
//! serve     one connection
//! ```

mod asked;
mod case;
mod http;
mod refusal;
mod request;
mod serve;
mod socks5;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use common::session_mode::SessionMode;
use common::{limits, output};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::accept::Room;
use super::listener::ListenError;
use crate::config::SocksConfig;
use crate::host_names::Suffix;
use crate::tunnel::Devices;
use serve::Server;

/// A bound proxy port, ready to run.
#[derive(Debug)]
pub struct Proxy {
    sockets: Vec<(TcpListener, SocketAddr)>,
    server: Arc<Server>,
    suffix: Suffix,
    max_connections: usize,
    mode: SessionMode,
}

impl Proxy {
    /// Binds the port. Dropping the future closes it.
    ///
    /// # Errors
    /// [`ListenError`] names the port or the file at fault.
    pub async fn bind(config: SocksConfig) -> Result<Self, ListenError> {
        let devices = Devices::new(&config.hub, config.session, config.sample_output, false)?;
        let mut sockets = Vec::new();
        for socket in config.place.listen().await? {
            let address = socket.local_addr().map_err(ListenError::Address)?;
            sockets.push((socket, address));
        }
        Ok(Self {
            sockets,
            suffix: config.names.suffix.clone(),
            server: Arc::new(Server::new(devices, config.names, config.module)),
            max_connections: config.max_connections,
            mode: config.session.mode,
        })
    }

    /// Every address that is listened on.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.sockets.iter().map(|(_, address)| *address)
    }

    /// Prints a line for each address, and a warning for one that other machines reach.
    pub fn announce(&self) {
        let mut text = String::new();
        for address in self.addresses() {
            let suffix = &self.suffix;
            let _ = writeln!(
                text,
                "listening on {address} -> *.{suffix} (SOCKS5, HTTP CONNECT)"
            );
            if !address.ip().is_loopback() {
                tracing::warn!(
                    "{address} is no loopback address: whoever reaches it can connect to all devices of the hub, without a password"
                );
            }
        }
        output::stdout().text(&text);
    }

    /// Serves until `stop` is cancelled; then open tunnels are cut, which takes at most
    /// [`limits::DRAIN`]. Dropping the future leaves what is open to run by itself: cancel `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let room = Room::new(self.max_connections, self.mode, stop.clone());
        for (socket, _) in self.sockets {
            let (server, stop) = (Arc::clone(&self.server), stop.clone());
            let accepting = room.clone().accept(socket, move |socket, peer| {
                let (server, stop) = (Arc::clone(&server), stop.clone());
                async move { server.serve(socket, peer, &stop).await }
            });
            room.tasks.spawn(accepting);
        }
        tokio::select! {
            () = stop.cancelled() => {}
            never = self.server.devices().tend() => match never {},
        }
        room.tasks.close();
        let in_time = timeout(limits::DRAIN, room.tasks.wait()).await.is_ok();
        self.server.devices().shut_down().await;
        tracing::debug!(in_time, "stopped listening");
    }
}
