//! The accept loop of one listening socket: a task for each connection, and no more of them than
//! there is room for.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use common::backoff::Backoff;
use common::descriptors;
use common::session_mode::SessionMode;
use common::tunnel::LocalSocket;
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::tunnel::Peer;

/// A listening socket.
pub(super) trait Accepting: Send + Sync {
    /// Its connections.
    type Socket: Client;

    /// The next connection. May be dropped: none is lost.
    fn next(&self) -> impl Future<Output = io::Result<(Self::Socket, Peer)>> + Send;
}

impl Accepting for TcpListener {
    type Socket = TcpStream;

    async fn next(&self) -> io::Result<(TcpStream, Peer)> {
        let (socket, peer) = self.accept().await?;
        common::net::tune(&socket);
        Ok((socket, Peer::Address(peer)))
    }
}

/// The socket of a local client.
pub(super) trait Client: LocalSocket + Sync + 'static {
    /// Ends when the client has reset the connection, and takes nothing from it. An end of input is
    /// no reason: a client may have sent all it wants to send, and what it sent must still arrive.
    fn reset(&self) -> impl Future<Output = ()> + Send;
}

impl Client for TcpStream {
    async fn reset(&self) {
        if self.ready(Interest::ERROR).await.is_ok() && matches!(self.take_error(), Ok(Some(_))) {
            return;
        }
        std::future::pending().await
    }
}

#[cfg(unix)]
impl Client for tokio::net::UnixStream {
    /// There are no resets among Unix sockets.
    async fn reset(&self) {
        std::future::pending().await
    }
}

/// What the accept loops of a program share.
#[derive(Debug, Clone)]
pub(super) struct Room {
    permits: Arc<Semaphore>,
    /// The loops and the connections.
    pub(super) tasks: TaskTracker,
    /// Cancelled, loops and connections end.
    pub(super) stop: CancellationToken,
}

impl Room {
    /// For as many connections as are wanted and possible. In a session each is one socket; in a
    /// plain stream it is another for the leg, and one for the request that opens that.
    pub(super) fn new(wanted: usize, mode: SessionMode, stop: CancellationToken) -> Self {
        let each = if mode == SessionMode::Always { 1 } else { 3 };
        let most = descriptors::room(wanted.min(Semaphore::MAX_PERMITS), each, 1);
        Self {
            permits: Arc::new(Semaphore::new(most)),
            tasks: TaskTracker::new(),
            stop,
        }
    }

    /// Serves the connections of this socket until the room is stopped. What fails costs that one
    /// connection.
    pub(super) async fn accept<A, S, F>(self, socket: A, serve: S)
    where
        A: Accepting,
        S: Fn(A::Socket, Peer) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(1));
        loop {
            let accepted = tokio::select! {
                () = self.stop.cancelled() => return,
                accepted = self.next(&socket) => accepted,
            };
            match accepted {
                Ok((permit, (socket, peer))) => {
                    backoff.reset();
                    let serving = serve(socket, peer);
                    self.tasks.spawn(async move {
                        serving.await;
                        drop(permit);
                    });
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
    async fn next<A: Accepting>(
        &self,
        socket: &A,
    ) -> io::Result<(OwnedSemaphorePermit, (A::Socket, Peer))> {
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
        Ok((permit, socket.next().await?))
    }
}

#[cfg(test)]
mod tests {
    use common::tunnel::ConnectionSocket as _;
    use tokio::io::AsyncWriteExt as _;
    use tokio::time::timeout;

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
        let waited = timeout(Duration::from_millis(200), socket.reset()).await;
        assert!(waited.is_err());
        client.arm();
        drop(client);
        timeout(Duration::from_secs(10), socket.reset())
            .await
            .unwrap();
    }
}
