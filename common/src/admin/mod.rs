//! The admin listener of a program: plain HTTP, which answers what the program counts (`/metrics`),
//! that it lives (`/healthz`) and whether it can do its work (`/readyz`). Nobody is asked who they
//! are, so nothing secret is there, nothing can be changed, and it listens on this machine alone
//! unless somebody spells out that it is open.
//!
//! One request a connection, by `httparse`, which the programs have anyway: hyper's server would
//! cost device-proxy, which has none of it, more than all of this.

mod listen;
mod metrics;
mod process;
mod request;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

pub use self::listen::AdminListen;
pub use self::metrics::{Metrics, latency_buckets};
use self::request::{Asked, respond};

/// Connections at once. One more takes the place of the oldest: who holds all of them open does
/// not keep others out.
const CONNECTIONS: usize = 32;
/// How long it waits before it accepts again after a failure.
const PAUSE: Duration = Duration::from_millis(100);

/// Why a program cannot do its work, one short sentence each; empty when it can.
pub type NotReady = Vec<String>;

/// What a program answers.
pub trait Program: Send + Sync + 'static {
    /// What it counts.
    fn metrics(&self) -> &Metrics;

    /// Why it cannot do its work now. May be dropped.
    fn not_ready(&self) -> Pin<Box<dyn Future<Output = NotReady> + Send + '_>>;
}

/// The address of the admin listener cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address} for metrics and health checks; choose another address with --admin, or `off`"
)]
pub struct AdminError {
    address: SocketAddr,
    #[source]
    source: io::Error,
}

/// An admin listener that is bound.
pub struct Admin {
    listener: TcpListener,
    /// Whether it was meant to be reached from elsewhere.
    is_open: bool,
}

impl Admin {
    /// Binds it; `None` if it is off.
    ///
    /// # Errors
    /// [`AdminError`] names the address.
    pub async fn bind(listen: AdminListen) -> Result<Option<Self>, AdminError> {
        let Some(address) = listen.address() else {
            return Ok(None);
        };
        let listener = TcpListener::bind(address).await;
        Ok(Some(Self {
            listener: listener.map_err(|source| AdminError { address, source })?,
            is_open: listen.is_open(),
        }))
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The system's.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers for `program` until `stop` is cancelled. Dropped, it closes everything.
    pub async fn run(self, program: Arc<dyn Program>, stop: CancellationToken) {
        let mut tasks = JoinSet::new();
        let mut oldest = std::collections::VecDeque::<AbortHandle>::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                Some(_) = tasks.join_next() => {
                    oldest.retain(|task| !task.is_finished());
                    continue;
                }
                accepted = self.listener.accept() => accepted,
            };
            let Ok((socket, _)) = accepted else {
                sleep(PAUSE).await;
                continue;
            };
            if oldest.len() >= CONNECTIONS
                && let Some(task) = oldest.pop_front()
            {
                task.abort();
            }
            let program = Arc::clone(&program);
            let is_open = self.is_open;
            oldest.push_back(tasks.spawn(async move {
                let mut socket = socket;
                serve(&mut socket, &*program, is_open).await;
            }));
        }
    }
}

/// Answers one request, and ends the connection; `is_open`: it may be asked for by any name. Ends by
/// itself; dropped, the client has no answer.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut S,
    program: &dyn Program,
    is_open: bool,
) {
    request::converse(socket, is_open, async |asked| match asked {
        Asked::Metrics => respond(200, "OK", metrics::CONTENT_TYPE, &program.metrics().text()),
        Asked::Health => respond(200, "OK", request::TEXT, "alive\n"),
        Asked::Readiness => match tokio::time::timeout(READINESS, program.not_ready()).await {
            Ok(reasons) if reasons.is_empty() => respond(200, "OK", request::TEXT, "ready\n"),
            Ok(reasons) => not_ready(&reasons),
            Err(_) => not_ready(&["the program did not come to an answer in time".to_owned()]),
        },
    })
    .await;
}

/// How long the answer to whether it is ready may take.
const READINESS: Duration = Duration::from_secs(3);

fn not_ready(reasons: &[String]) -> Vec<u8> {
    let text = format!("not ready: {}\n", reasons.join("; "));
    respond(503, "Service Unavailable", request::TEXT, &text)
}

#[cfg(test)]
mod tests;
