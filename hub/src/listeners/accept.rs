//! The one accept loop: a permit, a connection, a task of its own. The loop itself
//! never waits for a stranger.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use common::backoff::Backoff;
use common::descriptors;
use common::service_manager::Watchdog;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::{Place, Strangers};
use crate::events::{Event, Fault};

/// A connection's share of the limit, held as long as the connection lives. Only a
/// closed semaphore gives none, and this one is never closed.
pub type Permit = Option<OwnedSemaphorePermit>;

/// Permits for so many connections, and for half of those that there is room for at most.
pub fn permits(connections: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(descriptors::room(connections, 1, 2)))
}

/// Ends each time that the watchdog was fed; never without one.
async fn fed(watchdog: &mut Option<Watchdog>) {
    match watchdog {
        Some(watchdog) => watchdog.feed().await,
        None => std::future::pending().await,
    }
}

/// Accepts while there are permits, until `stop` is cancelled; every connection becomes a task of
/// `tasks`. The watchdog is fed from the loop. When accepting fails (descriptors ran out, say), it backs off and goes on.
pub async fn run<F, S>(
    listener: TcpListener,
    permits: Arc<Semaphore>,
    strangers: Strangers,
    stop: CancellationToken,
    tasks: TaskTracker,
    mut watchdog: Option<Watchdog>,
    serve: F,
) where
    F: Fn(TcpStream, SocketAddr, Permit, Place) -> S,
    S: Future<Output = ()> + Send + 'static,
{
    let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(1));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            () = fed(&mut watchdog) => continue,
            accepted = async {
                let permit = Arc::clone(&permits).acquire_owned().await.ok();
                (permit, listener.accept().await)
            } => accepted,
        };
        match accepted {
            (permit, Ok((socket, peer))) => {
                backoff.reset();
                common::net::tune(&socket);
                let place = strangers.admit(peer.ip());
                tasks.spawn(serve(socket, peer, permit, place));
            }
            (_, Err(error)) => {
                let delay = backoff.next_delay();
                let reason = &error;
                Event::Fault(Fault::NotAccepted { delay, reason }).emit();
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(delay) => {}
                }
            }
        }
    }
}
