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
pub mod request;
mod serve;
mod socks5;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use common::session_mode::SessionMode;
use common::{limits, output, report};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::accept::Room;
use super::listener::ListenError;
use super::running::Update;
use crate::config::{HubConfig, SocksConfig};
use crate::host_names::Suffix;
use crate::status::{Board, Shown, ShownHub};
use crate::tunnel::Devices;
pub use asked::{Asked, Protocol, Unasked};
pub use refusal::{Kind, Refusal};
use serve::Server;

/// A bound proxy port, ready to run.
#[derive(Debug)]
pub struct Proxy {
    sockets: Vec<(TcpListener, SocketAddr)>,
    server: Arc<Server>,
    hub: HubConfig,
    suffix: Suffix,
    max_connections: usize,
    mode: SessionMode,
    board: Arc<Board>,
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
            hub: config.hub,
            suffix: config.names.suffix.clone(),
            server: Arc::new(Server::new(devices, config.names, config.module)),
            max_connections: config.max_connections,
            mode: config.session.mode,
            board: Arc::default(),
        })
    }

    /// Shows what there is and what goes on.
    pub fn board(&self) -> Arc<Board> {
        let forwards = self
            .addresses()
            .map(|it| format!("{it} -> *.{}", self.suffix));
        self.board.publish(Shown {
            hubs: vec![ShownHub {
                name: None,
                host: self.hub.service.host.to_string(),
                room: Arc::clone(self.server.devices().room()),
            }],
            forwards: forwards.collect(),
        });
        Arc::clone(&self.board)
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

    /// Serves until `stop` is cancelled, or until it was retired (SIGUSR1) and carries nothing; then
    /// open tunnels are cut, which takes at most [`limits::DRAIN`]. Dropping the future leaves what is
    /// open to run by itself: cancel `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let (_, none) = mpsc::channel(1);
        self.run_following(none, stop).await;
    }

    /// The same, while the hub is reached, and the limits are, as each update says. The future is to
    /// be dropped as that of [`run`](Self::run).
    pub async fn run_following(
        self,
        mut updates: mpsc::Receiver<Update<SocksConfig>>,
        stop: CancellationToken,
    ) {
        let mut hub = self.hub;
        let room = Room::new(self.max_connections, self.mode, stop.clone());
        for (socket, _) in self.sockets {
            let (server, stop) = (Arc::clone(&self.server), stop.clone());
            let accepting = room.clone().accept(socket, move |socket, peer| {
                let (server, stop) = (Arc::clone(&server), stop.clone());
                async move { server.serve(socket, peer, &stop).await }
            });
            room.tasks.spawn(accepting);
        }
        let devices = self.server.devices();
        let following = async {
            while let Some(Update { config, files }) = updates.recv().await {
                room.set_most(config.max_connections, config.session.mode);
                if !hub.is_same_hub(&config.hub) {
                    continue;
                }
                match devices.follow(&hub, &config.hub, config.session, &files) {
                    Ok(()) => hub = config.hub,
                    Err(error) => {
                        tracing::warn!("the hub is reached as before: {}", report::chain(&error));
                    }
                }
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = room.ended() => {}
            never = devices.tend() => match never {},
            () = following => {}
        }
        room.tasks.close();
        let in_time = timeout(limits::DRAIN, room.tasks.wait()).await.is_ok();
        self.server.devices().shut_down().await;
        tracing::debug!(in_time, "stopped listening");
    }
}
