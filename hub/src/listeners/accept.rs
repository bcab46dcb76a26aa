//! The one accept loop: a permit, a connection, a task of its own. The loop itself
//! never waits for a stranger.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use common::backoff::Backoff;
use common::descriptors;
use common::permits::{Permit, Permits};
use common::service_manager::Watchdog;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::{Place, Strangers};
use crate::events::{Bound, Event, Events, Fault};

/// For how many connections there are permits: for half of those that there is room for at most.
pub fn most(connections: usize) -> usize {
    descriptors::room(connections, 1, 2)
}

/// Ends each time that the watchdog was fed; never without one.
async fn fed(watchdog: &mut Option<Watchdog>) {
    match watchdog {
        Some(watchdog) => watchdog.feed().await,
        None => std::future::pending().await,
    }
}

/// What the listeners of one hub share.
#[derive(Clone)]
pub struct Listening {
    /// Where a connection has its place until it has shown who it is.
    pub strangers: Strangers,
    /// Where faults are reported.
    pub events: Events,
    /// Cancelled when no more connections are to be accepted.
    pub stop: CancellationToken,
    /// Owns the connections.
    pub tasks: TaskTracker,
}

/// Accepts, under the listener's name, while there are permits, until the hub's `stop` is cancelled; every connection becomes a
/// task of its own. The watchdog is fed from the loop. When accepting fails (descriptors ran out,
/// say), it backs off and goes on.
pub async fn run<F, S>(
    (name, listener): (&'static str, TcpListener),
    permits: Arc<Permits>,
    hub: Listening,
    mut watchdog: Option<Watchdog>,
    serve: F,
) where
    F: Fn(TcpStream, SocketAddr, Permit, Place) -> S,
    S: Future<Output = ()> + Send + 'static,
{
    let Listening {
        strangers,
        events,
        stop,
        tasks,
    } = hub;
    let mut is_full = false;
    let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(1));
    loop {
        let was_full = std::mem::replace(&mut is_full, permits.free() == 0);
        if is_full && !was_full {
            events.counts().bound(Bound::Connections);
        }
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            () = fed(&mut watchdog) => continue,
            accepted = async {
                let permit = permits.acquire().await;
                (permit, listener.accept().await)
            } => accepted,
        };
        match accepted {
            (permit, Ok((socket, peer))) => {
                backoff.reset();
                common::net::tune(&socket);
                events.counts().accepted(name);
                let place = strangers.admit(peer.ip());
                tasks.spawn(serve(socket, peer, permit.in_use(), place));
            }
            (_, Err(error)) => {
                let delay = backoff.next_delay();
                let reason = &error;
                events.emit(Event::Fault(Fault::NotAccepted { delay, reason }));
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(delay) => {}
                }
            }
        }
    }
}
