//! Local ports and Unix sockets that lead to one target of one device each: every accepted connection becomes a
//! tunnel in a task of its own.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use common::boxed::boxed;
use common::identity::{DeviceIdentity, StreamName};
use common::session_mode::SessionMode;
use common::telemetry::About;
use common::{limits, log_about};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::accept::{Client, Room};
#[cfg(unix)]
use super::unix::{UnixBindError, UnixSocket};
use crate::config::ListenConfig;
use crate::forward::{BindError, Forward, Local};
use crate::stream::SetupError;
use crate::tunnel::{Devices, Outcome, Peer, TooManyDevices, Tunnels};

/// Why nothing can be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Streams cannot be opened at all.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// A port cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A Unix socket cannot be listened on.
    #[cfg(unix)]
    #[error(transparent)]
    Unix(#[from] UnixBindError),
    /// A socket has no address.
    #[error("a listening socket has no address")]
    Address(#[source] io::Error),
    /// There are more devices than there may be.
    #[error(transparent)]
    Devices(#[from] TooManyDevices),
}

/// What is listened on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A TCP address, with the real port.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl Address {
    /// The port, of a TCP address.
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp(address) => Some(address.port()),
            Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// One address that is listened on, and where its connections go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listening {
    /// The address.
    pub address: Address,
    /// The device of its connections, or a module of it.
    pub identity: DeviceIdentity,
    /// Their stream name.
    pub name: StreamName,
}

/// A bound socket.
#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(UnixSocket),
}

/// Bound ports and Unix sockets, ready to run.
#[derive(Debug)]
pub struct Listener {
    sockets: Vec<(Socket, Listening)>,
    devices: Devices,
    /// One for each device: they are kept while it is listened for any.
    tunnels: HashMap<DeviceIdentity, Arc<Tunnels>>,
    max_connections: usize,
    mode: SessionMode,
}

impl Listener {
    /// Binds every port and socket; all of them, or it fails. Dropping the future closes those that
    /// are bound.
    ///
    /// # Errors
    /// [`ListenError`] names the port, the socket or the file at fault.
    pub async fn bind(config: ListenConfig) -> Result<Self, ListenError> {
        let devices = Devices::new(&config.hub, config.session, config.sample_output, false)?;
        let mut tunnels = HashMap::new();
        let mut sockets = Vec::new();
        for Forward {
            local,
            identity,
            name,
        } in &config.forwards
        {
            tunnels.insert(identity.clone(), devices.tunnels(identity)?);
            for (socket, address) in listen(local).await? {
                let listening = Listening {
                    address,
                    identity: identity.clone(),
                    name: name.clone(),
                };
                sockets.push((socket, listening));
            }
        }
        Ok(Self {
            sockets,
            devices,
            tunnels,
            max_connections: config.max_connections,
            mode: config.session.mode,
        })
    }

    /// Every address that is listened on.
    pub fn addresses(&self) -> impl Iterator<Item = &Listening> {
        self.sockets.iter().map(|(_, listening)| listening)
    }

    /// One line per address, for stdout.
    pub fn announcement(&self) -> String {
        let mut text = String::new();
        for Listening {
            address,
            identity,
            name,
        } in self.addresses()
        {
            let _ = writeln!(text, "listening on {address} -> {identity} ({name})");
        }
        text
    }

    /// Serves until `stop` is cancelled; then open tunnels are cut, which takes at most
    /// [`limits::DRAIN`]. Dropping the future leaves what is open to run by itself: cancel `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let room = Room::new(self.max_connections, self.mode, stop.clone());
        for tunnels in self.tunnels.values() {
            tunnels.sessions().ask_ahead();
        }
        for (socket, Listening { identity, name, .. }) in self.sockets {
            let Some(tunnels) = self.tunnels.get(&identity) else {
                continue;
            };
            let way = Way {
                tunnels: Arc::clone(tunnels),
                name,
                stop: stop.clone(),
            };
            match socket {
                Socket::Tcp(socket) => {
                    let accepting = room
                        .clone()
                        .accept(socket, move |socket, peer| serve(way.clone(), socket, peer));
                    room.tasks.spawn(accepting);
                }
                #[cfg(unix)]
                Socket::Unix(socket) => {
                    let accepting = room
                        .clone()
                        .accept(socket, move |socket, peer| serve(way.clone(), socket, peer));
                    room.tasks.spawn(accepting);
                }
            }
        }
        stop.cancelled().await;
        room.tasks.close();
        let in_time = timeout(limits::DRAIN, room.tasks.wait()).await.is_ok();
        self.devices.shut_down().await;
        tracing::debug!(in_time, "stopped listening");
    }
}

async fn listen(local: &Local) -> Result<Vec<(Socket, Address)>, ListenError> {
    match local {
        Local::Port(place) => {
            let sockets = place.listen().await?.into_iter().map(|socket| {
                let address = socket.local_addr().map_err(ListenError::Address)?;
                Ok((Socket::Tcp(socket), Address::Tcp(address)))
            });
            sockets.collect()
        }
        #[cfg(unix)]
        Local::Socket(path) => {
            let socket = UnixSocket::bind(path).await?;
            Ok(vec![(Socket::Unix(socket), Address::Unix(path.clone()))])
        }
        // No command line has one here.
        #[cfg(not(unix))]
        Local::Socket(_) => Ok(Vec::new()),
    }
}

/// Where the connections of a socket go.
#[derive(Debug, Clone)]
struct Way {
    tunnels: Arc<Tunnels>,
    name: StreamName,
    stop: CancellationToken,
}

/// One connection, from its accept to its end.
async fn serve(way: Way, socket: impl Client, peer: Peer) {
    let Way {
        tunnels,
        name,
        stop,
    } = way;
    let about = About::stream(None, &name)
        .of(tunnels.identity())
        .peer(&peer);
    log_about!(debug, about, "connection accepted");
    // Dropped without a stream, it is reset: nothing of it was carried.
    socket.arm();
    let tunnel = tunnels.tunnel(&name, peer);
    let routed = tokio::select! {
        // What it needs is given back before the tunnel's long life.
        routed = boxed(|| tunnel.route()) => routed.map_err(Outcome::Unrouted),
        () = socket.reset() => Err(Outcome::ClientLeft),
        () = stop.cancelled() => Err(Outcome::Stopped),
    };
    let outcome = match routed {
        Ok(route) => tunnel.carry(route, socket, &stop).await,
        Err(outcome) => outcome,
    };
    outcome.log(&tunnel);
}
