//! The load that `stream-load` puts on a chain of programs, and the daemon behind it.
//!
//! [`protocol`] says what goes over a connection: a header that names the work and its length,
//! since a plain device stream carries no half-close. Every byte is one of a known [`pattern`], and
//! is checked at the far end. [`serve`] is the daemon; [`bulk`], [`echo`] and [`hold`] are what
//! measures, and [`hub`] is for the hub alone. All of it runs on one thread for each process, so
//! that it costs little beside what it measures.

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
        /// What went on.
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
        /// What went on.
        doing: &'static str,
        /// The time there was.
        limit: Duration,
    },
    /// The hub does not do as it should, or its files are wrong.
    #[error("the hub: {0}")]
    Hub(String),
    /// The arguments do not fit together.
    #[error("{0}")]
    Usage(&'static str),
    /// A task of this program ended in an unexpected way.
    #[error("a part of this program ended early")]
    Lost,
}

/// Names what was going on when the system refused.
pub(crate) fn broken(doing: &'static str) -> impl Fn(io::Error) -> LoadError {
    move |source| LoadError::Broken { doing, source }
}

/// What is not there by then is an error.
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

/// Connects, without waiting for company (`TCP_NODELAY`).
///
/// # Errors
/// [`LoadError::Connect`].
pub async fn connect(to: SocketAddr) -> Result<TcpStream, LoadError> {
    let refused = |source| LoadError::Connect { to, source };
    let socket = TcpStream::connect(to).await.map_err(refused)?;
    socket.set_nodelay(true).map_err(refused)?;
    Ok(socket)
}

/// As many descriptors as the system lets this process have.
pub fn raise_descriptor_limit() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        // Without it the first connection too many says so.
        let _ = setrlimit(Resource::Nofile, limit);
    }
}
