//! A TCP forwarder on loopback that delays, freezes or resets connections when a test asks for it.
//!
//! What one side sends is read in chunks, each with the time at which it is due on the other side.
//! The order is kept, and the bytes in flight are bounded, so that a side that does not read stops
//! the other.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{soon, wait};

mod pump;
#[cfg(test)]
mod tests;

use pump::{Line, pump};

/// Properties of a link.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Delay of each byte, in each direction.
    pub delay: Duration,
    /// Bytes in flight in each direction of a connection, at least 32 KiB.
    pub buffer: usize,
    /// Seed of the random resets; the same seed gives the same resets.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            buffer: 1 << 20,
            seed: 0,
        }
    }
}

/// When new connections are reset at random.
#[derive(Debug, Clone)]
pub struct RandomReset {
    /// After so many bytes, both directions together; at least one.
    pub after_bytes: u64,
    /// And then after a random time in this range, in milliseconds.
    pub within_ms: Range<u64>,
}

/// Counters of a link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections that it has now.
    pub connections: u64,
    /// Connections that it has ever had.
    pub accepted: u64,
    /// Connections that it has reset.
    pub resets: u64,
    /// Bytes that came from clients.
    pub bytes_forward: u64,
    /// Bytes that came from the address behind it.
    pub bytes_back: u64,
}

/// A running link; dropped, it stops and its connections are closed.
pub struct SlowLink {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Counters {
    connections: AtomicU64,
    accepted: AtomicU64,
    resets: AtomicU64,
    forward: AtomicU64,
    back: AtomicU64,
}

struct Shared {
    line: Line,
    target: watch::Sender<Option<SocketAddr>>,
    chance: Mutex<(fastrand::Rng, Option<RandomReset>)>,
    /// Of the present connections; `reset_all` creates a new one for later connections.
    reset: Mutex<CancellationToken>,
    gone: CancellationToken,
    counters: Counters,
}

impl SlowLink {
    /// Starts a link on a free port. Without a target its connections wait for one.
    pub async fn start(target: Option<SocketAddr>, settings: Settings) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::new(target, settings));
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self {
            address,
            shared,
            accepting: Mutex::new(Some(accepting)),
        }
    }

    /// Sets the target of new connections.
    pub fn lead_to(&self, target: SocketAddr) {
        self.shared.target.send_replace(Some(target));
    }

    /// Changes the delay of what is read from now on.
    pub fn set_delay(&self, delay: Duration) {
        self.shared.line.delay.send_replace(delay);
    }

    /// Resets every connection, on both sides.
    pub fn reset_all(&self) {
        let mut reset = self.shared.reset.lock().unwrap();
        std::mem::take(&mut *reset).cancel();
    }

    /// Delivers nothing more, not even an end, and keeps the connections open.
    pub fn freeze(&self) {
        self.shared.line.frozen.send_replace(true);
    }

    /// Delivers again, first what arrived in the meantime.
    pub fn thaw(&self) {
        self.shared.line.frozen.send_replace(false);
    }

    /// Refuses new connections, from when this returns.
    pub async fn refuse(&self) {
        let accepting = self.accepting.lock().unwrap().take();
        if let Some(accepting) = accepting {
            accepting.abort();
            let _ = accepting.await;
        }
    }

    /// Accepts connections again, on the same port.
    pub async fn allow(&self) {
        // An outgoing connection may have taken the port for a moment.
        let listener = soon("the link's port", async {
            loop {
                match TcpListener::bind(self.address).await {
                    Ok(listener) => break listener,
                    Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        })
        .await;
        let accepting = tokio::spawn(accept(listener, Arc::clone(&self.shared)));
        if let Some(other) = self.accepting.lock().unwrap().replace(accepting) {
            other.abort();
        }
    }

    /// Resets each new connection in this way; `None` ends this.
    pub fn reset_after(&self, random_reset: Option<RandomReset>) {
        self.shared.chance.lock().unwrap().1 = random_reset;
    }

    /// Its counters.
    pub fn counts(&self) -> Counts {
        let counters = &self.shared.counters;
        Counts {
            connections: counters.connections.load(Relaxed),
            accepted: counters.accepted.load(Relaxed),
            resets: counters.resets.load(Relaxed),
            bytes_forward: counters.forward.load(Relaxed),
            bytes_back: counters.back.load(Relaxed),
        }
    }

    /// Waits until it has no connection.
    pub async fn is_empty(&self) {
        wait("the link's connections to end", || {
            self.counts().connections == 0
        })
        .await;
    }
}

impl Shared {
    fn new(target: Option<SocketAddr>, settings: Settings) -> Self {
        Self {
            line: Line::new(settings.delay, settings.buffer),
            target: watch::Sender::new(target),
            chance: Mutex::new((fastrand::Rng::with_seed(settings.seed), None)),
            reset: Mutex::default(),
            gone: CancellationToken::new(),
            counters: Counters::default(),
        }
    }
}

impl Drop for SlowLink {
    fn drop(&mut self) {
        self.shared.gone.cancel();
        if let Some(accepting) = self.accepting.lock().unwrap().take() {
            accepting.abort();
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        shared.counters.accepted.fetch_add(1, Relaxed);
        shared.counters.connections.fetch_add(1, Relaxed);
        // Drawn here, so that the random numbers depend on the order of connections only.
        let (after_bytes, later) = {
            let (chance, random_reset) = &mut *shared.chance.lock().unwrap();
            match random_reset {
                Some(random_reset) => (
                    random_reset.after_bytes.max(1),
                    pick(chance, &random_reset.within_ms),
                ),
                None => (u64::MAX, Duration::ZERO),
            }
        };
        let reset = shared.reset.lock().unwrap().clone();
        let shared = Arc::clone(&shared);
        // Not in a set of this task: refusing ends this task, but no connection.
        tokio::spawn(async move {
            serve(client, &shared, reset, after_bytes, later).await;
            shared.counters.connections.fetch_sub(1, Relaxed);
        });
    }
}

fn pick(chance: &mut fastrand::Rng, range_ms: &Range<u64>) -> Duration {
    let picked = match range_ms.is_empty() {
        true => range_ms.start,
        false => chance.u64(range_ms.clone()),
    };
    Duration::from_millis(picked)
}

async fn serve(
    mut client: TcpStream,
    shared: &Shared,
    reset: CancellationToken,
    after_bytes: u64,
    later: Duration,
) {
    let asked = async {
        tokio::select! {
            () = shared.gone.cancelled() => {}
            () = reset.cancelled() => {}
        }
    };
    tokio::pin!(asked);
    let server = tokio::select! {
        () = &mut asked => None,
        server = connect(shared) => server.ok(),
    };
    let Some(mut server) = server else {
        end_with_reset(shared, &[&client]);
        return;
    };
    let seen = watch::Sender::new(0);
    let mut enough = seen.subscribe();
    let random_reset = async {
        let _ = enough.wait_for(|bytes| *bytes >= after_bytes).await;
        tokio::time::sleep(later).await;
    };
    let is_reset = tokio::select! {
        () = &mut asked => true,
        () = random_reset => true,
        ending = carry(&mut client, &mut server, shared, &seen) => ending.is_err(),
    };
    if is_reset {
        end_with_reset(shared, &[&client, &server]);
    }
}

/// Makes a later close a reset.
fn end_with_reset(shared: &Shared, sockets: &[&TcpStream]) {
    for socket in sockets {
        let _ = socket.set_zero_linger();
    }
    shared.counters.resets.fetch_add(1, Relaxed);
}

async fn connect(shared: &Shared) -> io::Result<TcpStream> {
    shared.line.thawed().await;
    let mut target = shared.target.subscribe();
    let target = target
        .wait_for(Option::is_some)
        .await
        .ok()
        .and_then(|address| *address);
    let server = TcpStream::connect(target.ok_or(io::ErrorKind::NotFound)?).await?;
    server.set_nodelay(true)?;
    Ok(server)
}

/// Forwards both directions to their ends.
async fn carry(
    client: &mut TcpStream,
    server: &mut TcpStream,
    shared: &Shared,
    seen: &watch::Sender<u64>,
) -> io::Result<()> {
    client.set_nodelay(true)?;
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let forward = |count: u64| {
        shared.counters.forward.fetch_add(count, Relaxed);
        seen.send_modify(|bytes| *bytes += count);
    };
    let back = |count: u64| {
        shared.counters.back.fetch_add(count, Relaxed);
        seen.send_modify(|bytes| *bytes += count);
    };
    tokio::try_join!(
        pump(from_client, to_server, &shared.line, forward),
        pump(from_server, to_client, &shared.line, back),
    )?;
    Ok(())
}
