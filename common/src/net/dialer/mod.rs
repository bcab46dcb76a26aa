//! Reaching a host: resolve, connect and shake hands, each with a deadline, and
//! errors that say which of them failed. Every connection outwards begins here, and what will have
//! to come before it, as a proxy on the way, belongs here as well.

mod memory;
mod race;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::limits;
use crate::locks::lock;
use crate::net::socket::tune;
use crate::tls::{BadCertificate, CertificateProblem};
use crate::verdict::Verdict;
use memory::Memory;
pub(super) use race::Unreached;

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

/// Opens all connections of a program that lead outwards: to the hub, to streaming endpoints, to
/// targets. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Dialer {
    tls: Arc<ClientConfig>,
    memory: Arc<Mutex<Memory>>,
}

impl Dialer {
    /// With this trust, and the client certificate if there is one, for what is reached over TLS.
    pub fn new(tls: &Arc<ClientConfig>) -> Self {
        Self {
            tls: Arc::clone(tls),
            memory: Arc::default(),
        }
    }

    /// Which addresses have accepted. The lock is held for a moment only.
    fn memory(&self) -> MutexGuard<'_, Memory> {
        lock(&self.memory)
    }

    /// Connects to `host:port`. Its addresses are tried one after the other, 250 ms apart or as
    /// soon as one fails, until the first accepts (RFC 8305); the one that accepted last time is
    /// the first. May be dropped at any time.
    ///
    /// # Errors
    /// [`DialError`]; all attempts together end within `limit`.
    pub async fn tcp(
        &self,
        host: &str,
        port: u16,
        limit: Duration,
    ) -> Result<TcpStream, DialError> {
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
        let addresses = timeout_at(deadline, self.resolve(host, port))
            .await
            .map_err(|_| timed_out())?
            .map_err(unresolved)?;
        if addresses.is_empty() {
            let none = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
            return Err(unresolved(none));
        }
        let unreached = match self.reach(host, port, &addresses, deadline).await {
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
    pub(super) async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        #[cfg(test)]
        if let Some(addresses) = tests::known(host, port) {
            return Ok(addresses);
        }
        Ok(tokio::net::lookup_host((host, port)).await?.collect())
    }

    /// Connects to one of a host's addresses, as [`tcp`](Self::tcp) does; `host` and `port` are
    /// what its last address is remembered by.
    ///
    /// # Errors
    /// [`Unreached`], by `deadline` at latest.
    pub(super) async fn reach(
        &self,
        host: &str,
        port: u16,
        addresses: &[SocketAddr],
        deadline: Instant,
    ) -> Result<TcpStream, Unreached> {
        let last = self.memory().last(host, port, Instant::now());
        let socket = race::connect(&race::order(addresses, last), deadline).await?;
        if addresses.len() > 1
            && let Ok(address) = socket.peer_addr()
        {
            self.memory().note(host, address, Instant::now());
        }
        tune(&socket);
        Ok(socket)
    }

    /// Connects to `host:port` over TLS. May be dropped at any time.
    ///
    /// # Errors
    /// [`DialError`]; everything together ends within [`limits::DIAL`].
    pub async fn tls(&self, host: &str, port: u16) -> Result<TlsStream<TcpStream>, DialError> {
        let deadline = Instant::now() + limits::DIAL;
        let socket = self.tcp(host, port, limits::TCP_CONNECT).await?;
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
        let handshake = TlsConnector::from(Arc::clone(&self.tls)).connect(name, socket);
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
}

#[cfg(test)]
pub(crate) mod tests;
