//! Local ports: each accepted connection becomes a task of its own, which opens one
//! stream and carries the connection's bytes. What fails costs that one connection.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use common::backoff::Backoff;
use common::identity::{DeviceIdentity, StreamName};
use common::session::{ConnectionEnd, ConnectionId, ConnectionOutcome, SharedSession, pipe};
use common::telemetry::AUDIT;
use common::tunnel::{LocalSocket as _, Traffic};
use common::{descriptors, limits};
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::ListenConfig;
use crate::forward::BindError;
use crate::session::{Route, Sessions};
use crate::stream::{ServiceLeg, SetupError, StreamOpener, carry, report_outcome};
use common::session_mode::SessionMode;

/// After how long the log says what is being waited for.
const PATIENCE: Duration = Duration::from_secs(2);

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
    forwarder: Arc<Forwarder>,
    max_connections: usize,
}

impl Listener {
    /// Binds every port; all of them, or it fails.
    ///
    /// # Errors
    /// [`ListenError`] names the port or the file at fault.
    pub async fn bind(config: ListenConfig) -> Result<Self, ListenError> {
        let opener = Arc::new(StreamOpener::new(&config.hub, config.sample_output)?);
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
            forwarder: Arc::new(Forwarder {
                sessions: Sessions::new(
                    Arc::clone(&opener),
                    config.identity.clone(),
                    config.session,
                    false,
                ),
                opener,
                identity: config.identity,
            }),
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
            let device = &self.forwarder.identity;
            let _ = writeln!(text, "listening on {address} -> {device} ({name})");
        }
        text
    }

    /// Serves until `stop` is cancelled; then open tunnels are cut, which takes at most
    /// [`limits::DRAIN`].
    pub async fn run(self, stop: CancellationToken) {
        let tasks = TaskTracker::new();
        let forwarder = Arc::clone(&self.forwarder);
        forwarder.sessions.ask_ahead();
        let permits = Arc::new(Semaphore::new(self.max_connections));
        for (socket, listening) in self.sockets {
            let accept = Accept {
                socket,
                name: listening.name,
                forwarder: Arc::clone(&self.forwarder),
                permits: Arc::clone(&permits),
                tasks: tasks.clone(),
                stop: stop.clone(),
            };
            tasks.spawn(accept.run());
        }
        stop.cancelled().await;
        tasks.close();
        let in_time = timeout(limits::DRAIN, tasks.wait()).await.is_ok();
        forwarder.sessions.shut_down().await;
        tracing::debug!(in_time, "stopped listening");
    }
}

/// The accept loop of one socket.
struct Accept {
    socket: TcpListener,
    name: StreamName,
    forwarder: Arc<Forwarder>,
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
        common::dial::tune(&socket);
        let (forwarder, name, stop) = (
            Arc::clone(&self.forwarder),
            self.name.clone(),
            self.stop.clone(),
        );
        self.tasks.spawn(async move {
            forwarder.serve(socket, peer, &name, &stop).await;
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

/// What all connections share.
struct Forwarder {
    sessions: Sessions,
    opener: Arc<StreamOpener>,
    identity: DeviceIdentity,
}

impl std::fmt::Debug for Forwarder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Forwarder({})", self.identity)
    }
}

impl Forwarder {
    /// One connection, from its accept to its end.
    async fn serve(
        &self,
        socket: TcpStream,
        peer: SocketAddr,
        name: &StreamName,
        stop: &CancellationToken,
    ) {
        let device = &self.identity;
        tracing::debug!(%device, %name, %peer, "connection accepted");
        // Dropped without a stream, it is reset: nothing of it was carried.
        socket.arm();
        let routed = tokio::select! {
            // What it needs is given back before the tunnel's long life.
            routed = Box::pin(self.sessions.route(name)) => routed,
            () = reset(&socket) => {
                tracing::debug!(%device, %name, %peer, "the local client left before the stream was there");
                return;
            }
            () = stop.cancelled() => return,
        };
        match routed {
            Ok(Route::Session(live, id)) => {
                tokio::select! {
                    () = self.in_session(&live, id, socket, peer, name) => {}
                    () = stop.cancelled() => {}
                }
            }
            Ok(Route::Plain(leg)) => self.in_stream(socket, *leg, peer, name, stop).await,
            Err(error) => tracing::warn!(%peer, "{error}"),
        }
    }

    /// As a connection of a session.
    async fn in_session(
        &self,
        live: &SharedSession,
        id: ConnectionId,
        socket: TcpStream,
        peer: SocketAddr,
        name: &StreamName,
    ) {
        let (device, session) = (&self.identity, live.id());
        let traffic = Traffic::default();
        let opened = std::sync::atomic::AtomicBool::new(false);
        let piping = pipe(live, id, socket, &traffic, || {
            opened.store(true, std::sync::atomic::Ordering::Relaxed);
            tracing::info!(name: AUDIT, %device, %name, %peer, %session, connection = %id, "tunnel opened");
        });
        let waiting = self.wait_for_session(live, name, peer, || {
            opened.load(std::sync::atomic::Ordering::Relaxed)
        });
        let outcome = tokio::select! {
            biased;
            outcome = piping => outcome,
            // The pipe is dropped: both ends of the connection are broken off.
            () = waiting => return,
        };
        let ConnectionOutcome {
            sent,
            received,
            duration,
            end,
        } = outcome;
        let seconds = duration.as_secs_f32();
        let how = common::report::chain(&end);
        match end {
            ConnectionEnd::Refused { .. } => {
                tracing::warn!(%peer, %session, connection = %id, "no connection to {device} ({name}): {how}");
            }
            _ => {
                tracing::info!(name: AUDIT, %device, %name, %peer, %session, connection = %id, sent, received, seconds, "tunnel closed: {how}");
            }
        }
    }

    /// Ends when a connection that was never opened has waited for too long for its
    /// session to be carried again: a client that hangs is no use.
    async fn wait_for_session(
        &self,
        live: &SharedSession,
        name: &StreamName,
        peer: SocketAddr,
        is_opened: impl Fn() -> bool,
    ) {
        let device = &self.identity;
        sleep(PATIENCE).await;
        if is_opened() {
            return std::future::pending().await;
        }
        if live.detached_since().is_some() {
            tracing::info!(%device, %name, %peer, "the connection waits for its session, which is interrupted");
        }
        loop {
            sleep(limits::STREAM_HANDSHAKE - PATIENCE).await;
            if is_opened() {
                return std::future::pending().await;
            }
            if live.detached_since().is_some() {
                return tracing::warn!(%peer, "no connection to {device} ({name}): its session is interrupted, and was not back within {} s", limits::STREAM_HANDSHAKE.as_secs());
            }
        }
    }

    /// In a stream of its own.
    async fn in_stream(
        &self,
        socket: TcpStream,
        leg: ServiceLeg,
        peer: SocketAddr,
        name: &StreamName,
        stop: &CancellationToken,
    ) {
        let device = &self.identity;
        let sample_output = self.opener.sample_output();
        // The samples' lines stand in the place of ours.
        let shown = sample_output.is_off();
        if shown {
            tracing::info!(name: AUDIT, %device, %name, %peer, "tunnel opened");
        }
        let outcome = carry(socket, leg, stop, sample_output).await;
        report_outcome(device, name, &peer, &outcome, shown);
    }
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
