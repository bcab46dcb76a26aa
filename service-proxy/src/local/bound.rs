//! A forward whose port or Unix socket is bound: every accepted connection becomes a tunnel in a task of
//! its own.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use common::boxed::boxed;
use common::identity::{DeviceIdentity, StreamName};
use common::log_about;
use common::telemetry::About;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::accept::{Client, Room};
#[cfg(unix)]
use super::unix::{UnixBindError, UnixSocket};
use crate::config::{HubConfig, HubForwards, ListenConfig};
use crate::forward::{BindError, Forward, Local};
use crate::hub_name::HubName;
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
    /// The hub of the device, if it has a name.
    pub hub: Option<HubName>,
    /// The device of its connections, or a module of it.
    pub identity: DeviceIdentity,
    /// Their stream name.
    pub name: StreamName,
}

impl fmt::Display for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            address,
            identity,
            name,
            ..
        } = self;
        write!(f, "{address} -> {identity} ({name})")?;
        match &self.hub {
            Some(hub) => write!(f, " at {hub}"),
            None => Ok(()),
        }
    }
}

/// A bound socket.
#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(UnixSocket),
}

/// A forward whose sockets are bound.
#[derive(Debug)]
pub(super) struct Bound {
    sockets: Vec<(Socket, Listening)>,
    pub(super) forward: Forward,
    pub(super) tunnels: Arc<Tunnels>,
}

impl Bound {
    /// Binds the sockets of a forward to a device of this hub. Dropping the future closes those that
    /// are bound.
    ///
    /// # Errors
    /// [`ListenError`].
    pub(super) async fn new(hub: &Hub, forward: &Forward) -> Result<Self, ListenError> {
        let tunnels = hub.devices.tunnels(&forward.identity)?;
        let mut sockets = Vec::new();
        for (socket, address) in listen(&forward.local).await? {
            let listening = Listening {
                address,
                hub: hub.name.clone(),
                identity: forward.identity.clone(),
                name: forward.name.clone(),
            };
            sockets.push((socket, listening));
        }
        Ok(Self {
            sockets,
            forward: forward.clone(),
            tunnels,
        })
    }

    /// Every address that is listened on.
    pub(super) fn addresses(&self) -> impl Iterator<Item = &Listening> {
        self.sockets.iter().map(|(_, listening)| listening)
    }

    /// Accepts connections in tasks of the room, one for each socket, which are returned, until
    /// `removed` is cancelled.
    pub(super) fn accept(
        self,
        room: &Room,
        removed: &CancellationToken,
        connections: &TaskTracker,
    ) -> Vec<JoinHandle<()>> {
        let way = Way {
            tunnels: self.tunnels,
            name: self.forward.name,
            removed: removed.clone(),
            stop: room.stop.clone(),
            connections: connections.clone(),
        };
        let room = room.until(removed);
        let sockets = self.sockets.into_iter().map(|(socket, _)| {
            let (way, tasks) = (way.clone(), room.tasks.clone());
            let room = room.clone();
            match socket {
                Socket::Tcp(socket) => tasks.spawn(
                    room.accept(socket, move |socket, peer| serve(way.clone(), socket, peer)),
                ),
                #[cfg(unix)]
                Socket::Unix(socket) => tasks.spawn(
                    room.accept(socket, move |socket, peer| serve(way.clone(), socket, peer)),
                ),
            }
        });
        sockets.collect()
    }
}

/// A hub, and what reaches its devices.
#[derive(Debug)]
pub(super) struct Hub {
    pub(super) name: Option<HubName>,
    pub(super) config: HubConfig,
    pub(super) devices: Devices,
}

impl Hub {
    /// One that connects when it is used. Reads the CA file; blocks for a moment.
    ///
    /// # Errors
    /// [`SetupError`] names the file at fault.
    pub(super) fn new(of: &HubForwards, config: &ListenConfig) -> Result<Self, SetupError> {
        Ok(Self {
            name: of.name.clone(),
            config: of.hub.clone(),
            devices: Devices::new(&of.hub, config.session, config.sample_output, false)?,
        })
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
    /// The forward is removed; also when the program stops.
    removed: CancellationToken,
    /// The program stops.
    stop: CancellationToken,
    /// Counts the connections.
    connections: TaskTracker,
}

/// One connection, from its accept to its end.
async fn serve(way: Way, socket: impl Client, peer: Peer) {
    let Way {
        tunnels,
        name,
        removed,
        stop,
        connections,
    } = way;
    let _counted = connections.token();
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
        () = removed.cancelled() => Err(Outcome::Stopped),
    };
    let outcome = match routed {
        Ok(route) => tunnel.carry(route, socket, &removed).await,
        Err(outcome) => outcome,
    };
    if removed.is_cancelled() && !stop.is_cancelled() {
        outcome.log_removed(&tunnel);
    } else {
        outcome.log(&tunnel);
    }
}
