//! The accept loop of one listening socket: a task for each connection, and no more of them than
//! there is room for.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use common::backoff::Backoff;
use common::descriptors;
use common::permits::{Permit, Permits};
use common::retirement;
use common::session_mode::SessionMode;
use common::tunnel::LocalSocket;
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::counts::counts;
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
    permits: Arc<Permits>,
    /// The loops and the connections.
    pub(super) tasks: TaskTracker,
    /// Cancelled, loops and connections end.
    pub(super) stop: CancellationToken,
    /// How many connections are open.
    open: Arc<watch::Sender<usize>>,
}

/// Counts one connection as long as it is not dropped.
struct Counted(Arc<watch::Sender<usize>>);

impl Counted {
    fn new(open: &Arc<watch::Sender<usize>>) -> Self {
        open.send_modify(|open| *open += 1);
        Self(Arc::clone(open))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

impl Room {
    /// For as many connections as are wanted and possible. In a session each is one socket; in a
    /// plain stream it is another for the leg, and one for the request that opens that.
    pub(super) fn new(wanted: usize, mode: SessionMode, stop: CancellationToken) -> Self {
        Self {
            permits: Permits::new(most(wanted, mode)),
            tasks: TaskTracker::new(),
            stop,
            open: Arc::new(watch::Sender::new(0)),
        }
    }

    /// Waits until the room is stopped, or retired (SIGUSR1) and empty; it is stopped then. May be
    /// dropped.
    pub(super) async fn ended(&self) {
        let open = self.open.subscribe();
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = retirement::wait(open.clone(), || *open.borrow()) => self.stop.cancel(),
        }
    }

    /// From now on it is for so many. No connection is ended for that.
    pub(super) fn set_most(&self, wanted: usize, mode: SessionMode) {
        self.permits.set(most(wanted, mode));
    }

    /// The same room, for loops that end when `stop` is cancelled.
    pub(super) fn until(&self, stop: &CancellationToken) -> Self {
        Self {
            stop: stop.clone(),
            ..self.clone()
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
                    let counted = (Counted::new(&self.open), counts().connection());
                    self.tasks.spawn(async move {
                        serving.await;
                        drop((permit, counted));
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
    async fn next<A: Accepting>(&self, socket: &A) -> io::Result<(Permit, (A::Socket, Peer))> {
        let permit = match self.permits.try_acquire() {
            Some(permit) => permit,
            None => {
                tracing::warn!(
                    "as many connections are open as --max-connections allows; more wait"
                );
                self.permits.acquire().await
            }
        };
        Ok((permit, socket.next().await?))
    }
}

fn most(wanted: usize, mode: SessionMode) -> usize {
    let each = if mode == SessionMode::Always { 1 } else { 3 };
    descriptors::room(wanted, each, 1)
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
