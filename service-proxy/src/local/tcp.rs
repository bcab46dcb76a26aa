//! Local ports: each accepted connection becomes a tunnel in a task of its own. What fails costs
//! that one connection.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use common::backoff::Backoff;
use common::boxed::boxed;
use common::identity::StreamName;
use common::session_mode::SessionMode;
use common::telemetry::About;
use common::tunnel::ConnectionSocket as _;
use common::{descriptors, limits, log_about};
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::ListenConfig;
use crate::forward::BindError;
use crate::stream::SetupError;
use crate::tunnel::{Outcome, Peer, Tunnels};

/// Why the ports could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Streams cannot be opened at all.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// A port cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A socket has no address.
    #[error("a listening socket has no address")]
    Address(#[source] io::Error),
}

/// One address that is listened on, and where its connections go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listening {
    /// The address, with the real port.
    pub address: SocketAddr,
    /// The stream name of its connections.
    pub name: StreamName,
}

/// Bound ports, ready to run.
#[derive(Debug)]
pub struct Listener {
    sockets: Vec<(TcpListener, Listening)>,
    tunnels: Arc<Tunnels>,
    max_connections: usize,
}

impl Listener {
    /// Binds every port; all of them, or it fails. Dropping the future closes those that are bound.
    ///
    /// # Errors
    /// [`ListenError`] names the port or the file at fault.
    pub async fn bind(config: ListenConfig) -> Result<Self, ListenError> {
        let tunnels = Tunnels::new(
            &config.hub,
            config.identity,
            config.session,
            config.sample_output,
            false,
        )?;
        let mut sockets = Vec::new();
        for forward in &config.forwards {
            for socket in forward.listen().await? {
                let listening = Listening {
                    address: socket.local_addr().map_err(ListenError::Address)?,
                    name: forward.name.clone(),
                };
                sockets.push((socket, listening));
            }
        }
        Ok(Self {
            sockets,
            tunnels: Arc::new(tunnels),
            max_connections: room(config.max_connections, config.session.mode),
        })
    }

    /// Every address that is listened on.
    pub fn addresses(&self) -> impl Iterator<Item = &Listening> {
        self.sockets.iter().map(|(_, listening)| listening)
    }

    /// One line per address, for stdout.
    pub fn announcement(&self) -> String {
        let mut text = String::new();
        for Listening { address, name } in self.addresses() {
            let device = self.tunnels.identity();
            let _ = writeln!(text, "listening on {address} -> {device} ({name})");
        }
        text
    }

    /// Serves until `stop` is cancelled; then open tunnels are cut, which takes at most
    /// [`limits::DRAIN`]. Dropping the future leaves what is open to run by itself: cancel `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let tasks = TaskTracker::new();
        let tunnels = Arc::clone(&self.tunnels);
        tunnels.sessions().ask_ahead();
        let permits = Arc::new(Semaphore::new(self.max_connections));
        for (socket, listening) in self.sockets {
            let accept = Accept {
                socket,
                name: listening.name,
                tunnels: Arc::clone(&tunnels),
                permits: Arc::clone(&permits),
                tasks: tasks.clone(),
                stop: stop.clone(),
            };
            tasks.spawn(accept.run());
        }
        stop.cancelled().await;
        tasks.close();
        let in_time = timeout(limits::DRAIN, tasks.wait()).await.is_ok();
        tunnels.sessions().shut_down().await;
        tracing::debug!(in_time, "stopped listening");
    }
}

/// The accept loop of one socket.
struct Accept {
    socket: TcpListener,
    name: StreamName,
    tunnels: Arc<Tunnels>,
    permits: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Accept {
    async fn run(self) {
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(1));
        loop {
            let accepted = tokio::select! {
                () = self.stop.cancelled() => return,
                accepted = self.next() => accepted,
            };
            match accepted {
                Ok((permit, socket, peer)) => {
                    backoff.reset();
                    self.serve(permit, socket, peer);
                }
                Err(error) => {
                    let delay = backoff.next_delay();
                    tracing::warn!(?delay, "cannot accept a connection: {error}");
                    tokio::select! {
                        () = self.stop.cancelled() => return,
                        () = sleep(delay) => {}
                    }
                }
            }
        }
    }

    /// Permit first: what there is no room for waits in the system's queue.
    async fn next(&self) -> io::Result<(OwnedSemaphorePermit, TcpStream, SocketAddr)> {
        let permits = || Arc::clone(&self.permits);
        let permit = match permits().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                tracing::warn!(
                    "as many connections are open as --max-connections allows; more wait"
                );
                // Only a closed semaphore refuses, and this one is never closed.
                permits().acquire_owned().await.map_err(io::Error::other)?
            }
        };
        let (socket, peer) = self.socket.accept().await?;
        Ok((permit, socket, peer))
    }

    fn serve(&self, permit: OwnedSemaphorePermit, socket: TcpStream, peer: SocketAddr) {
        common::net::tune(&socket);
        let (tunnels, name, stop) = (
            Arc::clone(&self.tunnels),
            self.name.clone(),
            self.stop.clone(),
        );
        self.tasks.spawn(async move {
            serve(&tunnels, socket, peer, &name, &stop).await;
            drop(permit);
        });
    }
}

/// For how many connections there is room. In a session each is one socket; in a plain stream it
/// is another for the leg, and one for the request that opens that.
fn room(wanted: usize, mode: SessionMode) -> usize {
    let each = if mode == SessionMode::Always { 1 } else { 3 };
    descriptors::room(wanted.min(Semaphore::MAX_PERMITS), each, 1)
}

/// One connection, from its accept to its end.
async fn serve(
    tunnels: &Tunnels,
    socket: TcpStream,
    peer: SocketAddr,
    name: &StreamName,
    stop: &CancellationToken,
) {
    let about = About::stream(None, name).of(tunnels.identity()).peer(&peer);
    log_about!(debug, about, "connection accepted");
    // Dropped without a stream, it is reset: nothing of it was carried.
    socket.arm();
    let tunnel = tunnels.tunnel(name, Peer::Address(peer));
    let routed = tokio::select! {
        // What it needs is given back before the tunnel's long life.
        routed = boxed(|| tunnel.route()) => routed.map_err(Outcome::Unrouted),
        () = reset(&socket) => Err(Outcome::ClientLeft),
        () = stop.cancelled() => Err(Outcome::Stopped),
    };
    let outcome = match routed {
        Ok(route) => tunnel.carry(route, socket, stop).await,
        Err(outcome) => outcome,
    };
    outcome.log(&tunnel);
}

/// Ends when the peer has reset the connection, and takes nothing from it. An end of
/// input is no reason: a client may have sent all it wants to send, and what it sent
/// must still arrive.
async fn reset(socket: &TcpStream) {
    if socket.ready(Interest::ERROR).await.is_ok() && matches!(socket.take_error(), Ok(Some(_))) {
        return;
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        (near, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn a_half_close_is_no_reason_to_give_up_but_a_reset_is() {
        let (mut client, socket) = pair().await;
        client.write_all(b"all I have").await.unwrap();
        client.shutdown().await.unwrap();
        let waited = timeout(Duration::from_millis(200), reset(&socket)).await;
        assert!(waited.is_err());
        client.arm();
        drop(client);
        timeout(Duration::from_secs(10), reset(&socket))
            .await
            .unwrap();
    }
}
