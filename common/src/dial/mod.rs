//! Reaching a host: resolve, connect and shake hands, each with a deadline, and
//! errors that say which of them failed.

mod memory;
mod race;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::limits;
use crate::tls::{BadCertificate, CertificateProblem};
use crate::verdict::Verdict;
pub(crate) use race::Unreached;

/// Why a host could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name has no address.
    #[error("cannot resolve {host}")]
    Resolve {
        /// The host name.
        host: String,
        /// The resolver's error.
        #[source]
        source: io::Error,
    },
    /// No address accepted the connection.
    #[error("cannot connect to {host}:{port}")]
    Connect {
        /// The host name.
        host: String,
        /// The TCP port.
        port: u16,
        /// The last address's refusal.
        #[source]
        source: io::Error,
    },
    /// Resolving, connecting or the TLS handshake took too long.
    #[error("{host}:{port} did not answer within {} s", limit.as_secs_f32())]
    Timeout {
        /// The host name.
        host: String,
        /// The TCP port.
        port: u16,
        /// The limit that passed.
        limit: Duration,
    },
    /// The host's certificate is not acceptable.
    #[error("{host}:{port} cannot be trusted")]
    Certificate {
        /// The host name.
        host: String,
        /// The TCP port.
        port: u16,
        /// What is wrong with it.
        #[source]
        bad: BadCertificate,
    },
    /// The TLS handshake failed otherwise.
    #[error("TLS with {host}:{port} failed")]
    Tls {
        /// The host name.
        host: String,
        /// The TCP port.
        port: u16,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
}

impl DialError {
    /// What can cure it.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Certificate { bad, .. } => match bad.problem {
                // Our clock may not be set yet, or the hub's operator may be about to renew.
                CertificateProblem::NotYetValid | CertificateProblem::Expired => Verdict::Retry,
                CertificateProblem::Untrusted
                | CertificateProblem::SelfSigned
                | CertificateProblem::Authority
                | CertificateProblem::WrongName
                | CertificateProblem::Other => Verdict::Never,
            },
            Self::Resolve { .. }
            | Self::Connect { .. }
            | Self::Timeout { .. }
            | Self::Tls { .. } => Verdict::Retry,
        }
    }
}

/// Connects to `host:port`. Its addresses are tried one after the other, 250 ms apart or as
/// soon as one fails, until the first accepts (RFC 8305); the one that accepted last time is
/// the first. May be dropped at any time.
///
/// # Errors
/// [`DialError`]; all attempts together end within `limit`.
pub async fn tcp(host: &str, port: u16, limit: Duration) -> Result<TcpStream, DialError> {
    let deadline = Instant::now() + limit;
    let timed_out = || DialError::Timeout {
        host: host.to_owned(),
        port,
        limit,
    };
    let unresolved = |source| DialError::Resolve {
        host: host.to_owned(),
        source,
    };
    let addresses = timeout_at(deadline, resolve(host, port))
        .await
        .map_err(|_| timed_out())?
        .map_err(unresolved)?;
    if addresses.is_empty() {
        let none = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        return Err(unresolved(none));
    }
    let unreached = match reach(host, port, &addresses, deadline).await {
        Ok(socket) => return Ok(socket),
        Err(unreached) => unreached,
    };
    Err(match unreached.explanation() {
        Some(source) => DialError::Connect {
            host: host.to_owned(),
            port,
            source,
        },
        None => timed_out(),
    })
}

/// All addresses of a host, as the system sorts them.
///
/// # Errors
/// The resolver's.
pub(crate) async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    #[cfg(test)]
    if let Some(addresses) = tests::known(host, port) {
        return Ok(addresses);
    }
    Ok(tokio::net::lookup_host((host, port)).await?.collect())
}

/// Connects to one of a host's addresses, as [`tcp`] does; `host` and `port` are what its
/// last address is remembered by.
///
/// # Errors
/// [`Unreached`], by `deadline` at latest.
pub(crate) async fn reach(
    host: &str,
    port: u16,
    addresses: &[SocketAddr],
    deadline: Instant,
) -> Result<TcpStream, Unreached> {
    let last = memory::memory().last(host, port, Instant::now());
    let socket = race::connect(&race::order(addresses, last), deadline).await?;
    if addresses.len() > 1
        && let Ok(address) = socket.peer_addr()
    {
        memory::memory().note(host, address, Instant::now());
    }
    tune(&socket);
    Ok(socket)
}

/// Connects to `host:port` over TLS, as `name` (usually the host itself).
///
/// # Errors
/// [`DialError`]; everything together ends within [`limits::DIAL`].
pub async fn tls(
    host: &str,
    port: u16,
    config: &Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>, DialError> {
    let deadline = Instant::now() + limits::DIAL;
    let socket = tcp(host, port, limits::TCP_CONNECT).await?;
    let failed = |source: io::Error| match BadCertificate::find(&source) {
        Some(bad) => DialError::Certificate {
            host: host.to_owned(),
            port,
            bad,
        },
        None => DialError::Tls {
            host: host.to_owned(),
            port,
            source,
        },
    };
    let name = ServerName::try_from(host.to_owned())
        .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
    let handshake = TlsConnector::from(Arc::clone(config)).connect(name, socket);
    match timeout_at(deadline, handshake).await {
        Ok(Ok(mut stream)) => {
            let connection = stream.get_mut().1;
            connection.set_buffer_limit(Some(limits::TLS_WRITE_BUFFER));
            Ok(stream)
        }
        Ok(Err(error)) => Err(failed(error)),
        Err(_) => Err(DialError::Timeout {
            host: host.to_owned(),
            port,
            limit: limits::DIAL,
        }),
    }
}

/// What every socket of ours wants: no waiting for company (`TCP_NODELAY`), and the
/// kernel's probes when idle. Refusal by the system is not fatal.
pub fn tune(socket: &TcpStream) {
    let _ = socket.set_nodelay(true);
    let probes = TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10));
    let _ = SockRef::from(socket).set_tcp_keepalive(&probes);
}

/// What a socket wants that carries a session: not BBR, where that is the system's choice.
/// A session keeps the path full and its queues short by itself, and BBR stops a connection
/// that is never idle for 200 ms every 10 s, to see the idle path; a person who types beside
/// a copy feels each of them. Refusal by the system is not fatal.
pub fn steady(socket: &TcpStream) {
    #[cfg(any(target_os = "linux", target_os = "freebsd"))]
    {
        let socket = SockRef::from(socket);
        if socket
            .tcp_congestion()
            .is_ok_and(|name| name.starts_with(b"bbr"))
        {
            let _ = socket.set_tcp_congestion(b"cubic");
        }
    }
    #[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
    let _ = socket;
}

/// An I/O error in plain words: rustls writes a whole manual when a peer is just gone.
pub fn plain(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => io::Error::new(error.kind(), "it ended without a Close"),
        _ => error,
    }
}

#[cfg(test)]
pub(crate) mod tests;
