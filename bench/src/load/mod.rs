//! The load of `stream-load` for a chain of programs, and the daemon behind it.
//!
//! [`protocol`] defines what is sent on a connection: a header with the work and its length, since
//! a plain device stream has no half-close. Every byte belongs to a known [`pattern`] and is
//! checked at the far end. [`serve`] is the daemon; [`bulk`], [`echo`] and [`hold`] measure, and
//! [`hub`] is for the hub alone. Each process uses one thread, so that it takes little of the
//! machine.

pub mod bulk;
pub mod echo;
pub mod hold;
pub mod hub;
pub mod pattern;
pub mod protocol;
pub mod serve;
pub mod statistics;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

/// Why a measurement has no result, in one sentence.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The chain does not listen, or has no descriptor left.
    #[error("no connection to {to}: {source}")]
    Connect {
        /// Where to.
        to: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {at}: {source}")]
    Listen {
        /// Where.
        at: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// A connection broke, or ended early.
    #[error("the connection broke while {doing}: {source}")]
    Broken {
        /// The current activity.
        doing: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// Bytes arrived that were not sent.
    #[error("byte {at} of a connection is not the one that was sent")]
    Wrong {
        /// Position in the connection's bytes.
        at: u64,
    },
    /// The other end does not speak this tool's protocol.
    #[error("the other end is no stream-load daemon")]
    Stranger,
    /// It took too long.
    #[error("{doing} took longer than {} s", limit.as_secs())]
    Late {
        /// The current activity.
        doing: &'static str,
        /// The limit.
        limit: Duration,
    },
    /// The hub failed, or its files are invalid.
    #[error("the hub: {0}")]
    Hub(String),
    /// The arguments are invalid.
    #[error("{0}")]
    Usage(&'static str),
    /// A task of this program ended in an unexpected way.
    #[error("a part of this program ended early")]
    Lost,
}

/// Adds the current activity to an I/O error.
pub(crate) fn broken(doing: &'static str) -> impl Fn(io::Error) -> LoadError {
    move |source| LoadError::Broken { doing, source }
}

/// Limits the time of a future.
///
/// # Errors
/// [`LoadError::Late`], or the future's own.
pub async fn within<T>(
    limit: Duration,
    doing: &'static str,
    work: impl Future<Output = Result<T, LoadError>>,
) -> Result<T, LoadError> {
    match timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(LoadError::Late { doing, limit }),
    }
}

/// Connects, with `TCP_NODELAY`.
///
/// # Errors
/// [`LoadError::Connect`].
pub async fn connect(to: SocketAddr) -> Result<TcpStream, LoadError> {
    let refused = |source| LoadError::Connect { to, source };
    let socket = TcpStream::connect(to).await.map_err(refused)?;
    socket.set_nodelay(true).map_err(refused)?;
    Ok(socket)
}

/// Raises the descriptor limit of this process to its maximum.
pub fn raise_descriptor_limit() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        // If this fails, the first connection above the limit reports it.
        let _ = setrlimit(Resource::Nofile, limit);
    }
}
